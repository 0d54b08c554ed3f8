"""Short-term memory: a sliding window of the last messages of one agent and one user."""

from __future__ import annotations

import json
from typing import TypedDict

from konstruct.settings import settings
from konstruct.storage import client
from tenantry import keys


class Message(TypedDict):
    """One line of a conversation."""

    role: str
    text: str


def append_message(agent_id: str, user_id: str, role: str, text: str) -> None:
    """Add a message at the end; the oldest leaves when the window is full."""
    key = keys.memory_short(agent_id, user_id)
    with client.pipeline() as pipeline:
        pipeline.rpush(key, json.dumps(Message(role=role, text=text)))
        pipeline.ltrim(key, -settings.window_size, -1)
        pipeline.expire(key, settings.window_ttl)
        pipeline.execute()


def get_recent_messages(agent_id: str, user_id: str, limit: int | None = None) -> list[Message]:
    """The last ``limit`` messages (by default the whole window), oldest first."""
    count = settings.window_size if limit is None else limit
    if count < 1:
        return []
    return [json.loads(line) for line in client.lrange(keys.memory_short(agent_id, user_id), -count, -1)]
