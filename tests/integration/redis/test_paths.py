"""Every construction path: guarded, or refused."""

from __future__ import annotations

import copy
import functools
from typing import Any

import pytest
import redis
import redis.asyncio
import redis.asyncio.cluster
import redis.asyncio.connection
import redis.cluster

from tenantry import NoTenantError, tenant_scope
from tenantry.errors import CrossTenantError, UnknownCommandError
from tenantry.integrations.redis import guard
from tests.integration.redis.conftest import ASYNC, PATHS, SYNC, World, settled

every_path = pytest.mark.parametrize("path", PATHS)


@every_path
async def test_client_is_guarded_however_it_was_made(world: World, made: list[Any], path: str) -> None:
    """Own keys work, foreign ones are refused and not written, nothing works without a tenant."""
    plain, client = PATHS[path](world), PATHS[path](world)
    made += [plain, client]
    await settled(plain.set("globex:1", "secret"))
    assert guard(client) is client
    assert guard(client) is client
    with pytest.raises(NoTenantError, match="GET"):
        await settled(client.get("acme:1"))
    with tenant_scope("acme"):
        assert await settled(client.set("acme:1", "a"))
        assert await settled(client.get("acme:1")) in (b"a", "a")
        with pytest.raises(CrossTenantError, match="SET"):
            await settled(client.set("globex:1", "b"))
        with pytest.raises(UnknownCommandError, match="NOPE"):
            await settled(client.execute_command("NOPE", "acme:1"))
        with pytest.raises(CrossTenantError, match="FLUSHALL"):
            await settled(client.flushall())
        assert guard(client, commands={"NOPE": 1}) is client
        with pytest.raises(CrossTenantError, match="NOPE, argument 1"):
            await settled(client.execute_command("NOPE", "globex:1"))
    assert await settled(client.ping())
    assert await settled(plain.get("globex:1")) in (b"secret", "secret")


@every_path
async def test_client_with_live_connections_is_guarded(world: World, made: list[Any], path: str) -> None:
    """Connections, pipelines, pub/subs and copies that were there before are guarded too."""
    client = PATHS[path](world)
    made.append(client)
    await settled(client.set("globex:1", "secret"))
    earlier, twin = client.pipeline(), copy.copy(client)
    pubsub = client.pubsub()
    guard(client)
    with tenant_scope("acme"):
        for each in (client, twin):
            assert await settled(each.set("acme:1", "a"))
            with pytest.raises(CrossTenantError, match="GET"):
                await settled(each.get("globex:1"))
        with pytest.raises(CrossTenantError, match="SUBSCRIBE"):
            await settled(pubsub.subscribe("globex:ch"))

        async def foreign() -> None:
            for n in range(20):
                earlier.set(f"acme:p{n}", 1)
            earlier.set("globex:1", "b")
            await settled(earlier.execute())

        with pytest.raises(CrossTenantError, match="SET"):
            await foreign()
        assert await settled(client.exists("acme:p1", "acme:p2", "acme:p3", "acme:p4")) == 0
    _forget(twin)


def _forget(twin: Any) -> None:
    """Let a copy go without closing what it shares."""
    if isinstance(twin, redis.asyncio.RedisCluster):
        twin._initialize = True
    elif isinstance(twin, redis.asyncio.Redis):
        twin.connection = None


# --- with a hook disabled, guard() raises ---------------------------------------------------------


def _goes_around(kind: type, name: str) -> Any:
    """A connection class whose method does not use redis-py's way of packing."""

    def around(self: Any, *args: Any, **kwargs: Any) -> Any:
        return [b""] if name != "send_command" else self.send_packed_command([b""])

    return type(kind.__name__, (kind,), {name: around})


def _break(monkeypatch: pytest.MonkeyPatch, client: Any, name: str) -> None:
    """Make what the client connects with go around the hook."""
    pools = _makers(client)
    for pool in pools:
        broken = _goes_around(pool.connection_class, name)
        monkeypatch.setattr(pool, "connection_class", broken)
    manager = getattr(client, "nodes_manager", None)
    if manager is not None and "connection_class" in manager.connection_kwargs:
        kind = manager.connection_kwargs["connection_class"]
        monkeypatch.setitem(manager.connection_kwargs, "connection_class", _goes_around(kind, name))


def _makers(client: Any) -> list[Any]:
    manager = getattr(client, "nodes_manager", None)
    if manager is None:
        return [client.connection_pool]
    nodes = [*manager.nodes_cache.values(), *manager.startup_nodes.values()]
    if isinstance(client, redis.asyncio.RedisCluster):
        return nodes
    return [node.redis_connection.connection_pool for node in nodes if node.redis_connection]


