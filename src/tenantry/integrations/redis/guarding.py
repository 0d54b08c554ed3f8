"""``guard``: makes a client refuse what is not the tenant's, and proves that it does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import redis
import redis.asyncio
import redis.asyncio.client
import redis.client
from redis.connection import CacheProxyConnection
from tenantry.errors import NoTenantError, UnknownCommandError
from tenantry.integrations.redis.clients import (
    AsyncPipelineSeat,
    AsyncPubSubSeat,
    ClientSeat,
    PipelineSeat,
    PubSubSeat,
)
from tenantry.integrations.redis.connections import seat_connection, seat_pool
from tenantry.integrations.redis.encoding import encoder
from tenantry.integrations.redis.packing import GuardedPacker
from tenantry.integrations.redis.rules import Declaration, declare
from tenantry.integrations.redis.seats import Policy, Seat, policy_of

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["guard"]

_Client = TypeVar("_Client")
_SEATS: tuple[tuple[type, type[Seat]], ...] = (
    (redis.client.Pipeline, PipelineSeat),
    (redis.asyncio.client.Pipeline, AsyncPipelineSeat),
    (redis.client.Redis, ClientSeat),
    (redis.asyncio.client.Redis, ClientSeat),
    (redis.client.PubSub, PubSubSeat),
    (redis.asyncio.client.PubSub, AsyncPubSubSeat),
)


def _adopt(target: Any, policy: Policy) -> Any:
    for kind, seat in _SEATS:
        if isinstance(target, kind):
            return policy.seat(target, seat)
    return target


def guard(client: _Client, *, commands: Mapping[str, Declaration] | None = None) -> _Client:
    """Make ``client`` refuse every key, channel and command that is not the active tenant's.

    Args:
        client: A client of redis-py's. It is changed in place, with its pool: what it makes later, and
            what it has made already, is guarded too. Needs no running server.
        commands: Where the keys of commands stand that the guard does not know: a name (any case;
            ``"NAME SUB"`` for a container) to the position of the first key, ``(first, last, step)``, or a
            function from the arguments (``bytes``, the command first) to positions. They count as in
            ``COMMAND INFO``; 0 means that it has no keys. For this client only.

    Returns:
        The same client. Guarding it again adds ``commands`` and changes nothing else.

    Raises:
        TypeError: ``client`` is no client of redis-py's, or ``commands`` is not of that form.
        ValueError: A name or position in ``commands`` cannot be one.
        RuntimeError: The guard cannot be put in place; the client must not be used.

    From then on every command raises ``NoTenantError`` with no tenant active, ``CrossTenantError`` for
    what is not the tenant's, ``UnknownCommandError`` for a command that nobody knows; always before a
    byte is written, and the connection stays usable. Thread-safe and task-safe as the client is.
    """
    rules = declare(commands)
    kind = type(client)
    if not issubclass(kind, redis.client.Redis | redis.asyncio.client.Redis):
        raise TypeError(f"guard takes a client of redis-py's, not {kind.__name__}")
    policy = _policy_for(client)
    policy.declare(rules)
    if policy_of(client) is None:
        _guard_single(client, policy)
    return client


def _policy_for(client: Any) -> Policy:
    found = policy_of(client) or policy_of(client.connection_pool)
    return found or Policy(_adopt)


def _guard_single(client: Any, policy: Policy) -> None:
    seat_pool(client.connection_pool, policy)
    if client.connection is not None:
        seat_connection(client.connection, policy)
    policy.adopt(client)
    policy.encode = _prove(client.connection_pool)


# --- proof ---------------------------------------------------------------------------------------

_CANARY = "TENANTRY.PROOF"


def _prove(pool: Any) -> Any:
    """Make a connection as the pool does and see every way of sending refused; return how it encodes."""
    connection: Any = _fresh(pool)
    connection.send_packed_command = _not_sent
    inner: Any = connection._conn if isinstance(connection, CacheProxyConnection) else connection
    inner.send_packed_command = _not_sent
    inner.can_read = _nothing_to_read
    for send in (_send_command, _pack_command, _pack_commands):
        if not _is_refused(send, connection):
            raise RuntimeError(
                f"{type(connection).__name__} does not pack what it sends with {send.__name__.strip('_')} "
                "where the guard sits, so this client cannot be guarded; do not use it for tenants"
            )
    packer = getattr(inner, "_command_packer", None)
    if isinstance(packer, GuardedPacker):
        return packer.encode
    return encoder(inner.encoder.encoding, inner.encoder.encoding_errors)


def _fresh(pool: Any) -> Any:
    """A connection that the pool would make, without its keeping count of it."""
    twin = object.__new__(type(pool))
    twin.__dict__.update(pool.__dict__)
    twin.__dict__.update(
        _created_connections=0, _connections=[], _available_connections=[], _in_use_connections=set()
    )
    return twin.make_connection()


def _not_sent(*_: Any, **__: Any) -> Any:
    raise RuntimeError("the guard let its own proof through")


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
    try:
        send(connection)
    except (NoTenantError, UnknownCommandError):
        return True
    except Exception:  # noqa: BLE001 - whatever else happened, it was not the guard
        return False
    return False
