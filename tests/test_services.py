"""The servers and workers that the suite brings along."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import redis

from tests import services

APP = """
import os
from celery import Celery
app = Celery("probe", broker=os.environ["PROBE_URL"], backend=os.environ["PROBE_URL"])
@app.task
def pid():
    return os.getpid()
"""


def test_valkey_answers(valkey_url: str) -> None:
    """The embedded Valkey speaks the Redis protocol."""
    with redis.Redis.from_url(valkey_url) as client:
        assert client.ping()


def test_redis_answers(redis_url: str) -> None:
    """The system's redis-server runs on a port of its own."""
    with redis.Redis.from_url(redis_url) as client:
        assert client.info()["redis_version"]


def test_cluster_covers_all_slots() -> None:
    """Three primaries join and serve keys of every slot."""
    with services.redis_cluster() as nodes:
        with redis.RedisCluster(host="127.0.0.1", port=nodes[0].port) as client:
            assert all(client.set(f"k{n}", "v") for n in range(20))


def test_sentinel_names_its_primary() -> None:
    """The sentinel tells the address of the primary."""
    with services.redis_sentinel() as setup:
        sentinel = redis.Sentinel([("127.0.0.1", setup.sentinel.port)])
        assert sentinel.discover_master(setup.service)[1] == setup.primary.port
        sentinel.sentinels[0].close()


def test_tls_and_unix_socket_answer() -> None:
    """One server is reached through TLS and through its socket."""
    with services.redis_tls() as setup:
        with redis.Redis.from_url(setup.server.url, ssl_ca_certs=str(setup.ca)) as client:
            assert client.ping()
        with redis.Redis(unix_socket_path=str(setup.socket_path)) as client:
            assert client.ping()


def test_rabbitmq_gives_a_virtual_host(rabbitmq_url: str) -> None:
    """A connection to the virtual host opens."""
    import kombu

    with kombu.Connection(rabbitmq_url) as connection:
        connection.ensure_connection(max_retries=1)


def test_postgres_gives_a_database(postgres_dsn: str) -> None:
    """The database is ours alone."""
    import psycopg

    with psycopg.connect(postgres_dsn) as connection:
        assert connection.execute("select current_database()").fetchone()[0].startswith("tenantry_")


def test_embedded_postgres_has_pgvector(pgvector_dsn: str) -> None:
    """The embedded server offers the extension ``vector``."""
    import psycopg

    with psycopg.connect(pgvector_dsn) as connection:
        connection.execute("create extension if not exists vector")


def test_worker_runs_tasks_and_leaves_nothing(valkey_url: str, tmp_path: Path) -> None:
    """A prefork worker answers; afterwards neither it nor its children live."""
    from celery import Celery

    (tmp_path / "probe.py").write_text(APP)
    with services.celery_worker("probe", cwd=tmp_path, env={"PROBE_URL": valkey_url}) as worker:
        with Celery("probe", broker=valkey_url, backend=valkey_url) as app:
            child = app.send_task("probe.pid").get(timeout=20)
        assert child in worker.children()
    with pytest.raises(ProcessLookupError, match="No such process"):
        os.kill(child, 0)


def test_missing_service_says_what_would_help(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the server and the cure."""
    monkeypatch.setattr(services.shutil, "which", lambda name: None)
    with pytest.raises(services.Missing, match="needs redis-server: apt-get install"):
        services.redis_binary()
