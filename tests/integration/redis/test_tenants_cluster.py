"""The tenant operations and the ACL rules on clusters, and behind a sentinel."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import redis
from redis.cluster import ClusterNode, RedisCluster
from redis.sentinel import Sentinel
from typer.testing import CliRunner

from tenantry.cli import app
from tenantry.integrations.redis import acl_rules, guard, tenants
from tests import services


@pytest.fixture(scope="module", params=["redis", "valkey"])
def servers(request: pytest.FixtureRequest) -> Iterator[tuple[services.Server, ...]]:
    """Three primaries."""
    binary = services.redis_binary() if request.param == "redis" else services.valkey_binary()
    with services.redis_cluster(binary=binary) as found:
        yield found


@pytest.fixture
def cluster(servers: tuple[services.Server, ...]) -> Iterator[RedisCluster]:
    """An unguarded client of an empty cluster."""
    with RedisCluster(host="127.0.0.1", port=servers[0].port) as client:
        client.flushall(target_nodes=RedisCluster.PRIMARIES)
        yield client


def fill(cluster: RedisCluster, prefix: str = "acme:", count: int = 300) -> dict[bytes, bytes]:
    """Write keys of a tenant over all nodes, and others'; acme's dumps."""
    keys = [*(f"{prefix}session:{number}" for number in range(count)), f"{prefix}hash"]
    with cluster.pipeline() as pipe:
        for number in range(count):
            pipe.set(f"{prefix}session:{number}", f"state {number}")
        pipe.hset(f"{prefix}hash", "a", "1")
        for other in ("globex:1", "acme2:1", "{acme}2:1", "acme", "%shared:x"):
            pipe.set(other, "not acme's")
        pipe.execute()
    return dumps(cluster, [key.encode() for key in keys])


def dumps(cluster: RedisCluster, keys: Iterable[bytes]) -> dict[bytes, bytes]:
    """What the keys hold."""
    names = list(keys)
    with cluster.pipeline() as pipe:
        for key in names:
            pipe.dump(key)
        return dict(zip(names, pipe.execute(), strict=True))


def names(cluster: RedisCluster) -> set[bytes]:
    return set(cluster.scan_iter(count=1000))


@pytest.mark.parametrize("guarded", [False, True])
def test_tenants_span_all_primaries(cluster: RedisCluster, guarded: bool) -> None:
    """Plain keys are on every node: counted, copied, removed and written back, slot by slot."""
    own = fill(cluster)
    client = RedisCluster(host="127.0.0.1", port=cluster.get_default_node().port)
    if guarded:
        guard(client)
    with client:
        usage = tenants.usage(client, "acme")
        assert (usage.keys, usage.by_type) == (301, {"string": 300, "hash": 1})
        file = io.BytesIO()
        assert tenants.export(client, "acme", file).keys == 301
        report = tenants.purge(client, "acme")
        assert (report.keys, report.remaining) == (301, 0)
        assert names(cluster) == {b"globex:1", b"acme2:1", b"{acme}2:1", b"acme", b"%shared:x"}
        assert set(tenants.audit(client)) == {b"acme", b"{acme}2:1", b"%shared:x"}
        assert tenants.import_(client, io.BytesIO(file.getvalue())).keys == 301
    assert dumps(cluster, own) == own


def test_tenants_survive_a_client_with_a_stale_map(cluster: RedisCluster) -> None:
    """Writes follow the slots when the client's idea of the cluster is old."""
    own = fill(cluster, count=60)
    file = io.BytesIO()
    tenants.export(cluster, "acme", file)
    tenants.purge(cluster, "acme")
    slots = cluster.nodes_manager.slots_cache
    moved = dict(zip(slots, reversed(list(slots.values())), strict=True))
    cluster.nodes_manager.slots_cache.update(moved)
    assert tenants.import_(cluster, io.BytesIO(file.getvalue())).keys == 61
    assert dumps(cluster, own) == own


def test_purge_finishes_what_a_stale_map_left(cluster: RedisCluster) -> None:
    """A key that answers MOVED is not counted as removed; a later pass removes it."""
    fill(cluster, count=60)
    report = tenants.purge(cluster, "acme")
    assert (report.keys, report.remaining) == (61, 0)


def forget_a_node(cluster: RedisCluster) -> None:
    """Let a client know the cluster as it was before its last node joined."""
    manager = cluster.nodes_manager
    known = cluster.get_primaries()
    manager.nodes_cache.pop(known[-1].name)
    for slot, nodes in manager.slots_cache.items():
        if nodes[0] == known[-1]:
            manager.slots_cache[slot] = [known[0]]


