"""Running empty tasks in a prefork worker on a real Redis: CPU time of parent and child together."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import redis
from celery import Celery

from benchmarks.measure import Row
from tenantry import tenant_scope
from tenantry.integrations.celery import install
from tests import services

TASKS = int(os.environ.get("BENCH_TASKS", "10000"))
ROUNDS = 10
KEYS = {"bare": None, "unsigned": "", "signed": "k" * 32}

APP = """
import os
from celery import Celery
app = Celery("run", broker=os.environ["URL"])
app.conf.update(task_default_queue=os.environ["QUEUE"], task_ignore_result=True, worker_prefetch_multiplier=100)
if "KEYS" in os.environ:
    from tenantry.integrations.celery import install
    install(app, secret_keys=os.environ["KEYS"] or None)

@app.task(name="empty")
def empty(): ...
"""


def rows() -> Iterator[Row]:
    """Unsigned and signed, of the same tasks in workers that take turns."""
    with services.redis_server() as server, tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        (Path(folder) / "run_app.py").write_text(APP)
        workers = {name: stack.enter_context(_worker(server.url, folder, name)) for name in KEYS}
        taken = {name: [] for name in KEYS}
        for _ in range(ROUNDS):
            for name, worker in workers.items():
                taken[name].append(_cpu(server.url, name, worker, TASKS // ROUNDS))
        ratios = {
            name: statistics.median(a / b for a, b in zip(taken[name], taken["bare"], strict=True))
            for name in KEYS
        }
    bare = statistics.median(taken["bare"])
    for name in ("unsigned", "signed"):
        note = f"median of {ROUNDS} pairs of {TASKS // ROUNDS} tasks"
        yield Row(f"Celery task run, {name}", ratios[name] * bare, bare, unit="µs", target=1.03, note=note)


def _worker(url: str, folder: str, name: str):
    env = {"URL": url, "QUEUE": name} | ({} if KEYS[name] is None else {"KEYS": KEYS[name]})
    env["PYTHONPATH"] = os.pathsep.join([folder, str(Path("src").resolve())])
    return services.celery_worker(
        "run_app:app", "-Q", name, "--without-gossip", "--without-mingle", "--without-heartbeat",
        cwd=folder, env=env,
    )  # fmt: skip


def _cpu(url: str, name: str, worker: services.Worker, count: int) -> float:
    """Return microseconds of CPU per task of one round."""
    app = Celery("publisher", broker=url, set_as_current=False)
    if KEYS[name] is not None:
        install(app, secret_keys=KEYS[name] or None)
    client = redis.Redis.from_url(url)
    family = [psutil.Process(pid) for pid in (worker.pid, *worker.children())]
    before = sum(sum(process.cpu_times()[:2]) for process in family)
    done = _started(worker) + count
    with tenant_scope("acme"), app.producer_or_acquire() as producer:
        for _ in range(count):
            app.send_task("empty", queue=name, producer=producer, ignore_result=True)
    services.wait_until(lambda: client.llen(name) == 0, "an empty queue", seconds=300)
    services.wait_until(lambda: _started(worker) >= done, "the end of the tasks", seconds=300)
    time.sleep(0.2)
    after = sum(sum(process.cpu_times()[:2]) for process in family)
    client.close()
    app.close()
    return (after - before) / count * 1e6


def _started(worker: services.Worker) -> int:
    return worker.log().count("succeeded in")
