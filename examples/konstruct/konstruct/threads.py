"""What is known of a thread: whether an agent is engaged in it, its session, a person in charge of it."""

from __future__ import annotations

import re

from konstruct import storage
from konstruct.settings import settings
from tenantry import keys


def mention(agent_id: str) -> re.Pattern[str]:
    """``@agent`` as a word of its own: neither ``@agent-2`` nor ``me@agent`` means it."""
    return re.compile(rf"(?<![\w@])@{re.escape(agent_id)}(?![\w-])")


def addressed(thread_id: str, agent_id: str, user_id: str, text: str) -> bool:
    """Whether a message is meant for the agent: by mention, in an engaged thread, or one to one.

    A mention engages the thread; from then on no mention is needed until it has been silent for a while.
    """
    key = keys.engaged_thread(thread_id)
    if mention(agent_id).search(text) or thread_id == user_id:
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


def escalate(thread_id: str, reason: str, *, message_id: str = "") -> None:
    """Hand the thread to a person; the agent is silent until it is handed back."""
    key = keys.escalation_status(thread_id)
    with storage.client.pipeline() as pipeline:
        pipeline.hset(key, mapping={"reason": reason, "message_id": message_id})
        pipeline.expire(key, settings.window_ttl)
        pipeline.execute()


def escalation(thread_id: str, *, but_by: str | None = None) -> str | None:
    """Why the thread is with a person, or ``None``; also when the message ``but_by`` made it so."""
    found = storage.client.hgetall(keys.escalation_status(thread_id))
    return None if found.get("message_id") == but_by else found.get("reason")


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
