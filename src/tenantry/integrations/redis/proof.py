"""The proof that a guard is in place: a connection, made as the client makes them, refuses a canary.

Several constructors of redis-py take a hook and drop it in silence, and a class may pack by itself. So
nothing is taken for granted: every way of sending is tried on a connection that is never opened.
"""

from __future__ import annotations

from typing import Any

from redis.connection import CacheProxyConnection

from tenantry.errors import NoTenantError, UnknownCommandError
from tenantry.integrations.redis.encoding import Encode
from tenantry.integrations.redis.packing import GuardedPacker, encoder_of

__all__ = ["prove"]

_CANARY = "TENANTRY.PROOF"


class _LetThroughError(Exception):
    """The canary reached the socket's side."""


def prove(maker: Any) -> Encode:
    """See that what ``maker`` makes is guarded, and return how it encodes text.

    Args:
        maker: A pool, or a node of an asyncio cluster.

    Raises:
        RuntimeError: Some way of sending goes around the guard.
    """
    connection = _fresh(maker)
    inner: Any = connection._conn if isinstance(connection, CacheProxyConnection) else connection
    for each in (connection, inner):
        each.send_packed_command = _let_through
        each.can_read = _nothing_to_read
    for each in (connection, inner):
        _prove_connection(each)
    packer = getattr(inner, "_command_packer", None)
    if isinstance(packer, GuardedPacker):
        return packer.encode
    return encoder_of(inner)


def _prove_connection(connection: Any) -> None:
    for send in (_send_command, _pack_command, _pack_commands):
        if not _is_refused(send, connection):
            raise RuntimeError(
                f"{type(connection).__name__}.{send.__name__.strip('_')} goes around the guard, so this client "
                "cannot be guarded and must not be used for tenants; guard one with redis-py's own connections"
            )


def _fresh(maker: Any) -> Any:
    """A connection that nobody keeps count of."""
    if hasattr(maker, "acquire_connection"):
        twin = type(maker)(maker.host, maker.port, connection_class=maker.connection_class, **_kwargs(maker))
        return twin.acquire_connection()
    twin = object.__new__(type(maker))
    twin.__dict__.update(maker.__dict__)
    uncounted = {"_created_connections": 0, "_connections": [], "_available_connections": []}
    twin.__dict__.update(uncounted, _in_use_connections=set())
    return twin.make_connection()


def _kwargs(node: Any) -> dict[str, Any]:
    return {name: value for name, value in node.connection_kwargs.items() if name not in ("host", "port")}


def _let_through(*_: Any, **__: Any) -> Any:
    raise _LetThroughError


def _nothing_to_read(*_: Any, **__: Any) -> bool:
    return False


def _send_command(connection: Any) -> Any:
    sent = connection.send_command(_CANARY)
    return sent.send(None) if hasattr(sent, "send") else sent


def _pack_command(connection: Any) -> Any:
    return connection.pack_command(_CANARY)


def _pack_commands(connection: Any) -> Any:
    return connection.pack_commands([(_CANARY,)])


def _is_refused(send: Any, connection: Any) -> bool:
    said: Exception | None = None
    try:
        send(connection)
    except Exception as error:  # noqa: BLE001 - whatever else happened, it was not the guard: fail closed
        said = error
    return isinstance(said, NoTenantError | UnknownCommandError)
