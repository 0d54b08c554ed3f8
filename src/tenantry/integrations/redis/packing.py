"""The lower layer: what a connection packs is judged first.

Everything that redis-py sends passes its connection's packer; only raw bytes written to a socket do
not. A sync connection holds a packer object (``send_command`` does not call ``pack_command``), an
asyncio one packs by itself.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, TypeAlias

import redis.connection
from redis.credentials import StreamingCredentialProvider
from redis.utils import HIREDIS_AVAILABLE

from tenantry.context import current_tenant_or_none, get_state, require_tenant
from tenantry.integrations.redis.encoding import Encode, encode_all, encoder, utf8
from tenantry.integrations.redis.quick import Quick
from tenantry.integrations.redis.rules import Argv, Rule
from tenantry.integrations.redis.verdict import refuse, verdict
from tenantry.keys import tenant_prefix

__all__ = [
    "GuardedPacker",
    "Window",
    "encoder_of",
    "enforce",
    "is_connecting",
    "pack_hiredis",
    "reauthenticates",
    "this_task",
    "this_thread",
]

_HIREDIS_PACKER: type | None = None
pack_hiredis: Callable[[tuple[Any, ...]], bytes] | None = None
if HIREDIS_AVAILABLE:
    import hiredis

    _HIREDIS_PACKER = redis.connection.HiredisRespSerializer
    pack_hiredis = hiredis.pack_command


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
    refusal = verdict(argv, current_tenant_or_none(), declared)
    if refusal is not None:
        refuse(refusal, require_tenant(refusal.command))


def this_thread() -> object:
    """Who runs now, for sync connections (a greenlet too, where gevent has patched)."""
    return threading.get_ident()


def this_task() -> object:
    """Who runs now, for asyncio connections."""
    try:
        return asyncio.current_task() or this_thread()
    except RuntimeError:  # no running loop
        return this_thread()


_NOBODY: Final = object()


class Window:
    """The time between ``connect()`` and the end of its callbacks, in which the client talks for itself.

    It is open for the thread or task that connects (``holder``), and for nobody else who holds the
    connection.
    """

    __slots__ = ("holder",)

    def __init__(self) -> None:
        self.holder: object = _NOBODY

    def open_for(self, holder: object) -> object:
        """Open it; the return value goes to ``leave``."""
        before, self.holder = self.holder, holder
        return before

    def leave(self, before: object) -> None:
        """Restore what ``open_for`` found: connecting nests."""
        self.holder = before

    def is_open_for(self, holder: object) -> bool:
        """Whether that thread or task is connecting."""
        return self.holder == holder


class GuardedPacker:
    """Stands in the place of a sync connection's packer; ``pack`` judges and packs a command.

    Args:
        connection: The connection whose packer it replaces.
        quick: What needs no encoding to be passed.
        declared: The rules of the option ``commands=``.
    """

    __slots__ = ("encode", "inner", "pack", "window")

    def __init__(self, connection: Any, quick: Quick, declared: Mapping[str, Rule]) -> None:
        inner: Packer = connection._command_packer
        is_hiredis = type(inner) is _HIREDIS_PACKER
        self.inner: Final = inner
        self.encode: Final = utf8 if is_hiredis else encoder_of(connection)
        self.window: Final = Window()
        hiredis_pack = pack_hiredis if is_hiredis else None
        careful = _careful_pack(
            self, declared, reauths=reauthenticates(connection), hiredis_pack=hiredis_pack
        )
        self.pack: Final = _choose(inner, hiredis_pack, quick, careful, self.encode)


def encoder_of(connection: Any) -> Encode:
    """How a connection's own encoder encodes text."""
    return encoder(connection.encoder.encoding, connection.encoder.encoding_errors)


def reauthenticates(connection: Any) -> bool:
    """Whether the client sends AUTH by itself, from a thread or task of its own, when a token is renewed."""
    return isinstance(connection.credential_provider, StreamingCredentialProvider)


Pack: TypeAlias = Callable[..., Any]


def _choose(inner: Packer, hiredis_pack: Any, quick: Quick, careful: Pack, encode: Encode) -> Pack:
    if hiredis_pack is not None:
        return _hiredis_pack(hiredis_pack, quick, careful)
    return _quick_pack(inner.pack, quick, careful) if encode is utf8 else careful


def _careful_pack(
    packer: GuardedPacker, declared: Mapping[str, Rule], *, reauths: bool, hiredis_pack: Any
) -> Pack:
    """Encode everything, judge the bytes, and pack those very bytes."""
    window, encode, pack_inner = packer.window, packer.encode, packer.inner.pack
    pack_bytes = pack_inner if hiredis_pack is None else lambda *argv: [hiredis_pack(argv)]

    def pack(*args: Any) -> Any:
        if window.is_open_for(this_thread()) or (reauths and args[:1] == ("AUTH",)):
            return pack_inner(*args)
        argv = encode_all(args, encode)
        enforce(argv, declared)
        return pack_bytes(*argv)

    return pack


def _quick_pack(pack_inner: Pack, quick: Quick, careful: Pack) -> Pack:
    """One key in plain text, the case that has to be quick, is judged here without a further call."""
    own_tenant, only = quick.own_tenant, quick.only

    def pack(*args: Any) -> Any:
        at = only.get(args[0]) if args and type(args[0]) is str else None
        if at is None or at >= len(args) or type(key := args[at]) is not str:
            own = own_tenant(args) is not None
        else:
            tenant = get_state().tenant_id
            own = tenant is not None and key.startswith(tenant_prefix(tenant))
        return pack_inner(*args) if own else careful(*args)

    return pack


def _hiredis_pack(pack_command: Callable[[tuple[Any, ...]], bytes], quick: Quick, careful: Pack) -> Pack:
    """Pack with hiredis itself: redis-py's own splitting and generator cost more than the judging.

    It packs the underlying value of a ``str`` or ``bytes`` subclass and raises ``TypeError`` for every
    type that redis-py's packer would have to convert first; those take the careful way.
    """
    own_tenant = quick.own_tenant

    def pack(*args: Any) -> Any:
        if own_tenant(args) is not None:
            try:
                return [pack_command(args)]
            except TypeError:
                pass
        return careful(*args)

    return pack


def is_connecting(connection: Any) -> bool:
    """Whether this thread or task is inside the ``connect()`` of a guarded connection."""
    packer = getattr(connection, "_command_packer", None)
    if isinstance(packer, GuardedPacker):
        return packer.window.is_open_for(this_thread())
    window = getattr(connection, "_tenantry_window", None)
    return isinstance(window, Window) and window.is_open_for(this_task())
