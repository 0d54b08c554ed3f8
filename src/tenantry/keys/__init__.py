"""Key functions: the only way to a Redis key, and none without a tenant.

``keys.memory_short(agent_id, user_id)`` returns ``acme:memory:short:<agent_id>:<user_id>`` for the active
tenant and raises if there is none. Declare your own with :func:`key`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tenantry.keys import konstruct
from tenantry.keys.functions import KeyFunction, key, shared_key
from tenantry.keys.layout import owner_of, tenant_prefix, use_layout
from tenantry.keys.schema import ParsedKey, is_shared_key, parse

if TYPE_CHECKING:

    @key("ratelimit:{channel}")
    def rate_limit(channel: str) -> str:
        """Hash: token bucket of one channel of the active tenant."""
        ...

    @key("dedup:{message_id}")
    def idempotency(message_id: str) -> str:
        """String: a message that was handled."""
        ...

    @key("session:{thread_id}")
    def session(thread_id: str) -> str:
        """Hash: conversation state of a thread."""
        ...

    @key("engaged:{thread_id}")
    def engaged_thread(thread_id: str) -> str:
        """String: the agent that is engaged in the thread."""
        ...

    @key("memory:short:{agent_id}:{user_id}")
    def memory_short(agent_id: str, user_id: str) -> str:
        """List: sliding window of the last N messages."""
        ...

    @key("escalation:{thread_id}")
    def escalation_status(thread_id: str) -> str:
        """Hash: whether the thread was escalated."""
        ...

    @key("tool_confirm:{thread_id}")
    def pending_tool_confirm(thread_id: str) -> str:
        """Hash: the tool call that waits for confirmation."""
        ...


__all__ = [
    "KeyFunction",
    "ParsedKey",
    "engaged_thread",
    "escalation_status",
    "idempotency",
    "is_shared_key",
    "key",
    "memory_short",
    "owner_of",
    "parse",
    "pending_tool_confirm",
    "rate_limit",
    "session",
    "shared_key",
    "tenant_prefix",
    "use_layout",
]


if not TYPE_CHECKING:  # else a type checker takes every name for one that exists

    def __getattr__(name: str) -> Any:
        if name not in konstruct.NAMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        function = globals()[name] = konstruct.declared(name)
        return function


def __dir__() -> list[str]:
    return sorted({*globals(), *konstruct.NAMES})
