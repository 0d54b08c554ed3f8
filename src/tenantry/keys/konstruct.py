"""The seven keys of an agent platform, each declared when it is first used.

Until then its template is free for applications, so that ``session:{id}`` is nobody's by default.
"""

from __future__ import annotations

from types import FunctionType
from typing import TYPE_CHECKING, Any, Final

from tenantry.keys.functions import declare
from tenantry.keys.schema import REGISTRY, schema_of

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["NAMES", "declared"]


def rate_limit(channel: str) -> str:  # type: ignore[empty-body]
    """Hash: token bucket of one channel of the active tenant (message router)."""


def idempotency(message_id: str) -> str:  # type: ignore[empty-body]
    """String: a message that was handled. Channels redeliver; this is what tells a copy."""


def session(thread_id: str) -> str:  # type: ignore[empty-body]
    """Hash: conversation state of a thread."""


def engaged_thread(thread_id: str) -> str:  # type: ignore[empty-body]
    """String: the agent that is engaged in the thread, so that it needs no new mention."""


def memory_short(agent_id: str, user_id: str) -> str:  # type: ignore[empty-body]
    """List: sliding window of the last N messages, per tenant, agent and user."""


def escalation_status(thread_id: str) -> str:  # type: ignore[empty-body]
    """Hash: whether the thread was escalated, to a person or to another agent."""


def pending_tool_confirm(thread_id: str) -> str:  # type: ignore[empty-body]
    """Hash: the tool call that waits for the user's confirmation."""


_TEMPLATES: Final[dict[Callable[..., str], str]] = {
    rate_limit: "ratelimit:{channel}",
    idempotency: "dedup:{message_id}",
    session: "session:{thread_id}",
    engaged_thread: "engaged:{thread_id}",
    memory_short: "memory:short:{agent_id}:{user_id}",
    escalation_status: "escalation:{thread_id}",
    pending_tool_confirm: "tool_confirm:{thread_id}",
}
_SOURCES: Final[dict[str, FunctionType]] = {
    function.__name__: function for function in _TEMPLATES if isinstance(function, FunctionType)
}
NAMES: Final = frozenset(_SOURCES)

REGISTRY.add_fallbacks(
    schema_of(template, function, shared=False)
    for function, template in _TEMPLATES.items()
    if isinstance(function, FunctionType)
)


def declared(name: str) -> Any:
    """Declare the key function called ``name`` and return it.

    Raises:
        KeySchemaError: An application has declared a schema that could yield the same key.
    """
    function = _SOURCES[name]
    made = declare(_TEMPLATES[function], function, shared=False)
    made.__module__ = "tenantry.keys"  # where it is found, by pickle too
    return made
