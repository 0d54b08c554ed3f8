"""Who writes the replies: a small protocol, and an implementation that needs no network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from konstruct.memory_short import Message


class ReplyGenerator(Protocol):
    """Anything that turns a window of messages into the next one."""

    def reply(self, window: Sequence[Message]) -> str:
        """Answer the last message of ``window``."""


class LocalReplies:
    """Deterministic: it quotes what the user said before, and so shows what it remembers."""

    def reply(self, window: Sequence[Message]) -> str:
        """Answer the last message of ``window`` from the messages before it."""
        said = [message["text"] for message in window if message["role"] == "user"]
        if len(said) < 2:
            return "Hello! I have nothing from you on file yet. How can I help?"
        return f"Noted (message {len(said)}). Before that you told me: “{said[-2]}”"
