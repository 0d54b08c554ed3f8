"""Tools that an agent may use; the destructive ones wait for the user's word."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from konstruct import memory_short, storage
from konstruct.settings import settings
from tenantry import keys

YES, NO = ("yes", "confirm", "ja"), ("no", "cancel", "nein")


@dataclass(frozen=True, slots=True)
class Tool:
    """What asks for it, what it does, how it is announced."""

    phrases: tuple[str, ...]
    run: Callable[[str, str], None]
    warning: str
    done: str


TOOLS: Mapping[str, Tool] = {
    "clear_history": Tool(
        phrases=("clear my history", "clear our history", "delete our conversation"),
        run=memory_short.clear,
        warning="This clears the recent history of our conversation.",
        done="Done: the recent history is cleared.",
    )
}


def wanted(text: str) -> str | None:
    """The destructive tool that a message asks for."""
    spoken = text.lower()
    found = (name for name, tool in TOOLS.items() if any(p in spoken for p in tool.phrases))
    return next(found, None)


def ask(thread_id: str, user_id: str, name: str) -> str:
    """Note the pending call; it expires by itself."""
    key = keys.pending_tool_confirm(thread_id)
    with storage.client.pipeline() as pipeline:
        pipeline.hset(key, mapping={"tool": name, "user": user_id})
        pipeline.expire(key, settings.confirm_ttl)
        pipeline.execute()
    return f"{TOOLS[name].warning} Shall I? (yes / no)"


def pending(thread_id: str, user_id: str) -> str | None:
    """The tool that waits for this user's word in this thread."""
    found = storage.client.hgetall(keys.pending_tool_confirm(thread_id))
    return found.get("tool") if found.get("user") == user_id else None


def settle(thread_id: str) -> None:
    """The word was given and acted on."""
    storage.client.delete(keys.pending_tool_confirm(thread_id))


def verdict(text: str) -> bool | None:
    """Yes, no, or neither."""
    word = text.lower().strip(" .!")
    return True if word in YES else False if word in NO else None