def test_operations_see_the_node_that_the_client_has_not_heard_of(cluster: RedisCluster) -> None:
    """Nobody tells a client of a node that joined, until it asks for a key there."""
    own = fill(cluster, count=60)
    file = io.BytesIO()
    forget_a_node(cluster)
    assert tenants.usage(cluster, "acme").keys == 61
    forget_a_node(cluster)
    assert tenants.export(cluster, "acme", file).keys == 61
    forget_a_node(cluster)
    assert set(tenants.audit(cluster)) == {b"{acme}2:1", b"acme", b"%shared:x"}
    forget_a_node(cluster)
    report = tenants.purge(cluster, "acme")
    assert (report.keys, report.passes, report.remaining) == (61, 2, 0)
    assert not {key for key in names(cluster) if key.startswith(b"acme:")}
    forget_a_node(cluster)
    assert tenants.import_(cluster, io.BytesIO(file.getvalue())).keys == 61
    assert dumps(cluster, own) == own


def test_import_does_not_ask_the_node_that_is_no_more(cluster: RedisCluster) -> None:
    """After a failover the client still knows the old primary, which answers nobody."""
    own = fill(cluster, count=20)
    file = io.BytesIO()
    tenants.export(cluster, "acme", file)
    tenants.purge(cluster, "acme")
    gone = ClusterNode("127.0.0.1", services.free_port(), "primary")
    slots = cluster.nodes_manager.slots_cache
    slots.update({slot: [gone] for slot in slots})
    assert tenants.import_(cluster, io.BytesIO(file.getvalue())).keys == 21
    assert dumps(cluster, own) == own


def test_slot_on_its_way_is_no_ground_for_a_proof(
    cluster: RedisCluster, servers: tuple[services.Server, ...]
) -> None:
    """Its keys are on two nodes, and the map of slots names one."""
    fill(cluster, count=60)
    source, target = (redis.Redis(port=server.port) for server in servers[:2])
    names = [node.execute_command("CLUSTER MYID").decode() for node in (source, target)]
    source.execute_command("CLUSTER SETSLOT", 93, "MIGRATING", names[1])
    try:
        for run in (tenants.usage, tenants.purge, lambda *words: tenants.export(*words, io.BytesIO())):
            with pytest.raises(RuntimeError, match="slots of the cluster moved"):
                run(cluster, "acme")
        source.execute_command("CLUSTER SETSLOT", 93, "STABLE")
        target.execute_command("CLUSTER SETSLOT", 93, "IMPORTING", names[0])
        with pytest.raises(RuntimeError, match="slots of the cluster moved"):
            list(tenants.audit(cluster))
    finally:
        for node in (source, target):
            node.execute_command("CLUSTER SETSLOT", 93, "STABLE")
            node.close()
    assert tenants.purge(cluster, "acme").remaining == tenants.usage(cluster, "acme").keys == 0


def test_one_node_of_a_cluster_is_refused(
    cluster: RedisCluster, servers: tuple[services.Server, ...]
) -> None:
    """A plain client would see a third of the keys and call it all."""
    fill(cluster, count=10)
    with redis.Redis(port=servers[0].port) as client:
        for operation in (tenants.usage, tenants.purge):
            with pytest.raises(ValueError, match="RedisCluster"):
                operation(client, "acme")
        with pytest.raises(ValueError, match="RedisCluster"):
            tenants.export(client, "acme", io.BytesIO())
        with pytest.raises(ValueError, match="RedisCluster"):
            tenants.audit(client)
    assert b"acme:session:1" in names(cluster)


def test_only_node_of_a_cluster_is_purged_key_by_key() -> None:
    """A plain client may speak to it; plain keys are in many slots, which one UNLINK may not name."""
    with services.redis_cluster(nodes=1) as (server,), redis.Redis(port=server.port) as client:
        for number in range(20):
            client.set(f"acme:{number}", "x")
        assert tenants.purge(client, "acme").keys == 20
        assert client.dbsize() == 0


TAGGED = """
import io, json, sys
from redis.cluster import RedisCluster
from tenantry import keys
from tenantry.integrations.redis import acl_rules, service_acl_rules, tenants
keys.use_layout("tagged")

def forget(client):
    # Believe what was true before every slot moved.
    slots = client.nodes_manager.slots_cache
    slots.update(dict(zip(slots, reversed(list(slots.values())))))
    return client

with RedisCluster(host="127.0.0.1", port=int(sys.argv[1])) as client:
    file = io.BytesIO()
    counts = [
        tenants.usage(forget(client), "acme").keys,
        tenants.export(forget(client), "acme", file).keys,
        tenants.purge(forget(client), "acme").keys,
        tenants.import_(client, io.BytesIO(file.getvalue())).keys,
        tenants.import_(client, io.BytesIO(file.getvalue()), tenant_id="initech").keys,
        tenants.purge(client, "initech").remaining,
    ]
print(json.dumps({"counts": counts, "one": acl_rules("acme"), "fleet": service_acl_rules(), "file": file.getvalue().decode()}))
"""


