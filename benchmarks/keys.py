"""Key functions against the plain functions that take `tenant_id`."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator

from benchmarks.measure import Batch, Row, calls, medians
from tenantry import keys, tenant_scope


def plain_memory_short(tenant_id: str, agent_id: str, user_id: str) -> str:
    return f"{tenant_id}:memory:short:{agent_id}:{user_id}"


def plain_session(tenant_id: str, thread_id: str) -> str:
    return f"{tenant_id}:session:{thread_id}"


AGENT, USER = "support-agent", "U02ABCDEF"
FRESH = 20_000


@tenant_scope("acme")
def rows() -> Iterator[Row]:
    yield _hot("key function, hot ids, two parts", keys.memory_short, plain_memory_short, AGENT, USER)
    yield _hot("key function, hot ids, one part", keys.session, plain_session, "1712345678.123456")
    yield _fresh()
    yield _encoded()
    yield _memory()


def _hot(name, function, plain, *parts) -> Row:
    for _ in range(100):
        function(*parts)
    value, baseline = medians(calls(function, *parts), calls(plain, "acme", *parts), count=100_000)
    return Row(name, value, baseline, target=1.2, note="(1.5x where one readable path needs it)")


def _fresh() -> Row:
    made = iter(range(10**9))

    def pairs(count: int) -> list[tuple[str, str]]:
        return [(f"agent-{(n := next(made))}", f"user-{n}") for _ in range(count)]

    def batch(call, *first) -> Batch:
        def run(count: int) -> None:
            for agent, user in current:
                call(*first, agent, user)

        return run

    def loop(count: int) -> None:
        for _agent, _user in current:
            pass

    values, baselines = [], []
    for _ in range(15):
        current = pairs(FRESH)
        value, baseline = medians(
            batch(keys.memory_short), batch(plain_memory_short, "acme"), count=FRESH, rounds=1, net_of=loop
        )
        values.append(value)
        baselines.append(baseline)
    middle = len(values) // 2
    return Row("key function, every id new", sorted(values)[middle], sorted(baselines)[middle], target=5)


def _encoded() -> Row:
    value, baseline = medians(
        calls(keys.memory_short, "urn:agent:1", "@jane:example.org"),
        calls(plain_memory_short, "acme", "urn:agent:1", "@jane:example.org"),
        count=20_000,
    )
    return Row("key function, ids that are encoded", value, baseline, note="(reported)")


def _memory() -> Row:
    gc.collect()
    tracemalloc.start()
    for number in range(300_000):
        with tenant_scope(f"t{number % 100_000}", switch=True):
            keys.memory_short("agent", f"user-{number}")
    gc.collect()
    used = tracemalloc.get_traced_memory()[0] / 2**20
    tracemalloc.stop()
    return Row("key functions, memory after 3·10⁵ ids of 10⁵ tenants", used, unit="MiB", limit=32)
