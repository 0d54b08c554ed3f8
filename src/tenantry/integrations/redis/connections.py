"""Guarded connections and the pools that make them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, cast

import redis.asyncio.connection
import redis.connection
from redis.connection import CacheProxyConnection

from tenantry.integrations.redis.encoding import Encode, encode_all, frozen, utf8
from tenantry.integrations.redis.packing import (
    GuardedPacker,
    Window,
    encoder_of,
    enforce,
    pack_hiredis,
    reauthenticates,
    this_task,
    this_thread,
)
from tenantry.integrations.redis.quick import OwnTenant, never
from tenantry.integrations.redis.seats import Policy, Seat, policy_of

__all__ = ["async_connection_seat", "seat_connection", "seat_pool"]


def _is_stock(kind: type, method: str) -> bool:
    """Whether a class has that method from redis-py itself."""
    function = getattr(kind, method, None)
    return str(getattr(function, "__module__", "")).partition(".")[0] == "redis"


# --- sync ----------------------------------------------------------------------------------------


class SyncConnectionSeat(Seat):
    """A connection that says when it talks for itself."""

    _command_packer: GuardedPacker

    def connect(self, *args: Any, **kwargs: Any) -> Any:
        # What redis-py finds out too, through its retries, each time a pool hands the connection out.
        return None if cast("Any", self)._sock else self._tenantry_base().connect(*args, **kwargs)

    def connect_check_health(self, *args: Any, **kwargs: Any) -> Any:
        if cast("Any", self)._sock is not None:
            return None
        window = self._command_packer.window
        before = window.open_for(this_thread())
        try:
            return self._tenantry_base().connect_check_health(*args, **kwargs)
        finally:
            window.leave(before)

    def register_connect_callback(self, callback: Any) -> Any:
        self._tenantry.adopt(getattr(callback, "__self__", None))
        return self._tenantry_base().register_connect_callback(callback)


class OwnConnectSeat(SyncConnectionSeat):
    """For a class with a ``connect`` of its own, which may talk before or behind redis-py's."""

    def connect(self, *args: Any, **kwargs: Any) -> Any:
        window = self._command_packer.window
        before = window.open_for(this_thread())
        try:
            return self._tenantry_base().connect(*args, **kwargs)
        finally:
            window.leave(before)


class CacheProxySeat(Seat):
    """Client-side caching answers a hit without packing anything: judged here."""

    def send_command(self, *args: Any, **kwargs: Any) -> Any:
        packer = cast("Any", self)._conn._command_packer
        if not packer.window.is_open_for(this_thread()):
            # Frozen: hits are found by comparison, and an argument could compare equal to another's key.
            args = frozen(args, packer.encode)
            enforce(encode_all(args, packer.encode), self._tenantry.declared)
        return self._tenantry_base().send_command(*args, **kwargs)

    def register_connect_callback(self, callback: Any) -> Any:
        self._tenantry.adopt(getattr(callback, "__self__", None))
        return self._tenantry_base().register_connect_callback(callback)


def _seat_sync(connection: Any, policy: Policy) -> Any:
    connection._command_packer = GuardedPacker(connection, policy.quick, policy.declared)
    own = not _is_stock(type(connection), "connect")
    return policy.seat(connection, OwnConnectSeat if own else SyncConnectionSeat)


# --- asyncio -------------------------------------------------------------------------------------


