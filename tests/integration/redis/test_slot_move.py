"""A slot moves from one node to another while guarded cluster clients work on it."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
import redis.asyncio
from redis.crc import key_slot

from tenantry import tenant_scope
from tenantry.errors import CrossTenantError
from tenantry.integrations.redis import guard
from tests import services

pytestmark = pytest.mark.timeout(120)

TENANTS = ("acme", "globex")
TAG = "{cart}"  # one slot for both tenants
KEYS = 20


class Mover:
    """Moves the slot of ``TAG``, as ``redis-cli --cluster reshard`` does, and stops on the way."""

    def __init__(self, servers: tuple[services.Server, ...]) -> None:
        self.slot = key_slot(TAG[1:-1].encode())
        self.nodes = [redis.Redis(port=server.port) for server in servers]
        self.ids = [node.execute_command("CLUSTER MYID").decode() for node in self.nodes]
        owner = self.slot // (16384 // len(servers))
        self.source, self.target = owner, (owner + 1) % len(servers)

    @property
    def target_node(self) -> redis.Redis:
        return self.nodes[self.target]

    def begin(self) -> None:
        """From here on a key that the source does not have is asked of the target."""
        self._setslot(self.target, "IMPORTING", self.source)
        self._setslot(self.source, "MIGRATING", self.target)

    def carry_keys(self) -> None:
        """Take all keys over; the slot still belongs to the source, which answers ASK."""
        source, target = self.nodes[self.source], self.target_node.connection_pool.connection_kwargs
        while keys := source.execute_command("CLUSTER GETKEYSINSLOT", self.slot, 5):
            source.migrate("127.0.0.1", target["port"], keys, 0, 5000)

    def finish(self) -> None:
        """The target owns the slot; the source answers MOVED."""
        for node in (self.target, self.source, *range(len(self.nodes))):
            self._setslot(node, "NODE", self.target)

    def _setslot(self, node: int, what: str, other: int) -> None:
        self.nodes[node].execute_command("CLUSTER SETSLOT", self.slot, what, self.ids[other])

    def asked(self) -> int:
        """How often clients have sent ASKING to the target."""
        stats = self.target_node.info("commandstats")
        return int(stats.get("cmdstat_asking", {"calls": 0})["calls"])

    def close(self) -> None:
        for node in self.nodes:
            node.close()


@pytest.fixture
def mover() -> Iterator[Mover]:
    """A cluster of its own, with the slot still at its first node."""
    with services.redis_cluster() as servers:
        moving = Mover(servers)
        yield moving
        moving.close()


def port(mover: Mover) -> int:
    return int(mover.nodes[0].connection_pool.connection_kwargs["port"])


class Ledger:
    """What every tenant was told, beside what it should have been told."""

    def __init__(self) -> None:
        self.added: Counter[str] = Counter()
        self.rounds: Counter[str] = Counter()
        self.wrong: list[Any] = []
        self.over = False

    def names(self, tenant: str, number: int) -> tuple[str, str]:
        return f"{tenant}:{TAG}:{number % KEYS}", f"{tenant}:{TAG}:pair:{number % KEYS}"

    def note(self, tenant: str, name: str, count: object, held: object) -> None:
        self.added[name] += 1
        self.rounds[tenant] += 1
        if count != self.added[name] or held != [str(count).encode(), tenant.encode()]:
            self.wrong.append((tenant, name, count, held))

    def proceed(self) -> None:
        """Wait until every tenant has worked on all its keys in the state that the slot is in now."""
        wanted = {tenant: self.rounds[tenant] + 2 * KEYS for tenant in TENANTS}
        services.wait_until(
            lambda: bool(self.wrong) or all(self.rounds[t] >= n for t, n in wanted.items()), "both tenants"
        )


def work(client: Any, tenant: str, ledger: Ledger) -> None:
    """Count up and read back, and try the other tenant's keys in between."""
    other = TENANTS[TENANTS[0] == tenant]
    with tenant_scope(tenant):
        number = 0
        while not ledger.over:
            name, pair = ledger.names(tenant, number)
            client.set(pair, tenant)
            ledger.note(tenant, name, client.incr(name), [client.get(name), client.get(pair)])
            if number % 5 == 0:
                with pytest.raises(CrossTenantError, match="refused"):
                    client.get(ledger.names(other, number)[0])
            number += 1


async def work_async(client: Any, tenant: str, ledger: Ledger, turn: asyncio.Lock) -> None:
    """The same as a task; the other tenant's goes between any two commands, but never during one.

    redis-py's asyncio client closes all its connections to read the slots anew, whoever writes on them.
    """
    other = TENANTS[TENANTS[0] == tenant]

    async def turned(command: Any, *args: str) -> Any:
        async with turn:
            return await command(*args)

    with tenant_scope(tenant):
        number = 0
        while not ledger.over:
            name, pair = ledger.names(tenant, number)
            await turned(client.set, pair, tenant)
            count = await turned(client.incr, name)
            ledger.note(tenant, name, count, [await turned(client.get, key) for key in (name, pair)])
            if number % 5 == 0:
                with pytest.raises(CrossTenantError, match="refused"):
                    await client.get(ledger.names(other, number)[0])
            number += 1


