"""A fan-out beside plain ``delay()`` in a loop, on a real Redis: time per publish, and memory."""

from __future__ import annotations

import os
from collections.abc import Iterator

import psutil
from celery import Celery

from benchmarks.measure import Row, medians
from tenantry.integrations.celery import fan_out, install
from tests import services

TENANTS = int(os.environ.get("BENCH_TENANTS", "20000"))


def rows() -> Iterator[Row]:
    """The rate, and what a long fan-out leaves in memory."""
    with services.redis_server() as server:
        app = Celery("fan", broker=server.url, backend=server.url, set_as_current=False)
        install(app)

        # Celery remembers the id of every result that somebody may ask for, whoever published the task.
        @app.task(name="free", tenancy="none", shared=False, ignore_result=True)
        def free() -> None:
            """Nothing."""

        def looped(count: int) -> None:
            for _ in range(count):
                free.delay()

        def fanned(count: int) -> None:
            for _tenant, _result in fan_out(free, (f"t{n}" for n in range(count)), run_id="bench"):
                pass

        plain, fan = medians(looped, fanned, count=400, rounds=15, net_of=None)
        yield Row("fan-out, one publish", fan / 1e3, plain / 1e3, unit="µs", target=1 / 0.95)
        before = psutil.Process().memory_info().rss
        fanned(TENANTS)
        grown = (psutil.Process().memory_info().rss - before) / 2**20
        yield Row(f"fan-out, memory kept after {TENANTS:,} tenants", grown, unit="MiB", limit=1.0)
        app.close()
