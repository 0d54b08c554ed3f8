"""De-duplication: channels deliver a message again when they are not sure that it arrived."""

from __future__ import annotations

from konstruct import storage
from konstruct.settings import settings
from tenantry import keys
from tenantry.keys import key

ROUTING = "routing"


@key("answer:{message_id}")
def answer(message_id: str) -> str:
    """String: what the agent decided to answer to a message; empty where it stays silent."""
    raise NotImplementedError


def claim(message_id: str) -> str | None:
    """Claim a message; ``None`` if it is ours now, else what its first delivery has come to.

    The claim is short: if this process dies before the task is published, the channel's next
    delivery goes through. If it dies just after, the task runs twice and its effects happen once.
    """
    key = keys.idempotency(message_id)
    found = storage.client.set(key, ROUTING, nx=True, ex=settings.routing_ttl, get=True)
    return None if found is None else str(found)


def routed(message_id: str, task_id: str) -> None:
    """The message is in the queue: remember it for as long as channels redeliver."""
    storage.client.set(keys.idempotency(message_id), task_id, ex=settings.dedup_ttl)


def unclaim(message_id: str) -> None:
    """The message could not be queued: let the next delivery try."""
    storage.client.delete(keys.idempotency(message_id))


def answered(message_id: str) -> str | None:
    """What an earlier run of the message's task decided to answer, or ``None`` if none came so far."""
    found = storage.client.get(answer(message_id))
    return None if found is None else str(found)


def decide(message_id: str, text: str) -> str:
    """Remember the answer; of two runs at once the first has decided."""
    found = storage.client.set(answer(message_id), text, nx=True, ex=settings.dedup_ttl, get=True)
    return text if found is None else str(found)
