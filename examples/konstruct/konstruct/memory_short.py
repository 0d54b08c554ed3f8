"""Short-term memory: a sliding window of the last messages of one agent and one user."""

from __future__ import annotations

import json
from typing import Any, TypedDict

from konstruct import storage
from konstruct.settings import settings
from tenantry import keys
from tenantry.keys import key

# One script, so that a message whose task is delivered twice, or dies half way, is in the window once.
_APPEND = storage.client.register_script("""
if KEYS[2] and not redis.call('SET', KEYS[2], '1', 'NX', 'EX', ARGV[4]) then return 0 end
redis.call('RPUSH', KEYS[1], ARGV[1])
redis.call('LTRIM', KEYS[1], -ARGV[2], -1)
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
""")


@key("written:{message_id}:{role}")
def written(message_id: str, role: str) -> str:
    """String: a message, or the answer to it, is in its window. No id that a channel sends can meet it."""
    raise NotImplementedError


class Message(TypedDict):
    """One line of a conversation."""

    role: str
    text: str


def append_message(
    agent_id: str, user_id: str, role: str, text: str, *, message_id: str | None = None
) -> bool:
    """Add a message at the end; the oldest leaves when the window is full.

    With ``message_id`` the message is added once, however often it is delivered; says whether it was.
    """
    window = [keys.memory_short(agent_id, user_id)]
    once = [] if message_id is None else [written(message_id, role)]
    line = json.dumps(Message(role=role, text=text))
    limits: list[Any] = [settings.window_size, settings.window_ttl, settings.dedup_ttl]
    return bool(_APPEND(keys=window + once, args=[line, *limits], client=storage.client))


def get_recent_messages(agent_id: str, user_id: str, limit: int | None = None) -> list[Message]:
    """The last ``limit`` messages (by default the whole window), oldest first."""
    count = settings.window_size if limit is None else limit
    if count < 1:
        return []
    lines = storage.client.lrange(keys.memory_short(agent_id, user_id), -count, -1)
    return [json.loads(line) for line in lines]


def clear(agent_id: str, user_id: str) -> None:
    """Forget the window."""
    storage.client.delete(keys.memory_short(agent_id, user_id))
