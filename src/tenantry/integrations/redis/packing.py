"""The lower layer: what a connection packs is judged first.

Everything that redis-py sends passes its connection's packer; only raw bytes written to a socket do
not. A sync connection holds a packer object (``send_command`` does not call ``pack_command``), an
asyncio one packs by itself.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, Final, Protocol

from tenantry.context import current_tenant_or_none, require_tenant
from tenantry.integrations.redis.encoding import Encode, encode_all
from tenantry.integrations.redis.verdict import refuse, verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tenantry.integrations.redis.rules import Argv, Rule

__all__ = ["GuardedPacker", "Window", "enforce", "is_connecting", "this_task", "this_thread"]


class Packer(Protocol):
    """What redis-py asks of a packer."""

    def pack(self, *args: Any) -> list[bytes]: ...


def enforce(argv: Argv, declared: Mapping[str, Rule]) -> None:
    """Judge for the active tenant and raise what the verdict says.

    Raises:
        NoTenantError: None is active and the command needs one.
        CrossTenantError: It would touch what is not the tenant's.
        UnknownCommandError: Nobody knows where its keys stand.
    """
    tenant = current_tenant_or_none()
    refusal = verdict(argv, tenant, declared)
    if refusal is not None:
        refuse(refusal, tenant or require_tenant(refusal.command))


def this_thread() -> object:
    """Who runs now, for sync connections (a greenlet too, where gevent has patched)."""
    return threading.get_ident()


def this_task() -> object:
    """Who runs now, for asyncio connections."""
    try:
        return asyncio.current_task() or this_thread()
    except RuntimeError:  # no running loop
        return this_thread()


class Window:
    """The time between ``connect()`` and the end of its callbacks, in which the client talks for itself.

    It is open for the thread or task that connects, and for nobody else who holds the connection.
    """

    __slots__ = ("_holder",)

    def __init__(self) -> None:
        self._holder: object = None

    def open_for(self, holder: object) -> object:
        """Open it; the return value goes to ``leave``."""
        before, self._holder = self._holder, holder
        return before

    def leave(self, before: object) -> None:
        """Restore what ``open_for`` found: connecting nests."""
        self._holder = before

    def is_open_for(self, holder: object) -> bool:
        """Whether that thread or task is connecting."""
        return self._holder is not None and self._holder == holder

    @property
    def is_closed(self) -> bool:
        """Whether nobody is connecting."""
        return self._holder is None


def is_connecting(connection: Any) -> bool:
    """Whether this thread or task is inside the ``connect()`` of a guarded connection."""
    packer = getattr(connection, "_command_packer", None)
    if isinstance(packer, GuardedPacker):
        return packer.window.is_open_for(this_thread())
    window = getattr(connection, "_tenantry_window", None)
    return isinstance(window, Window) and window.is_open_for(this_task())


class GuardedPacker:
    """Stands in the place of a sync connection's packer."""

    __slots__ = ("_declared", "encode", "inner", "window")

    def __init__(self, inner: Packer, encode: Encode, declared: Mapping[str, Rule]) -> None:
        self.inner: Final = inner
        self.window: Final = Window()
        self.encode: Final = encode
        self._declared: Final = declared

    def pack(self, *args: Any) -> list[bytes]:
        """Judge a command and pack it."""
        if not self.window.is_closed and self.window.is_open_for(this_thread()):
            return self.inner.pack(*args)
        argv = encode_all(args, self.encode)
        enforce(argv, self._declared)
        return self.inner.pack(*argv)
