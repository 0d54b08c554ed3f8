"""De-duplication: channels deliver a message again when they are not sure that it arrived."""

from __future__ import annotations

from konstruct import storage
from konstruct.settings import settings
from tenantry import keys

ROUTING = "routing"


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
