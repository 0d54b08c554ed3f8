"""What is known of a thread: whether an agent is engaged in it, its session, a person in charge of it."""

from __future__ import annotations

from konstruct import storage
from konstruct.settings import settings
from tenantry import keys


def addressed(thread_id: str, agent_id: str, user_id: str, text: str) -> bool:
    """Whether a message is meant for the agent: by mention, in an engaged thread, or one to one.

    A mention engages the thread; from then on no mention is needed until it has been silent for a while.
    """
    key = keys.engaged_thread(thread_id)
    if f"@{agent_id}" in text or thread_id == user_id:
        storage.client.set(key, agent_id, ex=settings.engaged_ttl)
        return True
    return storage.client.getex(key, ex=settings.engaged_ttl) == agent_id


def remember(thread_id: str, **state: str) -> None:
    """Keep the conversation's state for as long as its window."""
    key = keys.session(thread_id)
    with storage.client.pipeline() as pipeline:
        pipeline.hset(key, mapping=state)
        pipeline.expire(key, settings.window_ttl)
        pipeline.execute()


def escalate(thread_id: str, reason: str) -> None:
    """Hand the thread to a person; the agent is silent until it is handed back."""
    storage.client.set(keys.escalation_status(thread_id), reason, ex=settings.window_ttl)


def escalation(thread_id: str) -> str | None:
    """Why the thread is with a person, or ``None``."""
    reason = storage.client.get(keys.escalation_status(thread_id))
    return None if reason is None else str(reason)


def hand_back(thread_id: str) -> bool:
    """Give the thread back to its agent; says whether a person had it."""
    return bool(storage.client.delete(keys.escalation_status(thread_id)))


def status(thread_id: str) -> dict[str, object]:
    """All of it, for display."""
    return {
        "engaged": storage.client.get(keys.engaged_thread(thread_id)),
        "session": storage.client.hgetall(keys.session(thread_id)),
        "escalation": escalation(thread_id),
        "pending_tool": storage.client.hget(keys.pending_tool_confirm(thread_id), "tool"),
    }