def tagged(port: int) -> dict[str, Any]:
    """Run all operations in a process with the tagged layout; what they counted."""
    done = subprocess.run([sys.executable, "-c", TAGGED, str(port)], capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def scans(servers: tuple[services.Server, ...]) -> dict[int, int]:
    """How often each node was scanned."""
    found = {}
    for server in servers:
        with redis.Redis(port=server.port) as node:
            found[server.port] = node.info("commandstats").get("cmdstat_scan", {"calls": 0})["calls"]
            node.config_resetstat()
    return found


def test_tagged_tenant_is_asked_of_one_node(
    cluster: RedisCluster, servers: tuple[services.Server, ...]
) -> None:
    """With tagged keys the node that holds the tag is the only one that scans."""
    own = fill(cluster, "{acme}:")
    scans(servers)
    found = tagged(servers[0].port)
    calls = scans(servers)
    assert found["counts"] == [301, 301, 301, 301, 301, 0]
    holders = {cluster.get_node_from_key(tag).port for tag in ("{acme}:", "{initech}:")}
    assert {port for port, count in calls.items() if count} == holders
    assert dumps(cluster, own) == own
    assert names(cluster) == {*own, b"globex:1", b"acme2:1", b"{acme}2:1", b"acme", b"%shared:x"}
    tenants.import_(cluster, io.StringIO(found["file"]), tenant_id="plain")
    assert cluster.get("plain:session:7") == b"state 7"


def test_acl_users_have_to_be_made_on_every_node(
    cluster: RedisCluster, servers: tuple[services.Server, ...]
) -> None:
    """A user made on all nodes serves a cluster client; made on one, it is missing on the others."""
    words = ["ACL", "SETUSER", "acme", "reset", *acl_rules("acme"), "on", ">pw"]
    cluster.execute_command(*words, target_nodes=RedisCluster.ALL_NODES)
    for server in servers:
        with redis.Redis(port=server.port) as node:
            assert b"acme" in node.execute_command("ACL", "USERS") or "acme" in node.acl_users()
    nodes = [ClusterNode("127.0.0.1", server.port) for server in servers]
    with RedisCluster(startup_nodes=nodes, username="acme", password="pw") as client:
        for number in range(30):
            client.set(f"acme:{number}", number)
            assert client.get(f"acme:{number}") == b"%d" % number
            with pytest.raises(redis.exceptions.NoPermissionError, match="permissions"):
                client.get(f"globex:{number}")
        with client.pipeline() as pipe:
            for number in range(30):
                pipe.incr(f"acme:{number}")
            assert pipe.execute() == [number + 1 for number in range(30)]
        for words in (["CLUSTER GETKEYSINSLOT", 1, 1], ["CLUSTER COUNTKEYSINSLOT", 1]):
            with pytest.raises(redis.exceptions.NoPermissionError, match="permissions"):
                client.execute_command(*words, target_nodes=RedisCluster.ALL_NODES)


def test_tagged_acl_rules_on_a_cluster(cluster: RedisCluster) -> None:
    """Both lists in the tagged layout, made in a process of that layout."""
    rules = tagged(cluster.get_default_node().port)
    one, fleet = rules["one"], rules["fleet"]
    assert one[4:8] == ["~{acme}:*", "~%shared:*", "&{acme}:*", "&__keyspace@0__:{acme}:*"]
    node = cluster.get_redis_connection(cluster.get_node_from_key("{acme}:"))
    node.execute_command("ACL", "SETUSER", "one", "reset", *one, "on", ">pw")
    node.execute_command("ACL", "SETUSER", "fleet", "reset", *fleet, "on", ">pw")

    def allows(name: str, key: str) -> bool:
        return bool(node.execute_command("ACL", "DRYRUN", name, "GET", key) in (b"OK", True))

    assert [
        key
        for key in ("{acme}:1", "%shared:x", "acme:1", "{globex}:1", "{acme}", "{acme2}:1")
        if allows("one", key)
    ] == [
        "{acme}:1",
        "%shared:x",
    ]
    assert [
        key
        for key in ("{acme}:1", "{globex}:x", "%shared:x", "acme:1", "{}:1", "{-}:1", "x{acme}:1")
        if allows("fleet", key)
    ] == [
        "{acme}:1",
        "{globex}:x",
        "%shared:x",
    ]


def test_tenants_through_a_sentinel() -> None:
    """The primary that the sentinel names; a guarded client too, and the command line."""
    with services.redis_sentinel() as setup:
        sentinel = Sentinel([(setup.sentinel.host, setup.sentinel.port)])
        client = sentinel.master_for(setup.service)
        client.mset({"acme:1": "x", "acme:2": "x", "globex:1": "x"})
        assert tenants.usage(client, "acme").keys == 2
        assert tenants.purge(guard(client), "acme").keys == 2
        url = f"redis://{setup.sentinel.host}:{setup.sentinel.port}/0"
        words = ["tenants", "usage", "globex", "--json", "--sentinel", setup.service, "--url", url]
        result = CliRunner().invoke(app, words)
        assert json.loads(result.stdout)["keys"] == 1
