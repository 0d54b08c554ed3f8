"""Who writes the replies: a small protocol, and an implementation that needs no network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from konstruct.memory_long import Memory
from konstruct.memory_short import Message

NEAR = 0.65


class ReplyGenerator(Protocol):
    """Anything that turns a window of messages and some memories into the next message."""

    def reply(self, window: Sequence[Message], memories: Sequence[Memory]) -> str:
        """Answer the last message of ``window``."""


class LocalReplies:
    """Deterministic: it quotes what it remembers, and so shows whose memory it has."""

    def reply(self, window: Sequence[Message], memories: Sequence[Memory]) -> str:
        """Answer the last message of ``window`` from the messages before it."""
        said = [message["text"] for message in window if message["role"] == "user"]
        asked = said[-1] if said else ""
        near = [m for m in memories if m.distance < NEAR and not asked.endswith(m.content)]
        if asked.rstrip().endswith("?") and near:
            return f"You once told me: “{near[0].content}”"
        if len(said) < 2:
            return "Hello! How can I help?"
        return f"Noted. Before that you told me: “{said[-2]}”"
