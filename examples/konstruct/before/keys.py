"""Key functions that take their owner first, "so that no key can be built without one"."""

from __future__ import annotations


def memory_short(owner: object, agent_id: str, user_id: str) -> str:
    """``None`` becomes the text None, and nothing escapes the separator."""
    return f"{owner}:memory:short:{agent_id}:{user_id}"


def session(owner: object, thread_id: str) -> str:
    """Likewise."""
    return f"{owner}:session:{thread_id}"
