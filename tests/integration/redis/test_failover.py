"""A sentinel makes another server the primary while guarded clients of its service work."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
import redis.asyncio
from redis.sentinel import Sentinel

from tenantry import tenant_scope
from tenantry.errors import CrossTenantError, NoTenantError
from tenantry.integrations.redis import guard, tenants
from tests import services

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def setup() -> Iterator[tuple[services.SentinelSetup, redis.Redis]]:
    """A sentinel, and a client of the replica beside its primary."""
    with services.redis_sentinel() as found, services.redis_server() as second:
        with redis.Redis(port=second.port) as replica, redis.Redis(port=found.sentinel.port) as sentinel:
            replica.replicaof("127.0.0.1", found.primary.port)
            services.wait_until(lambda: replica.info("replication")["master_link_status"] == "up", "the link")
            with redis.Redis(port=found.primary.port) as primary:
                primary.mset({"acme:1": "a", "globex:1": "secret"})
            services.wait_until(lambda: replica.dbsize() == 2, "the replica to have it all")
            services.wait_until(
                lambda: _has_replica(sentinel, found.service), "the sentinel to see it", seconds=60
            )
            yield found, replica


def _has_replica(sentinel: redis.Redis, service: str) -> bool:
    """Not before the replica itself has told the sentinel of its state: else it is not fit to be the primary."""
    return any(
        "slave" in each["flags"] and int(each["info-refresh"]) for each in sentinel.sentinel_slaves(service)
    )


def fail_over(setup: services.SentinelSetup, replica: redis.Redis) -> None:
    """Make the replica the primary, and end the old one."""
    with redis.Redis(port=setup.sentinel.port) as sentinel:
        sentinel.execute_command("SENTINEL", "FAILOVER", setup.service)
        services.wait_until(
            lambda: replica.role()[0] == b"master", "the replica to be the primary", seconds=60
        )
        port = replica.connection_pool.connection_kwargs["port"]
        services.wait_until(
            lambda: sentinel.sentinel_master(setup.service)["port"] == port,
            "the sentinel to be done with it",
            seconds=60,
        )
    services.stop(setup.primary.process)


LOST = (redis.ConnectionError, redis.ReadOnlyError)


def again(call: Callable[[], Any]) -> Any:
    """What a client does that has lost its connection, some more times."""
    for _ in range(20):
        with contextlib.suppress(*LOST):
            return call()
    return call()


def test_guard_and_operations_follow_the_primary(setup: Any) -> None:
    """The connections to it are new, and guarded."""
    found, replica = setup
    client = guard(Sentinel([("127.0.0.1", found.sentinel.port)]).master_for(found.service))
    pubsub = client.pubsub(ignore_subscribe_messages=True)
    with tenant_scope("acme"):
        assert client.get("acme:1") == b"a"
        pubsub.subscribe("acme:news")
        assert pubsub.get_message(timeout=5) is None
    fail_over(found, replica)
    with tenant_scope("acme"):
        again(lambda: client.set("acme:1", "b"))
        with pytest.raises(CrossTenantError):
            client.get("globex:1")
    assert replica.get("acme:1") == b"b"
    with pytest.raises(NoTenantError):
        client.get("acme:1")
    connection = client.connection_pool.get_connection()
    with tenant_scope("globex"), pytest.raises(CrossTenantError):
        connection.send_command("GET", "acme:1")
    client.connection_pool.release(connection)
    again(lambda: pubsub.get_message(timeout=1))
    services.wait_until(lambda: replica.publish("acme:news", "x") == 1, "the subscription on the new primary")
    assert pubsub.get_message(timeout=5)["data"] == b"x"
    with tenant_scope("globex"), pytest.raises(CrossTenantError, match="pub/sub belongs to another tenant"):
        pubsub.get_message()
    assert tenants.purge(client, "acme").remaining == 0
    assert replica.keys() == [b"globex:1"]
    pubsub.close()
    client.close()


async def test_asyncio_guard_follows_the_primary(setup: Any) -> None:
    """The same for asyncio."""
    found, replica = setup
    sentinel = redis.asyncio.Sentinel([("127.0.0.1", found.sentinel.port)])
    client = guard(sentinel.master_for(found.service))
    with tenant_scope("acme"):
        assert await client.get("acme:1") == b"a"
    fail_over(found, replica)
    with tenant_scope("acme"):
        for _ in range(20):
            with contextlib.suppress(*LOST):
                await client.set("acme:1", "b")
                break
        with pytest.raises(CrossTenantError):
            await client.get("globex:1")
        async with client.pipeline() as pipe:
            pipe.get("acme:1")
            with pytest.raises(CrossTenantError):
                pipe.get("globex:1")
            assert await pipe.execute() == [b"b"]
    with pytest.raises(NoTenantError):
        await client.get("acme:1")
    connection = await client.connection_pool.get_connection()
    with tenant_scope("globex"), pytest.raises(CrossTenantError):
        await connection.send_command("GET", "acme:1")
    await client.connection_pool.release(connection)
    for each in (client, *sentinel.sentinels):
        await each.aclose()
