"""Pipelines that redis-py's module helpers make for themselves, past ``client.pipeline()``."""

from __future__ import annotations

from collections.abc import Iterator

import fakeredis
import pytest
import redis
import redis.asyncio
from redis.cluster import RedisCluster

from tenantry import CrossTenantError, tenant_scope
from tenantry.integrations.redis import guard
from tests import services

pytestmark = pytest.mark.filterwarnings(
    "ignore:Call to '__init__' function with deprecated:DeprecationWarning"
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisCluster]:
    """Three primaries, seen by an unguarded client."""
    with (
        services.redis_cluster(binary=services.valkey_binary()) as servers,
        RedisCluster(host="127.0.0.1", port=servers[0].port) as client,
    ):
        yield client


@pytest.mark.parametrize("module", ["json", "ts"])
def test_cluster_pipeline_of_a_module_writes_nothing_when_refused(cluster: RedisCluster, module: str) -> None:
    """It goes out node by node: one foreign command among many, and no node is written to."""
    cluster.flushall(target_nodes=RedisCluster.PRIMARIES)
    guarded = guard(RedisCluster(host="127.0.0.1", port=cluster.get_default_node().port))
    with guarded, tenant_scope("acme"):
        pipe = getattr(guarded, module)().pipeline()
        for number in range(30):
            pipe.execute_command("SET", f"acme:{number}", number)
        with pytest.raises(CrossTenantError, match="argument 1"):
            pipe.execute_command("SET", "globex:1", "x")
        assert list(cluster.scan_iter("*")) == []
        assert pipe.execute() == [True] * 30


@pytest.mark.parametrize("module", ["json", "ts", "ft"])
def test_pipeline_of_a_module_belongs_to_its_tenant(module: str) -> None:
    """As every pipeline: queued under one tenant, it is not executed under another."""
    guarded = guard(fakeredis.FakeRedis())
    with tenant_scope("acme"):
        pipe = getattr(guarded, module)().pipeline()
        pipe.execute_command("SET", "acme:1", "x")
    with tenant_scope("globex"), pytest.raises(CrossTenantError, match="another tenant"):
        pipe.execute()
    with tenant_scope("acme"):
        assert pipe.execute()


async def test_asyncio_pipeline_of_a_module_belongs_to_its_tenant() -> None:
    """The asyncio client's, too."""
    guarded = guard(redis.asyncio.Redis(port=1))
    with tenant_scope("acme"):
        pipe = guarded.ft().pipeline()
        pipe.execute_command("SET", "acme:1", "x")
        with pytest.raises(CrossTenantError, match="argument 1"):
            pipe.execute_command("SET", "globex:1", "x")
    with tenant_scope("globex"), pytest.raises(CrossTenantError, match="another tenant"):
        await pipe.execute()


def test_pfmerge_without_a_source_passes(valkey_url: str) -> None:
    """Legal: it makes an empty counter; with a foreign source it is refused."""
    guarded = guard(redis.Redis.from_url(valkey_url))
    with tenant_scope("acme"):
        assert guarded.pfmerge("acme:hll")
        with pytest.raises(CrossTenantError, match="argument 2"):
            guarded.pfmerge("acme:hll", "globex:hll")
        with pytest.raises(CrossTenantError, match="argument 1"):
            guarded.pfmerge("globex:hll")
    guarded.close()
