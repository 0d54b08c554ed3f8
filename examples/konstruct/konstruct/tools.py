"""Tools that an agent may use; the destructive ones wait for the user's word."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from konstruct import memory_short, storage
from konstruct.settings import settings
from tenantry import keys

# The first word counts, and it counts for that message alone, however often its task is run.
_CLAIM = storage.client.register_script("""
if redis.call('HGET', KEYS[1], 'user') ~= ARGV[1] then return false end
redis.call('HSETNX', KEYS[1], 'settled_by', ARGV[2])
if redis.call('HGET', KEYS[1], 'settled_by') ~= ARGV[2] then return false end
return redis.call('HGET', KEYS[1], 'tool')
""")
# A question that was asked again meanwhile stays.
_SETTLE = storage.client.register_script("""
if redis.call('HGET', KEYS[1], 'settled_by') ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
""")

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


def ask(thread_id: str, user_id: str, name: str, *, message_id: str = "") -> str:
    """Note the pending call, instead of any other of the thread; it expires by itself."""
    key = keys.pending_tool_confirm(thread_id)
    with storage.client.pipeline() as pipeline:
        pipeline.delete(key)
        pipeline.hset(key, mapping={"tool": name, "user": user_id, "asked_by": message_id})
        pipeline.expire(key, settings.confirm_ttl)
        pipeline.execute()
    return f"{TOOLS[name].warning} Shall I? (yes / no)"


def pending(thread_id: str, user_id: str, *, message_id: str | None = None) -> str | None:
    """The tool that waits for this user's word in this thread, unless ``message_id`` asked for it."""
    found = storage.client.hgetall(keys.pending_tool_confirm(thread_id))
    if found.get("user") != user_id or found.get("asked_by") == message_id:
        return None
    return found.get("tool") if found.get("settled_by") in (None, message_id) else None


def claim(thread_id: str, user_id: str, *, message_id: str) -> str | None:
    """The tool on which this message has the word; ``None`` if another one had it, or it came too late."""
    key = keys.pending_tool_confirm(thread_id)
    return _CLAIM(keys=[key], args=[user_id, message_id], client=storage.client)


def settle(thread_id: str, *, message_id: str) -> None:
    """Forget the pending call that this message had the word on."""
    _SETTLE(keys=[keys.pending_tool_confirm(thread_id)], args=[message_id], client=storage.client)


def verdict(text: str) -> bool | None:
    """Yes, no, or neither."""
    word = text.lower().strip(" .!")
    return True if word in YES else False if word in NO else None
