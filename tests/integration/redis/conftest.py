"""Every way to make a client of redis-py's, against real servers."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import fakeredis
import pytest
import redis
import redis.asyncio
from redis.cache import CacheConfig
from redis.cluster import LoadBalancingStrategy
from redis.connection import PythonRespSerializer

from tests import services


@dataclass(frozen=True)
class World:
    """The servers, and a plain client for each of them."""

    single: services.Server
    tls: services.TlsSetup
    cached: services.Server
    sentinel: services.SentinelSetup
    nodes: tuple[services.Server, ...]
    fakes: dict[str, Any] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return self.single.url

    @property
    def tls_url(self) -> str:
        return f"{self.tls.server.url}?ssl_ca_certs={self.tls.ca}"

    @property
    def unix_url(self) -> str:
        return f"unix://{self.tls.socket_path}"


@pytest.fixture(scope="package")
def world() -> Iterator[World]:
    """Start all servers once."""
    with (
        services.redis_server() as single,
        services.redis_tls() as tls,
        services.redis_server(binary=services.redis8_binary()) as cached,
        services.redis_sentinel() as sentinel,
        services.redis_cluster() as nodes,
    ):
        yield World(single, tls, cached, sentinel, nodes)


def _port(server: services.Server) -> dict[str, Any]:
    return {"host": "127.0.0.1", "port": server.port}


def _sentinel(kind: Any) -> Callable[[World], Any]:
    def make(world: World) -> Any:
        sentinel = kind([("127.0.0.1", world.sentinel.sentinel.port)])
        return sentinel.master_for(world.sentinel.service)

    return make


def _pool_kwargs(world: World) -> dict[str, Any]:
    return _port(world.single)


SYNC: dict[str, Callable[[World], Any]] = {
    "host": lambda w: redis.Redis(**_pool_kwargs(w)),
    "resp2": lambda w: redis.Redis(protocol=2, **_pool_kwargs(w)),
    "decoding": lambda w: redis.Redis(decode_responses=True, **_pool_kwargs(w)),
    "db": lambda w: redis.Redis(db=1, client_name="x", **_pool_kwargs(w)),
    "single connection": lambda w: redis.Redis(single_connection_client=True, **_pool_kwargs(w)),
    "health checks": lambda w: redis.Redis(health_check_interval=0.0001, **_pool_kwargs(w)),
    "python packer": lambda w: redis.Redis(
        connection_pool=redis.ConnectionPool(command_packer=None, **_pool_kwargs(w))
    ),
    "own packer": lambda w: redis.Redis(
        connection_pool=redis.ConnectionPool(
            command_packer=PythonRespSerializer(
                6000, redis.connection.Encoder("utf-8", "strict", False).encode
            ),
            **_pool_kwargs(w),
        )
    ),
    "url": lambda w: redis.Redis.from_url(w.url),
    "module url": lambda w: redis.from_url(w.url),
    "rediss url": lambda w: redis.Redis.from_url(w.tls_url),
    "tls": lambda w: redis.Redis(
        host="127.0.0.1",
        port=w.tls.server.port,
        ssl=True,
        ssl_ca_certs=str(w.tls.ca),
    ),
    "unix url": lambda w: redis.Redis.from_url(w.unix_url),
    "unix": lambda w: redis.Redis(unix_socket_path=str(w.tls.socket_path)),
    "pool": lambda w: redis.Redis(connection_pool=redis.ConnectionPool(**_pool_kwargs(w))),
    "pool url": lambda w: redis.Redis.from_pool(redis.ConnectionPool.from_url(w.url)),
    "blocking pool": lambda w: redis.Redis(connection_pool=redis.BlockingConnectionPool(**_pool_kwargs(w))),
    "blocking pool url": lambda w: redis.Redis.from_pool(redis.BlockingConnectionPool.from_url(w.tls_url)),
    "sentinel": _sentinel(redis.Sentinel),
    "caching": lambda w: redis.Redis(protocol=3, cache_config=CacheConfig(), **_port(w.cached)),
    "caching blocking": lambda w: redis.Redis.from_pool(
        redis.BlockingConnectionPool(protocol=3, cache_config=CacheConfig(), **_port(w.cached))
    ),
    "cluster": lambda w: redis.RedisCluster(**_port(w.nodes[0])),
    "cluster resp2": lambda w: redis.RedisCluster(protocol=2, **_port(w.nodes[0])),
    "cluster url": lambda w: redis.RedisCluster.from_url(f"redis://127.0.0.1:{w.nodes[1].port}"),
    "cluster nodes": lambda w: redis.RedisCluster(
        startup_nodes=[redis.cluster.ClusterNode("127.0.0.1", w.nodes[2].port)],
        load_balancing_strategy=LoadBalancingStrategy.ROUND_ROBIN,
    ),
    "fake": lambda w: fakeredis.FakeRedis(server=w.fakes.setdefault("sync", fakeredis.FakeServer())),
}
ASYNC: dict[str, Callable[[World], Any]] = {
    "async host": lambda w: redis.asyncio.Redis(**_pool_kwargs(w)),
    "async resp2": lambda w: redis.asyncio.Redis(protocol=2, **_pool_kwargs(w)),
    "async db": lambda w: redis.asyncio.Redis(db=1, client_name="x", **_pool_kwargs(w)),
    "async single": lambda w: redis.asyncio.Redis(single_connection_client=True, **_pool_kwargs(w)),
    "async url": lambda w: redis.asyncio.Redis.from_url(w.url),
    "async rediss url": lambda w: redis.asyncio.Redis.from_url(w.tls_url),
    "async unix url": lambda w: redis.asyncio.Redis.from_url(w.unix_url),
    "async pool": lambda w: redis.asyncio.Redis(
        connection_pool=redis.asyncio.ConnectionPool(**_pool_kwargs(w))
    ),
    "async blocking pool": lambda w: redis.asyncio.Redis.from_pool(
        redis.asyncio.BlockingConnectionPool(**_pool_kwargs(w))
    ),
    "async sentinel": _sentinel(redis.asyncio.Sentinel),
    "async cluster": lambda w: redis.asyncio.RedisCluster(**_port(w.nodes[0])),
    "async cluster url": lambda w: redis.asyncio.RedisCluster.from_url(
        f"redis://127.0.0.1:{w.nodes[1].port}"
    ),
    "async cluster nodes": lambda w: redis.asyncio.RedisCluster(
        startup_nodes=[redis.asyncio.cluster.ClusterNode("127.0.0.1", w.nodes[2].port)],
        load_balancing_strategy=LoadBalancingStrategy.ROUND_ROBIN,
    ),
    "async fake": lambda w: fakeredis.FakeAsyncRedis(
        server=w.fakes.setdefault("async", fakeredis.FakeServer())
    ),
}
PATHS = {**SYNC, **ASYNC}


async def settled(result: Any) -> Any:
    """The result of a sync or asyncio call."""
    return await result if inspect.isawaitable(result) else result


async def close(client: Any) -> None:
    """Close a client of either kind with everything that it holds."""
    await settled(client.aclose() if hasattr(client, "aclose") else client.close())
    pool = getattr(client, "connection_pool", None)
    if pool is not None:
        await settled(pool.disconnect())
    for sentinel in getattr(getattr(pool, "sentinel_manager", None), "sentinels", ()):
        await settled(sentinel.connection_pool.disconnect())
    manager = getattr(client, "nodes_manager", None)
    for node in [*manager.nodes_cache.values(), *manager.startup_nodes.values()] if manager else ():
        inner = getattr(node, "redis_connection", None)
        if inner is not None:
            inner.connection_pool.disconnect()
        elif hasattr(node, "disconnect"):
            await node.disconnect()


@pytest.fixture
async def made() -> AsyncIterator[list[Any]]:
    """Clients to close when the test is over."""
    clients: list[Any] = []
    yield clients
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for client in clients:
            await close(client)
