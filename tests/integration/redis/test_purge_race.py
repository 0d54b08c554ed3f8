"""Purge against others: an unguarded writer, and whoever kills the purge."""

from __future__ import annotations

import contextlib
import io
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
import redis
from typer.testing import CliRunner

from tenantry import tenant_scope
from tenantry.cli import app
from tenantry.integrations.redis import guard, tenants
from tests import services

WRITER = """
import sys, redis
client = redis.Redis.from_url(sys.argv[1])
number = 0
while True:
    number += 1
    client.set(f"acme:written:{number}", "x")
    client.set("globex:written", number)
    if number == 1:
        print("writing", flush=True)
"""


@pytest.fixture
def client(valkey_url: str) -> Iterator[redis.Redis]:
    """An unguarded client of an empty server."""
    with redis.Redis.from_url(valkey_url) as found:
        found.flushall()
        yield found


def url_of(client: redis.Redis) -> str:
    return f"redis://127.0.0.1:{client.connection_pool.connection_kwargs['port']}/0"


@contextlib.contextmanager
def process(program: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    child = subprocess.Popen([sys.executable, "-c", program, *words], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        assert child.stdout.readline()
        yield child
    finally:
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()


def test_purge_against_an_unguarded_writer_ends_and_says_so(client: redis.Redis) -> None:
    """It ends with what remains, exit status 1; when the writer has stopped nothing is left."""
    client.mset({f"other{number}:1": "x" for number in range(5_000)})
    client.set("globex:1", "x")
    words = ["tenants", "purge", "acme", "--yes", "--max-passes", "2", "--url", url_of(client)]
    with process(WRITER, url_of(client)):
        # A pass finds nothing where this machine let the writer sleep through it.
        results = (CliRunner().invoke(app, words) for _ in range(100))
        result = next(result for result in results if result.exit_code)
        assert result.exit_code == 1, result.output
        assert "somebody writes" in result.stderr

        def written(report: tenants.PurgeReport) -> None:
            before = int(client.get("globex:written"))
            services.wait_until(lambda: int(client.get("globex:written")) > before, "the writer to write")

        report = tenants.purge(client, "acme", max_passes=4, on_progress=written)
        assert report.passes == 4
        assert report.remaining > 0
    assert CliRunner().invoke(app, words).exit_code == 0
    assert not list(client.scan_iter("acme:*", count=1000))
    assert client.dbsize() == 5_002


PURGE = """
import os, signal, sys, redis
from tenantry.integrations.redis import tenants
def progress(report):
    if report.keys > 1500:
        print("half-way", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
client = redis.Redis.from_url(sys.argv[1])
operation = getattr(tenants, sys.argv[2])
operation(client, *sys.argv[3:], on_progress=progress)
"""


def kill_half_way(client: redis.Redis, *words: str) -> None:
    with process(PURGE, url_of(client), *words) as child:
        assert child.wait(60) == -signal.SIGKILL


def test_purge_can_be_run_again_after_a_kill(client: redis.Redis) -> None:
    """SIGKILL in the middle leaves some keys, and a second run none."""
    client.mset({f"acme:{number}": "x" for number in range(4_000)})
    kill_half_way(client, "purge", "acme")
    left = client.dbsize()
    assert 0 < left < 4_000
    report = tenants.purge(client, "acme")
    assert (report.keys, report.remaining) == (left, 0)
    assert client.dbsize() == 0


def test_export_and_import_can_be_run_again_after_a_kill(client: redis.Redis, tmp_path) -> None:
    """A killed export leaves no file of that name; a killed import is finished by the next."""
    client.mset({f"acme:{number}": str(number) for number in range(4_000)})
    path = tmp_path / "acme.ndjson"
    kill_half_way(client, "export", "acme", str(path))
    assert not path.exists()
    assert tenants.export(client, "acme", path).keys == 4_000
    assert list(tmp_path.iterdir()) == [path]
    client.flushall()
    kill_half_way(client, "import_", str(path))
    done = client.dbsize()
    assert 0 < done < 4_000
    report = tenants.import_(client, path)
    assert (report.keys, report.skipped) == (4_000 - done, done)
    assert client.mget("acme:1", "acme:3999") == [b"1", b"3999"]


@pytest.mark.core
def test_tenants_work_through_a_guarded_client(client: redis.Redis) -> None:
    """The operators' tool goes beneath the guard, whoever is active; the guard stays in place."""
    client.mset({"acme:1": "x", "acme:2": "x", "globex:1": "x", "orphan": "x"})
    guarded = guard(redis.Redis.from_url(url_of(client)))
    for scope in (contextlib.nullcontext(), tenant_scope("globex")):
        with scope:
            assert tenants.usage(guarded, "acme").keys == 2
            assert tenants.purge(guarded, "acme", dry_run=True).keys == 2
            assert set(tenants.audit(guarded)) == {b"orphan"}
    file = io.BytesIO()
    with tenant_scope("globex"):
        tenants.export(guarded, "acme", file)
        assert tenants.purge(guarded, "acme").keys == 2
        assert tenants.import_(guarded, io.BytesIO(file.getvalue()), tenant_id="initech").keys == 2
        assert guarded.get("globex:1") == b"x"
        with pytest.raises(Exception, match="globex"):
            guarded.get("initech:1")
    guarded.close()
    assert client.dbsize() == 4


def test_tenants_through_tls_and_a_unix_socket() -> None:
    """The connections of the client's pool, whatever they are made of."""
    with services.redis_tls() as setup:
        for client in (
            redis.Redis(port=setup.server.port, ssl=True, ssl_ca_certs=str(setup.ca)),
            redis.Redis(unix_socket_path=str(setup.socket_path)),
        ):
            with client:
                client.mset({"acme:1": "x", "globex:1": "x"})
                assert tenants.purge(client, "acme").keys == 1
