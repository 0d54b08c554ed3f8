"""Two tenants on one client, from threads and tasks, for a million commands: no cross read."""

from __future__ import annotations

import asyncio
import random
import threading
from typing import Any

import pytest
import redis
import redis.asyncio

from tenantry import tenant_scope
from tenantry.errors import TenancyError
from tenantry.integrations.redis import guard
from tests import services

pytestmark = [pytest.mark.deep, pytest.mark.timeout(1800)]

TENANTS = ("acme", "globex")
COMMANDS = 500_000
BATCH = 50


def _rounds(workers: int) -> int:
    return COMMANDS // workers // BATCH


def _queue(pipe: Any, tenant: str, chance: random.Random) -> list[bytes]:
    expected = []
    for _ in range(BATCH // 2):
        key = f"{tenant}:{chance.randrange(50)}"
        pipe.set(key, tenant)
        pipe.get(key)
        expected.append(tenant.encode())
    return expected


def test_threads_never_read_across() -> None:
    """Half a million commands from eight threads, a refusal in between now and then."""
    wrong: list[Any] = []
    with services.redis_server() as server:
        client = guard(redis.Redis(port=server.port))

        def work(tenant: str, seed: int) -> None:
            chance = random.Random(seed)
            other = TENANTS[TENANTS[0] == tenant]
            with tenant_scope(tenant):
                for _ in range(_rounds(8)):
                    pipe = client.pipeline(transaction=chance.random() < 0.3)
                    expected = _queue(pipe, tenant, chance)
                    try:
                        client.get(f"{other}:{chance.randrange(50)}")
                        wrong.append("read")
                    except TenancyError:
                        pass
                    if pipe.execute()[1::2] != expected:
                        wrong.append(tenant)

        threads = [threading.Thread(target=work, args=(TENANTS[n % 2], n)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        client.close()
    assert not wrong


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
    assert not wrong
    assert not [r for r in results if r is not None and not isinstance(r, asyncio.CancelledError)]
