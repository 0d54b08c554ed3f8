"""Two tenants on one client, from threads, tasks and greenlets, a million commands: no cross read."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio

from tenantry import tenant_scope
from tenantry.errors import TenancyError
from tenantry.integrations.redis import guard
from tests import services

pytestmark = [pytest.mark.deep, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[3]
TENANTS = ("acme", "globex")
COMMANDS = 340_000  # in each of the three ways
BATCH = 50


def _rounds(workers: int) -> int:
    return COMMANDS // workers // BATCH


def _counted(server: services.Server) -> int:
    """How many of the tests' own commands have reached the server."""
    with redis.Redis(port=server.port) as plain:
        stats = plain.info("commandstats")
    return int(stats["cmdstat_set"]["calls"]) + int(stats["cmdstat_get"]["calls"])


def _queue(pipe: Any, tenant: str, chance: random.Random) -> list[bytes]:
    expected = []
    for _ in range(BATCH // 2):
        key = f"{tenant}:{chance.randrange(50)}"
        pipe.set(key, tenant)
        pipe.get(key)
        expected.append(tenant.encode())
    return expected


def work(client: Any, tenant: str, seed: int, workers: int, wrong: list[Any]) -> None:
    """What one thread or greenlet does."""
    chance = random.Random(seed)
    other = TENANTS[TENANTS[0] == tenant]
    with tenant_scope(tenant):
        for _ in range(_rounds(workers)):
            pipe = client.pipeline(transaction=chance.random() < 0.3)
            expected = _queue(pipe, tenant, chance)
            try:
                client.get(f"{other}:{chance.randrange(50)}")
                wrong.append("read")
            except TenancyError:
                pass
            if pipe.execute()[1::2] != expected:
                wrong.append(tenant)


def test_threads_never_read_across() -> None:
    """A third of a million commands from eight threads, a refusal in between now and then."""
    wrong: list[Any] = []
    with services.redis_server() as server:
        client = guard(redis.Redis(port=server.port))
        threads = [
            threading.Thread(target=work, args=(client, TENANTS[n % 2], n, 8, wrong)) for n in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        client.close()
        assert _counted(server) >= COMMANDS
    assert not wrong


GREENLETS = """
from gevent import monkey
monkey.patch_all()
import sys
import gevent, redis
from tenantry.integrations.redis import guard
from tests.integration.redis.test_soak import TENANTS, work
wrong, client = [], guard(redis.Redis(port=int(sys.argv[1]), max_connections=20))
started = [gevent.spawn(work, client, TENANTS[n % 2], n, 20, wrong) for n in range(20)]
gevent.joinall(started, raise_error=True)
assert not wrong, wrong[:10]
"""


def test_greenlets_never_read_across() -> None:
    """The same from twenty greenlets, which all run in one thread, in a process that gevent has patched."""
    with services.redis_server() as server:
        words = [sys.executable, "-c", GREENLETS, str(server.port)]
        done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        assert _counted(server) >= COMMANDS


async def test_tasks_never_read_across() -> None:
    """The same from twenty tasks, some of which are cancelled and started again."""
    wrong: list[Any] = []
    with services.redis_server() as server:
        client = guard(redis.asyncio.Redis(port=server.port))

        async def work(tenant: str, seed: int) -> None:
            chance = random.Random(seed)
            other = TENANTS[TENANTS[0] == tenant]
            with tenant_scope(tenant):
                for _ in range(_rounds(20)):
                    pipe = client.pipeline(transaction=chance.random() < 0.3)
                    expected = _queue(pipe, tenant, chance)
                    try:
                        await client.get(f"{other}:{chance.randrange(50)}")
                        wrong.append("read")
                    except TenancyError:
                        pass
                    if (await pipe.execute())[1::2] != expected:
                        wrong.append(tenant)

        tasks = [asyncio.create_task(work(TENANTS[n % 2], n)) for n in range(20)]
        for n in range(0, 20, 5):
            await asyncio.sleep(0.05)
            tasks[n].cancel()
            tasks.append(asyncio.create_task(work(TENANTS[n % 2], 100 + n)))
        results = await asyncio.gather(*tasks, return_exceptions=True)
        await client.aclose()
        assert _counted(server) >= COMMANDS
    assert not wrong
    assert not [r for r in results if r is not None and not isinstance(r, asyncio.CancelledError)]
