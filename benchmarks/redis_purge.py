"""What removing a tenant costs: CPU time of client and server together, beside a bare SCAN pass.

``python -m benchmarks redis_purge``. The tenant has 10,000 keys of 1,000,000. A purge is at least two
passes, since the last one is the proof that nothing is left; its first pass is shown too. With the
tagged layout on a cluster the size of the rest should not matter: once with a tenth of it.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import redis

from benchmarks.measure import Row
from tenantry.integrations.redis import tenants
from tenantry.keys import tenant_prefix, use_layout
from tests import services

ALL = 1_000_000
OWN = 10_000
ROUNDS = 7


def rows() -> Iterator[Row]:
    for binary in (services.redis_binary(), services.valkey_binary()):
        with services.redis_server("--enable-debug-command", "yes", binary=binary) as server:
            client = redis.Redis(port=server.port)
            _populate(client, ALL - OWN)
            bare, two, one = _rounds(
                client,
                _bare_pass,
                lambda c: tenants.purge(c, "acme"),
                lambda c: tenants.purge(c, "acme", max_passes=1),
            )
            yield Row(
                f"purge, 1 % of 1 M keys, {server}",
                two,
                bare,
                "ms",
                1.2,
                note="two passes / bare SCAN COUNT 1000",
            )
            yield Row(f"  its first pass, {server}", one, bare, "ms")
    yield from _tagged_rows()


def _tagged_rows() -> Iterator[Row]:
    options = (
        "--enable-debug-command",
        "yes",
        "--cluster-enabled",
        "yes",
        "--cluster-port",
        str(services.free_port()),
    )
    with services.redis_server(*options, binary=services.valkey_binary()) as server:
        services.redis_command(server, "CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        client = redis.Redis(port=server.port)
        services.wait_until(
            lambda: b"cluster_state:ok" in services.redis_command(server, "CLUSTER", "INFO"), "slots"
        )
        found = {}
        for count in (ALL // 10, ALL):
            _populate(client, count)
            (bare,) = _rounds(client, _bare_pass)
            words = [sys.executable, "-m", "benchmarks.redis_purge", str(server.port)]
            done = subprocess.run(words, capture_output=True, check=True)
            found[count] = json.loads(done.stdout)["purge"]
        note = "O(tenant): beside a keyspace of a tenth"
        yield Row(
            "purge, tagged, 10,000 keys, cluster of 1 M keys", found[ALL], found[ALL // 10], "ms", note=note
        )
        yield Row("  beside a bare SCAN pass", found[ALL], bare, "ms")


def _populate(client: redis.Redis, count: int) -> None:
    client.execute_command("DEBUG", "POPULATE", count, "globex:session", 20)


def _fill(client: redis.Redis) -> None:
    prefix = tenant_prefix("acme")
    with client.pipeline(transaction=False) as pipe:
        for number in range(OWN):
            pipe.set(f"{prefix}session:{number}", "x" * 20)
        pipe.execute()


def _bare_pass(client: redis.Redis) -> None:
    cursor = 0
    while True:
        cursor, _ = client.scan(cursor, count=1000)
        if not cursor:
            return


def _rounds(client: redis.Redis, *runs: Callable[[redis.Redis], object]) -> list[float]:
    """Return the median of each, in ms of both processes' CPU; they take turns."""
    taken: list[list[float]] = [[] for _ in runs]
    for _ in range(ROUNDS):
        for times, run in zip(taken, runs, strict=True):
            _fill(client)
            start = _cpu(client)
            run(client)
            times.append(_cpu(client) - start)
    return [statistics.median(times) for times in taken]


def _cpu(client: redis.Redis) -> float:
    cpu = client.info("cpu")
    served = cpu["used_cpu_user_main_thread"] + cpu["used_cpu_sys_main_thread"]
    return 1000 * (served + time.process_time())


def main(port: int) -> None:
    """Measure in the tagged layout, which a process chooses once."""
    use_layout("tagged")
    (purge,) = _rounds(redis.Redis(port=port), lambda client: tenants.purge(client, "acme"))
    print(json.dumps({"purge": purge}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
