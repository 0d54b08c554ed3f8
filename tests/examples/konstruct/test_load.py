"""Twenty tenants with equal ids at once, and workers that are killed: nothing lost, crossed, doubled."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import psutil
import psycopg
import pytest
from sqlalchemy import make_url

from tests import services
from tests.examples.konstruct.fleet import (
    Fleet,
    fleet,
    process_environment,
    running,
    wait_for,
    worker,
)


class Workers:
    """Workers that can be killed, parents and children, and are replaced at once."""

    def __init__(self, environment: dict[str, str], folder: Path, stack: contextlib.ExitStack):
        self._environment = environment
        self._folder = folder
        self._stack = stack
        self._running: list = []
        self._started = 0
        self.killed: Counter[str] = Counter()

    def start(self) -> None:
        """One more worker."""
        number, self._started = self._started, self._started + 1
        service = running(f"killable{number}", worker(number), self._environment, self._folder)
        self._running.append(self._stack.enter_context(service))

    def ready(self) -> bool:
        """Whether every worker that was started is or was ready."""
        logs = [self._folder / f"killable{n}.log" for n in range(self._started)]
        return all(" ready." in log.read_text() for log in logs)

    def kill(self, what: str) -> None:
        """Kill a pool process, or a worker with all of its processes, in the middle of its work."""
        process = random.choice(self._running)
        if what == "child":
            children = psutil.Process(process.pid).children()
            for child in children[-1:]:
                child.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            self._running.remove(process)
            self.start()
        self.killed[what] += 1


@contextlib.contextmanager
def under_load(
    broker: str, konstruct_database: dict[str, str], folder: Path, tenants: list[str], workers: int
) -> Iterator[tuple[Fleet, Workers]]:
    """The web process and killable workers."""
    with services.valkey_server() as valkey, contextlib.ExitStack() as stack:
        environment = {
            **konstruct_database,
            "REDIS_URL": valkey.url,
            "BROKER_URL": broker or valkey.url,
            "KONSTRUCT_VISIBILITY_TIMEOUT": "15",
            "KONSTRUCT_RATE_CAPACITY": "100000",
            "KONSTRUCT_WINDOW_SIZE": "10000",
            "KONSTRUCT_SECRET_KEYS": "load-test-key",
        }
        tokens = {tenant: f"token-of-{tenant}" for tenant in tenants}
        made = stack.enter_context(fleet(environment, folder, workers=0, tokens=tokens))
        pool = Workers(process_environment(made.environment), folder, stack)
        for _ in range(workers):
            pool.start()
        wait_for(pool.ready, "the workers", folder)
        yield made, pool


def deliver(made: Fleet, tenant: str, number: int) -> None:
    """Deliver one message as a channel would: again until it is taken, and sometimes once more."""
    message = {
        "message_id": f"m{number}",
        "thread_id": f"U{number % 2}",
        "user_id": f"U{number % 2}",
        "text": f"message {number} of {tenant}",
    }
    deliveries = 1 + (number % 3 == 0)
    while deliveries:
        answer = made.say(tenant=tenant, **message)
        if answer.status in (200, 202):
            deliveries -= 1
        else:
            assert answer.status in (409, 503), answer
            time.sleep(0.05)


def long_term(made: Fleet, tenant: str) -> list[str]:
    """What PostgreSQL has of a tenant, asked without tenantry."""
    url = make_url(made.environment["DATABASE_URL"]).set(drivername="postgresql")
    with psycopg.connect(url.render_as_string(hide_password=False)) as connection:
        connection.execute("SELECT set_config('app.tenant_id', %s, true)", [tenant])
        return [c for (c,) in connection.execute("SELECT content FROM conversation_embeddings")]


def everything_arrived(made: Fleet, tenants: list[str], messages: int) -> bool:
    """Whether each message has its row, which is the last but one thing that its task writes."""
    return all(len(long_term(made, tenant)) >= messages for tenant in tenants)


def judge(made: Fleet, tenant: str, messages: int) -> None:
    """Each message once in the window with one answer, once in PostgreSQL, and nobody else's."""
    expected = Counter(f"message {number} of {tenant}" for number in range(messages))
    windows = [*made.window(tenant, "U0"), *made.window(tenant, "U1")]
    assert Counter(m["text"] for m in windows if m["role"] == "user") == expected
    assert sum(m["role"] == "assistant" for m in windows) == messages
    assert Counter(long_term(made, tenant)) == expected
    others = [m["text"] for m in windows if "message" in m["text"] and f"of {tenant}" not in m["text"]]
    assert others == []


def run(broker: str, database: dict[str, str], folder: Path, *, messages: int, kills: int) -> Workers:
    """Deliver, kill, wait, judge."""
    one = uuid4().hex[:6]  # the database is that of the runs before, too
    tenants = [f"tenant-{one}-{number:02}" for number in range(20)]
    with under_load(broker, database, folder, tenants, workers=2) as (made, pool):
        work = [(tenant, number) for number in range(messages) for tenant in tenants]
        random.shuffle(work)
        over = threading.Event()

        def kill() -> None:
            for number in range(kills):
                if over.wait(random.uniform(0.3, 1.0)):
                    return
                pool.kill("worker" if number % 2 else "child")

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            with ThreadPoolExecutor(8) as channels:
                list(channels.map(lambda item: deliver(made, *item), work))
            killer.join()
        finally:
            over.set()
            killer.join()
        arrived = lambda: everything_arrived(made, tenants, messages)  # noqa: E731
        wait_for(arrived, "every message", folder, seconds=60 + 10 * messages)
        for tenant in tenants:
            judge(made, tenant, messages)
    return pool


def test_nothing_is_lost_crossed_or_doubled_while_workers_die(
    konstruct_database: dict[str, str], rabbitmq_url: str, tmp_path: Path
):
    """RabbitMQ gives a dead worker's messages back at once."""
    pool = run(rabbitmq_url, konstruct_database, tmp_path, messages=6, kills=4)
    assert pool.killed["child"]
    assert pool.killed["worker"]


@pytest.mark.deep
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("broker", ["rabbitmq", "valkey"])
def test_the_same_for_long(
    konstruct_database: dict[str, str], rabbitmq_url: str, tmp_path: Path, broker: str
):
    """More messages, more deaths, and Valkey as the broker, which waits for the visibility timeout."""
    url = rabbitmq_url if broker == "rabbitmq" else ""
    messages = int(os.environ.get("KONSTRUCT_LOAD_MESSAGES", "100"))
    run(url, konstruct_database, tmp_path, messages=messages, kills=messages // 3)
