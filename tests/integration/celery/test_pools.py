"""The contract of a pool, run by each pool on each broker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from tests.contracts.celery_pool import PoolContract, ProcessContract


@pytest.fixture(scope="class")
def rig(request, new_rig) -> Iterator:
    """A rig whose worker runs for the whole class, as the class says."""
    cls = request.cls
    broker = request.getfixturevalue(cls.broker)
    backend = (
        f"file://{request.getfixturevalue('tmp_path_factory').mktemp('results')}"
        if cls.file_backend
        else None
    )
    rig = new_rig(broker=broker, backend=backend, **cls.env)
    with rig.worker(
        pool=cls.pool,
        concurrency=cls.concurrency,
        env={"PROBE_HOOKS": "1", "PROBE_IN_WORKER": "1", **cls.worker_env},
    ) as worker:
        rig.running = worker
        yield rig


class Combination:
    """What differs between the combinations."""

    pool: ClassVar[str] = "prefork"
    concurrency: ClassVar[int] = 2
    broker: ClassVar[str] = "redis_url"
    env: ClassVar[dict[str, Any]] = {}
    worker_env: ClassVar[dict[str, Any]] = {}
    file_backend: ClassVar[bool] = False


class TestPrefork(Combination, ProcessContract):
    """Forked processes, on Redis."""


class TestPreforkSignedOnRabbitMQ(Combination, ProcessContract):
    """Forked processes, on RabbitMQ, with signed headers and two secret keys."""

    broker = "rabbitmq_url"
    signed = True
    env = {"PROBE_SECRETS": "old key,new key"}


@pytest.mark.deep
class TestPreforkProtocol1(Combination, ProcessContract):
    """Forked processes, on Redis, task protocol 1, signed."""

    signed = True
    env = {"PROBE_SECRETS": "key", "PROBE_PROTOCOL": "1"}


class TestSpawn(Combination, ProcessContract):
    """Spawned processes, which receive an unpickled copy of the application."""

    signed = True
    env = {"PROBE_SECRETS": "key", "PROBE_START_METHOD": "spawn"}


class TestThreads(Combination, PoolContract):
    """A pool of threads."""

    pool = "threads"
    concurrency = 4


@pytest.mark.deep
class TestGevent(Combination, PoolContract):
    """Greenlets of gevent."""

    pool = "gevent"
    concurrency = 4


@pytest.mark.deep
class TestEventlet(Combination, PoolContract):
    """Greenlets of eventlet, on RabbitMQ."""

    pool = "eventlet"
    concurrency = 4
    broker = "rabbitmq_url"
    # Its resolver imports dnspython, which imports whatever HTTP client is there, under patched sockets.
    env = {"EVENTLET_NO_GREENDNS": "yes"}


@pytest.mark.deep
class TestSolo(Combination, PoolContract):
    """The worker's own process."""

    pool = "solo"
    concurrency = 1


@pytest.mark.deep
class TestSpawnOnRabbitMQ(TestSpawn):
    """The other broker."""

    broker = "rabbitmq_url"


@pytest.mark.deep
class TestThreadsOnRabbitMQ(TestThreads):
    """The other broker."""

    broker = "rabbitmq_url"


@pytest.mark.deep
class TestGeventOnRabbitMQ(TestGevent):
    """The other broker."""

    broker = "rabbitmq_url"


@pytest.mark.deep
class TestEventletOnRedis(TestEventlet):
    """The other broker."""

    broker = "redis_url"


@pytest.mark.deep
class TestSoloOnRabbitMQ(TestSolo):
    """The other broker."""

    broker = "rabbitmq_url"


@pytest.mark.deep
class TestBesideTracingTools(Combination, ProcessContract):
    """Sentry, OpenTelemetry and ddtrace instrument the worker too; one of them writes an inner ``headers``."""

    signed = True
    env = {"PROBE_SECRETS": "key"}
    worker_env = {"PROBE_BESIDE": "sentry,otel,ddtrace", "DD_TRACE_AGENT_URL": "http://127.0.0.1:1"}


@pytest.mark.deep
class TestThreadsBesideTracingTools(TestThreads):
    """The same tools in one process with many tasks."""

    worker_env = TestBesideTracingTools.worker_env


@pytest.mark.deep
class TestGeventBesideTracingTools(TestGevent):
    """The same tools in greenlets."""

    worker_env = TestBesideTracingTools.worker_env


@pytest.mark.deep
class TestSoloBesideTracingTools(TestSolo):
    """The same tools in the worker's own process."""

    worker_env = TestBesideTracingTools.worker_env


@pytest.mark.deep
class TestPreforkFileBackend(Combination, ProcessContract):
    """A result backend without native chords: they are unlocked by a task that Celery publishes first."""

    signed = True
    file_backend = True
    env = {"PROBE_SECRETS": "key"}
    # Redis alone can add members to a chord, or count them.
    test_member_added_to_a_chord_has_the_own_tenant = None
    test_chord_with_a_refused_member_fails = None