def move(mover: Mover, ledger: Ledger) -> None:
    """Move the slot step by step, both tenants at work in every state."""
    try:
        for step in (mover.begin, mover.carry_keys, mover.finish):
            ledger.proceed()
            step()
        ledger.proceed()
    finally:
        ledger.over = True


@contextmanager
def noting(ledger: Ledger) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        ledger.wrong.append(error)
        raise


def check(mover: Mover, ledger: Ledger) -> None:
    """Nothing was lost, doubled or read across, the redirections were seen, and the target has it all."""
    assert not ledger.wrong
    assert mover.asked() > 2 * KEYS
    held = {name: int(mover.target_node.get(name) or 0) for name in ledger.added}
    assert held == dict(ledger.added)
    assert mover.target_node.dbsize() == 4 * KEYS
    assert sum(node.dbsize() for node in mover.nodes) == 4 * KEYS


def test_threads_of_two_tenants_work_while_their_slot_moves(mover: Mover) -> None:
    """ASK, with ASKING before the command itself, and MOVED: on one client, one thread a tenant."""
    ledger = Ledger()
    client = guard(redis.RedisCluster(host="127.0.0.1", port=port(mover)))

    def run(tenant: str) -> None:
        with noting(ledger):
            work(client, tenant, ledger)

    threads = [threading.Thread(target=run, args=(tenant,)) for tenant in TENANTS]
    for thread in threads:
        thread.start()
    try:
        move(mover, ledger)
    finally:
        for thread in threads:
            thread.join()
        client.close()
    check(mover, ledger)


async def test_tasks_of_two_tenants_work_while_their_slot_moves(mover: Mover, made: list[Any]) -> None:
    """The same from two tasks on one asyncio client."""
    ledger, turn = Ledger(), asyncio.Lock()
    client = guard(redis.asyncio.RedisCluster(host="127.0.0.1", port=port(mover)))
    made.append(client)

    async def run(tenant: str) -> None:
        with noting(ledger):
            await work_async(client, tenant, ledger, turn)

    tasks = [asyncio.create_task(run(tenant)) for tenant in TENANTS]
    try:
        await asyncio.to_thread(move, mover, ledger)
    finally:
        await asyncio.gather(*tasks, return_exceptions=True)
    check(mover, ledger)


def test_pipeline_follows_its_slot(mover: Mover) -> None:
    """A pipeline that meets MOVED is sent again for its own tenant, and one of the other writes nothing."""
    with guard(redis.RedisCluster(host="127.0.0.1", port=port(mover))) as client:
        for step in (mover.begin, mover.carry_keys, mover.finish):
            with tenant_scope("acme"), client.pipeline() as pipe:
                for number in range(KEYS):
                    pipe.incr(f"acme:{TAG}:{number}")
                before = pipe.execute()
                with pytest.raises(CrossTenantError, match="refused"):
                    pipe.incr(f"globex:{TAG}:1")
            step()
        with tenant_scope("acme"), client.pipeline() as pipe:
            for number in range(KEYS):
                pipe.incr(f"acme:{TAG}:{number}")
            assert pipe.execute() == [count + 1 for count in before]
    assert mover.target_node.dbsize() == KEYS


CHANNEL = f"acme:{TAG}:news"


def test_sharded_subscription_follows_its_slot(mover: Mover) -> None:
    """Another tenant's command learns that the slot has moved; the subscription stays its own tenant's."""
    with guard(redis.RedisCluster(host="127.0.0.1", port=port(mover))) as client:
        pubsub = client.pubsub()
        with tenant_scope("acme"):
            pubsub.ssubscribe(CHANNEL)
        mover.begin()
        mover.finish()
        with tenant_scope("globex"):
            client.get(f"globex:{TAG}:1")  # MOVED

        def heard() -> bool:
            with tenant_scope("acme"):
                client.spublish(CHANNEL, "hello")
            found = pubsub.get_sharded_message(timeout=0.05)
            return bool(found and found["type"] == "smessage" and found["data"] == b"hello")

        services.wait_until(heard, "the subscription to follow")
        with tenant_scope("globex"), pytest.raises(CrossTenantError, match="pub/sub"):
            pubsub.get_sharded_message()
        pubsub.close()


async def test_sharded_subscription_follows_its_slot_in_a_task(mover: Mover, made: list[Any]) -> None:
    """The same for asyncio, where the task that subscribes again is made in the other tenant's context."""
    client = guard(redis.asyncio.RedisCluster(host="127.0.0.1", port=port(mover)))
    made.append(client)
    await client.initialize()
    pubsub = client.pubsub()
    with tenant_scope("acme"):
        await pubsub.ssubscribe(CHANNEL)
    mover.begin()
    mover.finish()
    with tenant_scope("globex"):
        await client.get(f"globex:{TAG}:1")  # MOVED
    await asyncio.gather(*pubsub._reconcile_tasks)
    for _ in range(200):
        with tenant_scope("acme"):
            await client.spublish(CHANNEL, "hello")
        found = await pubsub.get_sharded_message(timeout=0.05)
        if found and found["type"] == "smessage":
            break
    assert found is not None
    assert found["data"] == b"hello"
    await pubsub.aclose()