class AsyncConnectionSeat(Seat):
    """A connection that judges what it packs."""

    _tenantry_window: Window
    _tenantry_encode: Encode
    _tenantry_pack: Callable[..., Any]
    _tenantry_own_tenant: OwnTenant
    _tenantry_hiredis: Callable[[tuple[Any, ...]], bytes] | None
    _tenantry_reauths: bool

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._tenantry_base().__init__(*args, **kwargs)
        self._tenantry_begin()

    def _tenantry_begin(self) -> None:
        self._tenantry_window = Window()
        self._tenantry_encode = encoder_of(self)
        self._tenantry_own_tenant = (
            self._tenantry.quick.own_tenant if self._tenantry_encode is utf8 else never
        )
        self._tenantry_reauths = reauthenticates(self)
        # The same bytes in a fraction of the time, where the packing is redis-py's own.
        self._tenantry_hiredis = pack_hiredis if _is_stock(type(self), "_tenantry_pack") else None

    def pack_command(self, *args: Any) -> Any:
        if self._tenantry_own_tenant(args) is not None:
            if self._tenantry_hiredis is None:
                return self._tenantry_pack(*args)
            try:
                return [self._tenantry_hiredis(args)]
            except TypeError:
                pass  # a type that hiredis does not pack: the careful way
        if self._tenantry_window.is_open_for(this_task()) or (
            self._tenantry_reauths and args[:1] == ("AUTH",)
        ):
            return self._tenantry_pack(*args)
        argv = encode_all(args, self._tenantry_encode)
        enforce(argv, self._tenantry.declared)
        return self._tenantry_pack(*argv)

    async def connect(self) -> Any:
        if not cast("Any", self).is_connected:
            await self._tenantry_base().connect()

    def connect_check_health(self, *args: Any, **kwargs: Any) -> Any:
        inner = self._tenantry_base().connect_check_health(*args, **kwargs)
        return inner if cast("Any", self).is_connected else self._tenantry_connecting(inner)

    async def _tenantry_connecting(self, connecting: Any) -> Any:
        before = self._tenantry_window.open_for(this_task())
        try:
            return await connecting
        finally:
            self._tenantry_window.leave(before)

    def register_connect_callback(self, callback: Any) -> Any:
        self._tenantry.adopt(getattr(callback, "__self__", None))
        return self._tenantry_base().register_connect_callback(callback)


class AsyncOwnConnectSeat(AsyncConnectionSeat):
    """For a class with a ``connect`` of its own, which may talk before or behind redis-py's."""

    async def connect(self, *args: Any, **kwargs: Any) -> Any:
        return await self._tenantry_connecting(self._tenantry_base().connect(*args, **kwargs))


def async_connection_seat(kind: type) -> type[AsyncConnectionSeat]:
    """The seat for an asyncio connection class."""
    return AsyncConnectionSeat if _is_stock(kind, "connect") else AsyncOwnConnectSeat


def seat_connection(connection: Any, policy: Policy) -> Any:
    """Guard a connection in place, live or not.

    Raises:
        TypeError: It is no connection of redis-py's.
    """
    if policy_of(connection) is not None:
        return connection
    if isinstance(connection, CacheProxyConnection):
        seat_connection(connection._conn, policy)
        return policy.seat(connection, CacheProxySeat)
    if isinstance(connection, redis.connection.AbstractConnection):
        return _seat_sync(connection, policy)
    if isinstance(connection, redis.asyncio.connection.AbstractConnection):
        seated = policy.seat(connection, async_connection_seat(type(connection)))
        seated._tenantry_begin()
        return seated
    raise TypeError(f"{type(connection).__name__} is no connection of redis-py's, so it cannot be guarded")


# --- pools ---------------------------------------------------------------------------------------


class PoolSeat(Seat):
    """A pool, sync or asyncio, that makes guarded connections only."""

    def make_connection(self) -> Any:
        return seat_connection(self._tenantry_base().make_connection(), self._tenantry)


class OwnSyncPoolSeat(PoolSeat):
    """For a pool that hands out connections in its own way."""

    def get_connection(self, *args: Any, **kwargs: Any) -> Any:
        return seat_connection(self._tenantry_base().get_connection(*args, **kwargs), self._tenantry)


class OwnAsyncPoolSeat(PoolSeat):
    """The same for asyncio."""

    async def get_connection(self, *args: Any, **kwargs: Any) -> Any:
        return seat_connection(await self._tenantry_base().get_connection(*args, **kwargs), self._tenantry)


def seat_pool(pool: Any, policy: Policy) -> Any:
    """Guard a pool in place, with the connections that it has made already."""
    if policy_of(pool) is None:
        is_sync = isinstance(pool, redis.connection.ConnectionPool)
        own: type[PoolSeat] = OwnSyncPoolSeat if is_sync else OwnAsyncPoolSeat
        policy.seat(pool, PoolSeat if _is_stock(type(pool), "get_connection") else own)
    for connection in _made_by(pool):
        seat_connection(connection, policy)
    return pool


def _made_by(pool: Any) -> list[Any]:
    lock: Any = getattr(pool, "_lock", None)
    with lock if hasattr(lock, "__enter__") else threading.RLock():
        made = [
            connection
            for name in ("_available_connections", "_in_use_connections", "_connections")
            for connection in getattr(pool, name, ())
        ]
    return [connection for connection in made if connection is not None]