@pytest.mark.parametrize("path", SYNC)
@pytest.mark.parametrize("name", ["send_command", "pack_command", "pack_commands"])
async def test_guard_raises_when_a_sync_hook_is_disabled(
    world: World, made: list[Any], monkeypatch: pytest.MonkeyPatch, path: str, name: str
) -> None:
    """A connection that sends in a way of its own cannot be guarded, on any path."""
    client = SYNC[path](world)
    made.append(client)
    _break(monkeypatch, client, name)
    with pytest.raises(RuntimeError, match=f"{name} goes around the guard"):
        guard(client)


@pytest.mark.parametrize("path", ASYNC)
@pytest.mark.parametrize("name", ["send_command", "pack_commands"])
async def test_guard_raises_when_an_asyncio_hook_is_disabled(
    world: World, made: list[Any], monkeypatch: pytest.MonkeyPatch, path: str, name: str
) -> None:
    """The same for asyncio."""
    client = ASYNC[path](world)
    made.append(client)
    _break(monkeypatch, client, name)
    with pytest.raises(RuntimeError, match=f"{name} goes around the guard"):
        guard(client)


class OwnPool(redis.ConnectionPool):
    """Hands out connections that it makes by itself."""

    def get_connection(self, *args: Any, **kwargs: Any) -> Any:
        connection = redis.Connection(host="127.0.0.1", port=self.connection_kwargs["port"])
        connection.connect()
        return connection

    def release(self, connection: Any) -> None:
        connection.disconnect()


async def test_pool_with_a_way_of_its_own_is_guarded(world: World, made: list[Any]) -> None:
    """What it hands out is guarded, wherever it got it from."""
    client = guard(redis.Redis(connection_pool=OwnPool(host="127.0.0.1", port=world.single.port)))
    made.append(client)
    with tenant_scope("acme"):
        assert client.set("acme:1", 1)
        connection = client.connection_pool.get_connection()
        with pytest.raises(CrossTenantError, match="GET"):
            connection.send_command("GET", "globex:1")
        connection.disconnect()


class ForeignConnection:
    """No connection of redis-py's."""

    def __init__(self, **kwargs: Any) -> None:
        pass


def test_pool_of_foreign_connections_is_refused() -> None:
    """What cannot be hooked cannot be guarded."""
    pool = redis.ConnectionPool()
    pool.connection_class = ForeignConnection
    with pytest.raises(TypeError, match="no connection of redis-py's"):
        guard(redis.Redis(connection_pool=pool))


@pytest.mark.parametrize(
    "make",
    [
        redis.Redis,
        redis.asyncio.Redis,
        functools.partial(redis.asyncio.RedisCluster, host="127.0.0.1", port=1),
        functools.partial(redis.Redis.from_url, "rediss://127.0.0.1:1"),
        functools.partial(redis.Redis.from_url, "unix:///nowhere"),
        lambda: redis.Sentinel([("127.0.0.1", 1)]).master_for("primary"),
        lambda: redis.asyncio.Sentinel([("127.0.0.1", 1)]).master_for("primary"),
    ],
)
async def test_guard_needs_no_running_server(make: Any) -> None:
    """It neither connects nor waits, and what it then refuses needs no server either."""
    client = guard(make())
    with tenant_scope("acme"), pytest.raises(CrossTenantError, match="GET"):
        await settled(client.get("globex:1"))


async def test_nodes_that_a_cluster_finds_later_are_guarded(world: World, made: list[Any]) -> None:
    """A topology refresh makes new nodes, which are guarded like the first ones."""
    sync = guard(SYNC["cluster"](world))
    later = guard(ASYNC["async cluster"](world))
    made += [sync, later]
    await later.initialize()
    await later.nodes_manager.aclose()
    later.nodes_manager.nodes_cache.clear()
    await later.nodes_manager.initialize()
    found = redis.cluster.ClusterNode("127.0.0.1", world.nodes[1].port)
    sync.nodes_manager.create_redis_connections([found])
    made.append(found.redis_connection)
    with pytest.raises(NoTenantError, match="GET"):
        found.redis_connection.get("acme:1")
    connection = found.redis_connection.connection_pool.get_connection()
    with pytest.raises(NoTenantError, match="GET"):
        connection.send_command("GET", "acme:1")
    for node in later.get_nodes():
        with pytest.raises(NoTenantError, match="GET"):
            await node.execute_command("GET", "acme:1")
