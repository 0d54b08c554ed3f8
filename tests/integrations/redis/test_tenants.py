"""The tenant operations on real standalone servers."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import os
import pickle
import stat
import threading
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fakeredis
import pytest
import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.cache import CacheConfig
from redis.retry import Retry

from tenantry import tenant_scope, without_tenant
from tenantry.errors import InvalidTenantIdError, TenancyError
from tenantry.integrations.redis import tenants
from tenantry.integrations.redis.tenants import ExportFileError, operations, store
from tenantry.integrations.redis.tenants.exportfile import Entry, Writer
from tenantry.integrations.redis.tenants.store import Node, next_page
from tenantry.keys import shared_key
from tests import services

BINARY = b"acme:\xff\x00\r\n*[?]"
Client = redis.Redis


@shared_key("tenants-test:{name}", reason="the audit must know it")
def declared(name: str) -> str:
    """String: a key of no tenant."""


@pytest.fixture
def url(request: pytest.FixtureRequest) -> str:
    """Valkey, and Redis too for what is marked ``both``."""
    return str(request.getfixturevalue(getattr(request, "param", "valkey_url")))


both = pytest.mark.parametrize("url", ["redis_url", "valkey_url"], indirect=True)


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    """An unguarded client of an empty server."""
    with redis.Redis.from_url(url) as found:
        found.flushall()
        yield found


def fill(client: Client) -> dict[bytes, bytes | None]:
    """Write keys of every type for ``acme``, and others that are not its own; acme's dumps."""
    client.mset({f"acme:session:{number}": f"state {number}" for number in range(30)})
    client.hset("acme:hash", mapping={"a": "1", "b": "2"})
    client.rpush("acme:list", "a", "b", "c")
    client.sadd("acme:set", "a")
    client.zadd("acme:zset", {"a": 1.5})
    client.xadd("acme:stream", {"a": "1"})
    client.set(BINARY, b"\x00\xff", px=600_000)
    client.set("acme:déjà", "vu")
    own = {key: client.dump(key) for key in client.scan_iter("acme:*")}
    assert len(own) == 37
    client.mset(dict.fromkeys(others(), "not acme's"))
    return own


def others() -> list[str | bytes]:
    return [
        "globex:1",
        "acme2:1",
        "acme",
        "acme.eu:1",
        "{acme}:1",
        "xacme:1",
        "ACME:1",
        "%shared:x",
        declared("d"),
        b"\xfe:1",
    ]


def left(client: Client) -> set[bytes]:
    return {key if isinstance(key, bytes) else key.encode() for key in client.scan_iter(count=1000)}


def encoded(keys: list[str | bytes]) -> set[bytes]:
    return {key if isinstance(key, bytes) else key.encode() for key in keys}


def exported(client: Client, tenant: str = "acme") -> bytes:
    file = io.BytesIO()
    tenants.export(client, tenant, file)
    return file.getvalue()


# --- what all have in common ----------------------------------------------------------------------------


OPERATIONS: dict[str, Callable[..., Any]] = {
    "usage": tenants.usage,
    "purge": tenants.purge,
    "export": lambda client, tenant, **options: tenants.export(client, tenant, io.BytesIO(), **options),
    "import_": lambda client, tenant, **options: tenants.import_(
        client, io.BytesIO(b"x"), tenant_id=tenant, **options
    ),
}


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("bad", ["", "*", "a*", "acme:", "acme:session", "a b", "none", "x" * 64, b"acme", 7])
def test_tenants_validate_the_id_before_anything_else(operation: str, bad: Any) -> None:
    """A glob for an id would purge everybody: refused with no server at hand."""
    with redis.Redis(port=1) as nowhere, pytest.raises(InvalidTenantIdError, match="tenant id"):
        OPERATIONS[operation](nowhere, bad)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_tenants_refuse_what_is_no_synchronous_client(operation: str) -> None:
    """Neither the asyncio client, nor a pipeline, nor anything else."""
    client = redis.Redis(port=1)
    for wrong in (redis.asyncio.Redis(port=1), client.pipeline(), object(), None, "redis://"):
        with pytest.raises(TypeError, match="synchronous"):
            OPERATIONS[operation](wrong, "acme")
    with pytest.raises(TypeError, match="synchronous"):
        tenants.audit(redis.asyncio.Redis(port=1))  # type: ignore[arg-type]


@pytest.mark.parametrize("operation", ["usage", "purge", "export"])
def test_tenants_report_progress_and_are_frozen(client: Client, operation: str) -> None:
    """A report per page, each frozen, the last one equal to what is returned but for its end."""
    client.mset({f"acme:{number}": "x" for number in range(3000)})
    reports: list[tenants.Report] = []
    last = OPERATIONS[operation](client, "acme", on_progress=reports.append)
    assert len(reports) >= 3
    assert [r.keys for r in reports] == sorted(r.keys for r in reports)
    assert reports[-1] == last
    assert last.keys == 3000
    assert last.bytes > 3000
    with pytest.raises(dataclasses.FrozenInstanceError, match="keys"):
        last.keys = 1
    assert pickle.loads(pickle.dumps(last)) == last
    assert json.dumps(dataclasses.asdict(last))


@pytest.mark.parametrize(
    "kind",
    [
        tenants.Report,
        tenants.UsageReport,
        tenants.PurgeReport,
        tenants.ExportReport,
        tenants.ImportReport,
        tenants.AuditReport,
        Entry,
    ],
)
def test_reports_and_entries_are_values(kind: type[Any]) -> None:
    """Nobody changes one, or adds to it; equal ones are the same to a set."""
    options = {"key": b"acme:1", "type": "string", "pttl": -1, "dump": b""} if kind is Entry else {"keys": 3}
    value = kind(**options)
    for field in dataclasses.fields(value):
        with pytest.raises(dataclasses.FrozenInstanceError, match=field.name):
            setattr(value, field.name, None)
    assert not hasattr(value, "__dict__")
    assert {value, kind(**options)} == {value}
    if kind is not Entry:
        assert value == dataclasses.replace(kind(), keys=3)
        assert not any(dataclasses.asdict(kind()).values())
        with pytest.raises(TypeError, match="positional"):
            kind(3)


@pytest.mark.parametrize("operation", ["usage", "purge", "export"])
@pytest.mark.parametrize("error", [RuntimeError("stop"), KeyboardInterrupt()])
def test_tenants_stop_when_progress_raises_and_can_run_again(
    client: Client, operation: str, error: BaseException
) -> None:
    """What the callback raises ends the run; connections go back clean, and a second run is whole."""
    client.mset({f"acme:{number}": "x" for number in range(3000)})

    def stop(report: tenants.Report) -> None:
        if report.keys > 1000:
            raise error

    with pytest.raises(type(error)):
        OPERATIONS[operation](client, "acme", on_progress=stop)
    assert client.ping()
    again = OPERATIONS[operation](client, "acme")
    assert again.keys == 3000 if operation != "purge" else 0 < again.keys < 3000
    assert client.ping()


@pytest.mark.parametrize("state", ["same", "other", "without"])
def test_tenants_never_read_the_active_tenant(client: Client, state: str) -> None:
    """The tenant is an argument: whatever is active, the named one is meant."""
    client.mset({"acme:1": "x", "globex:1": "x", "globex:2": "x"})
    scope = (
        without_tenant(reason="test")
        if state == "without"
        else tenant_scope("acme" if state == "same" else "globex")
    )
    with scope:
        assert tenants.usage(client, "acme").keys == 1
        assert tenants.purge(client, "acme").keys == 1
    assert left(client) == {b"globex:1", b"globex:2"}


def _clients(url: str) -> dict[str, Callable[[], Client]]:
    pool = redis.ConnectionPool.from_url(url, max_connections=1)
    return {
        "decoding": lambda: redis.Redis.from_url(url, decode_responses=True),
        "latin": lambda: redis.Redis.from_url(url, decode_responses=True, encoding="latin-1"),
        "resp2": lambda: redis.Redis.from_url(url, protocol=2),
        "one connection": lambda: redis.Redis(connection_pool=pool),
        "blocking pool": lambda: redis.Redis(
            connection_pool=redis.BlockingConnectionPool.from_url(url, max_connections=1, timeout=1)
        ),
        "single": lambda: redis.Redis.from_url(url, single_connection_client=True),
        "checking": lambda: redis.Redis.from_url(url, health_check_interval=1, client_name="ops"),
    }


@both
@pytest.mark.parametrize("kind", _clients("redis://localhost"))
def test_tenants_work_through_every_kind_of_client(client: Client, url: str, kind: str) -> None:
    """Keys that are no text survive a client that decodes; one connection is enough."""
    own = fill(client)
    with _clients(url)[kind]() as other:
        assert tenants.usage(other, "acme").keys == len(own)
        data = exported(other)
        assert tenants.purge(other, "acme").remaining == 0
        assert left(client) == encoded(others())
        assert tenants.import_(other, io.BytesIO(data)).keys == len(own)
        assert set(tenants.audit(other))
    assert {key: client.dump(key) for key in client.scan_iter("acme:*")} == own
    assert client.get(BINARY) == b"\x00\xff"


def test_tenants_work_through_a_client_side_cache() -> None:
    """Its connections answer from a cache of their own; ours are asked beneath it."""
    with (
        services.redis_server(binary=services.redis8_binary()) as server,
        redis.Redis(port=server.port, protocol=3, cache_config=CacheConfig()) as client,
    ):
        client.set("acme:1", "x")
        assert client.get("acme:1") == b"x"
        data = exported(client)
        assert tenants.purge(client, "acme").keys == 1
        assert client.get("acme:1") is None
        assert tenants.import_(client, io.BytesIO(data)).keys == 1
        assert client.get("acme:1") == b"x"


def test_tenants_work_on_fakeredis() -> None:
    """In unit tests of users, without a server; sizes in memory are unknown there."""
    fake = fakeredis.FakeRedis()
    fake.mset({"acme:1": "x", "acme:2": "y", "globex:1": "z"})
    usage = tenants.usage(fake, "acme")
    assert (usage.keys, usage.bytes, usage.by_type) == (2, 0, {"string": 2})
    data = exported(fake)
    assert tenants.purge(fake, "acme").keys == 2
    assert tenants.import_(fake, io.BytesIO(data), tenant_id="initech").keys == 2
    assert left(fake) == {b"globex:1", b"initech:1", b"initech:2"}


@both
def test_tenants_name_what_the_server_refuses(client: Client, url: str) -> None:
    """A user who may not look is told so, and nothing is done."""
    client.set("acme:1", "x")
    client.execute_command("ACL", "SETUSER", "blind", "reset", "on", ">pw", "~acme:*", "+get", "+cluster")
    other = redis.Redis.from_url(url, username="blind", password="pw")
    try:
        with pytest.raises(redis.exceptions.NoPermissionError, match="scan"):
            tenants.purge(other, "acme")
    finally:
        other.close()
        client.execute_command("ACL", "DELUSER", "blind")
    assert client.get("acme:1") == b"x"


class Failing(redis.Connection):
    """A connection on which something happens between two replies, once."""

    fails_with: BaseException | None = None

    def read_response(self, *args: Any, **options: Any) -> Any:
        reply = super().read_response(*args, **options)
        error, Failing.fails_with = Failing.fails_with, None
        if error is not None:
            raise error
        return reply


@pytest.fixture
def failing(url: str) -> Iterator[Client]:
    """A client of one such connection, which retries as clients do."""
    pool = redis.ConnectionPool.from_url(url, max_connections=1, retry=Retry(NoBackoff(), 1))
    pool.connection_class = Failing
    with redis.Redis(connection_pool=pool) as found:
        yield found
    pool.disconnect()


def test_interrupt_between_two_replies_leaves_none_to_the_next_caller(
    client: Client, failing: Client
) -> None:
    """The rest of the replies is on its way, so the connection is given up."""
    client.mset({"acme:1": "one", "acme:2": "two"})
    node = Node(failing)
    Failing.fails_with = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        node.run([(b"GET", b"acme:1"), (b"GET", b"acme:2")])
    assert failing.get("acme:1") == b"one"
    assert node.run([(b"GET", b"acme:2"), (b"NOPE",), (b"GET", b"acme:1")])[::2] == [b"two", b"one"]
    assert node.run([]) == []


def test_connection_that_was_given_back_is_not_used_again(client: Client, failing: Client) -> None:
    """The next one who gets it from the pool reads its own replies only."""
    node = Node(failing)
    assert node.run([(b"ECHO", b"x")]) == [b"x"]
    with node.holding():
        assert node.run([(b"ECHO", b"x")]) == [b"x"]
    connection = failing.connection_pool.get_connection()
    with pytest.raises(redis.ConnectionError, match="Too many connections"):
        node.run([(b"ECHO", b"x")])
    failing.connection_pool.release(connection)
    assert node.run([(b"ECHO", b"x")]) == [b"x"]


@pytest.mark.parametrize("operation", ["usage", "purge", "export"])
def test_tenants_go_on_after_a_lost_connection(client: Client, failing: Client, operation: str) -> None:
    """Reading and removing may be asked for twice, as often as the client is set up to."""
    client.mset({f"acme:{number}": "x" for number in range(3000)})
    lost = []

    def lose(report: tenants.Report) -> None:
        if not lost:
            lost.append(report)
            Failing.fails_with = redis.ConnectionError("lost")

    report = OPERATIONS[operation](failing, "acme", on_progress=lose)
    assert lost
    if operation == "purge":  # what went in the write whose replies were lost is not counted
        assert (report.remaining, left(client)) == (0, set())
        assert 1500 < report.keys <= 3000
    else:
        assert report.keys == 3000
    assert failing.ping()


def test_import_ends_at_a_lost_connection_and_can_run_again(client: Client, failing: Client) -> None:
    """A write whose reply was lost may have been done: asked again, its key would seem to have existed."""
    client.mset({f"acme:{number}": "x" for number in range(1200)})
    data = exported(client)
    client.flushall()

    def lose(report: tenants.Report) -> None:
        Failing.fails_with = redis.ConnectionError("lost")

    with pytest.raises(redis.ConnectionError, match="lost"):
        tenants.import_(failing, io.BytesIO(data), on_progress=lose)
    done = len(left(client))
    report = tenants.import_(failing, io.BytesIO(data))
    assert 500 < done < 1200
    assert (report.keys, report.skipped) == (1200 - done, done)


# --- usage ---------------------------------------------------------------------------------------------


@both
def test_usage_counts_by_type(client: Client) -> None:
    """Keys and bytes, and how many of each type."""
    own = fill(client)
    report = tenants.usage(client, "acme")
    assert report.by_type == {"string": 32, "hash": 1, "list": 1, "set": 1, "zset": 1, "stream": 1}
    assert report.keys == len(own) == sum(report.by_type.values())
    assert report.bytes == sum(client.memory_usage(key) for key in own)
    assert report.passes == 1
    assert not report.dry_run


def test_usage_of_nobody_is_nothing(client: Client) -> None:
    """A tenant without keys is not an error."""
    assert tenants.usage(client, "acme") == tenants.UsageReport(passes=1)
    assert tenants.usage(client, "acme", dry_run=True).dry_run


# --- purge ---------------------------------------------------------------------------------------------


@both
def test_purge_removes_the_tenant_and_nothing_else(client: Client) -> None:
    """Tenants that are named alike, the other layout, shared and binary keys stay."""
    own = fill(client)
    report = tenants.purge(client, "acme")
    assert (report.keys, report.remaining, report.passes, report.dry_run) == (len(own), 0, 2, False)
    assert report.bytes > 0
    assert left(client) == encoded(others())


def test_purge_of_nobody_takes_one_pass(client: Client) -> None:
    """One pass that finds nothing is the proof."""
    client.mset(dict.fromkeys(others(), "x"))
    assert tenants.purge(client, "acme") == tenants.PurgeReport(passes=1)


def test_purge_dry_run_removes_nothing(client: Client) -> None:
    """A rehearsal counts what would go, and says that it remains."""
    own = fill(client)
    report = tenants.purge(client, "acme", dry_run=True)
    assert (report.keys, report.remaining, report.passes, report.dry_run) == (len(own), len(own), 1, True)
    assert len(left(client)) == len(own) + len(others())


def test_purge_gives_up_against_a_writer(client: Client) -> None:
    """While somebody still writes it ends, and says what the last pass found."""
    client.set("acme:0", "x")

    def write(report: tenants.PurgeReport) -> None:
        client.set(f"acme:{report.passes}:{report.keys}", "x")

    report = tenants.purge(client, "acme", on_progress=write)
    assert report.passes == 10
    assert report.remaining > 0
    for passes in (3, 1):
        assert tenants.purge(client, "acme", max_passes=passes, on_progress=write).passes == passes
    assert tenants.purge(client, "acme").remaining == 0
    assert not left(client)


@pytest.mark.parametrize("passes", [0, -1])
def test_purge_refuses_no_passes(client: Client, passes: int) -> None:
    """No pass would report that nothing remains."""
    with pytest.raises(ValueError, match="max_passes"):
        tenants.purge(client, "acme", max_passes=passes)


@both
def test_purge_asks_for_pages(client: Client) -> None:
    """SCAN in pages of 1,000 with the prefix, and no command names more keys than that."""
    client.mset({f"acme:{number}": "x" for number in range(12_000)})
    client.config_resetstat()
    with client.monitor() as monitor:
        report = tenants.purge(client, "acme")
        client.echo("done")
        commands = []
        for entry in monitor.listen():
            if entry["command"] == "ECHO done":
                break
            commands.append(entry["command"].split(" "))
    assert report.keys == 12_000
    scans = [words for words in commands if words[0] == "SCAN"]
    assert {tuple(words[2:]) for words in scans} == {("MATCH", "acme:*", "COUNT", "1000")}
    unlinked = [len(words) - 1 for words in commands if words[0] == "UNLINK"]
    assert sum(unlinked) == 12_000
    assert max(unlinked) <= 1000
    assert len(unlinked) <= 26


def test_purge_counts_what_expires_meanwhile_once(client: Client) -> None:
    """A key that has gone between the page and its removal is not counted as removed."""
    client.mset({"acme:1": "x", "acme:2": "x"})

    def race(report: tenants.PurgeReport) -> None:
        client.delete("acme:1")

    report = tenants.purge(client, "acme", on_progress=race)
    assert report.keys == 1
    assert report.remaining == 0


# --- export --------------------------------------------------------------------------------------------


def test_export_writes_lines_that_anybody_can_read(client: Client, tmp_path: Path) -> None:
    """A header, a line per key with its dump in base64 and its time to live, a trailer."""
    own = fill(client)
    path = tmp_path / "acme.ndjson"
    report = tenants.export(client, "acme", path)
    head, *entries, end = [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]
    assert head == {"tenantry": "export", "version": 1, "tenant": "acme", "prefix": "acme:"}
    assert end["keys"] == report.keys == len(own)
    found = {
        e["key"].encode() if "key" in e else base64.b64decode(e["key_base64"]): base64.b64decode(e["dump"])
        for e in entries
    }
    assert found == own
    assert report.bytes == sum(len(dump or b"") for dump in own.values())
    assert (report.passes, report.dry_run) == (1, False)
    ttls = {e.get("key", "binary"): e["pttl"] for e in entries}
    assert ttls["acme:hash"] == -1
    assert 0 < ttls["binary"] <= 600_000
    assert {e["type"] for e in entries} == {"string", "hash", "list", "set", "zset", "stream"}


def test_export_takes_text_and_binary_files(client: Client, tmp_path: Path) -> None:
    """A path as text or object, files of both modes."""
    fill(client)
    text = io.StringIO()
    tenants.export(client, "acme", text)
    for target in (str(tmp_path / "a"), tmp_path / "b"):
        tenants.export(client, "acme", target)
        assert len(Path(target).read_text().splitlines()) == len(text.getvalue().splitlines()) == 39


def test_export_file_is_private_and_whole_or_absent(client: Client, tmp_path: Path) -> None:
    """A path appears when the export is complete, readable by its owner alone."""
    fill(client)
    path = tmp_path / "acme.ndjson"

    def fail(report: tenants.Report) -> None:
        assert not path.exists()
        raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError, match="disk on fire"):
        tenants.export(client, "acme", path, on_progress=fail)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "acme.ndjson.partial").write_text("of a run that was killed")
    tenants.export(client, "acme", path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_export_file_is_on_disk_before_it_has_its_name(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that goes down leaves a whole file under the name, or none."""
    fill(client)
    path = tmp_path / "acme.ndjson"
    synced: list[tuple[int, bool]] = []
    sync = os.fsync

    def fsync(descriptor: int) -> None:
        sync(descriptor)
        synced.append((os.fstat(descriptor).st_size, path.exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    tenants.export(client, "acme", path)
    assert synced == [(path.stat().st_size, False)]


def test_export_keeps_the_old_file_when_it_fails(client: Client, tmp_path: Path) -> None:
    """Yesterday's export is not lost to today's failure."""
    fill(client)
    path = tmp_path / "acme.ndjson"
    path.write_text("yesterday")
    with (
        redis.Redis(port=1, retry=Retry(NoBackoff(), 0)) as nowhere,
        pytest.raises(redis.ConnectionError, match="refused"),
    ):
        tenants.export(nowhere, "acme", path)
    assert path.read_text() == "yesterday"

    def fail(report: tenants.Report) -> None:
        assert path.read_text() == "yesterday"
        raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError, match="disk on fire"):
        tenants.export(client, "acme", path, on_progress=fail)
    assert path.read_text() == "yesterday"
    assert list(tmp_path.iterdir()) == [path]


def test_export_dry_run_writes_no_file(client: Client, tmp_path: Path) -> None:
    """A rehearsal counts, and leaves the target alone."""
    own = fill(client)
    report = tenants.export(client, "acme", tmp_path / "x", dry_run=True)
    assert (report.keys, report.dry_run, report.passes) == (len(own), True, 1)
    assert report.bytes == sum(map(len, own.values()))
    assert not list(tmp_path.iterdir())


def test_export_to_a_pipe(client: Client, tmp_path: Path) -> None:
    """What is no regular file is written to, not replaced."""
    client.set("acme:1", "x")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        tenants.export(client, "acme", fifo)
        assert os.read(reader, 65536).count(b"\n") == 3
    finally:
        os.close(reader)


def test_export_holds_few_values_in_memory(client: Client) -> None:
    """Forty values of a megabyte pass through a few megabytes."""
    for number in range(40):
        client.set(f"acme:{number}", os.urandom(1 << 20))

    class Sink:
        size = 0

        def write(self, data: bytes) -> int:
            self.size += len(data)
            return len(data)

    sink = Sink()
    tracemalloc.start()
    try:
        tenants.export(client, "acme", sink)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sink.size > 40 << 20
    assert peak < 30 << 20


def test_export_leaves_out_what_has_gone_since_the_page(client: Client) -> None:
    """A key may expire between the page that names it and its DUMP."""
    client.set("acme:1", "x")
    found = operations._entries(Node(client), [b"acme:gone", b"acme:1"])
    assert [entry.key for entry in found] == [b"acme:1"]


def test_page_holds_nothing_that_the_prefix_does_not_own() -> None:
    """Whatever a server or proxy answers to MATCH, nobody else's key is removed, and none twice."""
    names = [b"acme:1", b"globex:1", b"acme:1", b"acme", b"acme2:1"]
    assert next_page([b"7", names], b"acme:") == (b"7", [b"acme:1"])
    assert next_page([b"0", names], None) == (None, [b"acme:1", b"globex:1", b"acme", b"acme2:1"])


# --- import --------------------------------------------------------------------------------------------


@both
def test_import_round_trip_is_byte_exact(client: Client) -> None:
    """What was exported and purged comes back, times to live included."""
    own = fill(client)
    data = exported(client)
    tenants.purge(client, "acme")
    report = tenants.import_(client, io.BytesIO(data))
    assert (report.keys, report.skipped, report.dry_run, report.passes) == (len(own), 0, False, 1)
    assert report.bytes == sum(map(len, own.values()))
    assert {key: client.dump(key) for key in client.scan_iter("acme:*")} == own
    assert 0 < client.pttl(BINARY) <= 600_000
    assert client.pttl("acme:hash") == -1


@both
def test_import_of_nothing_reports_nothing_on_its_way(client: Client) -> None:
    """A tenant without keys has an export too; no batch is no page."""
    reports: list[tenants.ImportReport] = []
    done = tenants.import_(client, io.BytesIO(exported(client)), on_progress=reports.append)
    assert (done, reports) == (tenants.ImportReport(passes=1), [])


@both
def test_import_under_another_tenant(client: Client) -> None:
    """Keys get the new prefix; the old tenant's stay where they are."""
    own = fill(client)
    report = tenants.import_(client, io.StringIO(exported(client).decode()), tenant_id="initech")
    assert report.keys == len(own)
    moved = {key.replace(b"acme:", b"initech:", 1): dump for key, dump in own.items()}
    assert {key: client.dump(key) for key in client.scan_iter("initech:*")} == moved
    assert len(left(client)) == 2 * len(own) + len(others())


def test_import_from_the_other_layout(client: Client) -> None:
    """A file of a process with tagged keys becomes plain keys: the way to change the layout."""
    client.set("acme:1", "value")
    file = io.BytesIO()
    writer = Writer(file)
    writer.header("acme", b"{acme}:")
    writer.entry(Entry(b"{acme}:session:1", "string", -1, client.dump("acme:1") or b""))
    writer.trailer()
    tenants.import_(client, io.BytesIO(file.getvalue()))
    assert client.get("acme:session:1") == b"value"
    assert not client.exists("{acme}:session:1")


@both
def test_import_never_overwrites_unasked(client: Client) -> None:
    """An existing key is left as it is and counted; replace=True overwrites it."""
    own = fill(client)
    data = exported(client)
    client.delete("acme:hash")
    client.set("acme:session:1", "newer")
    report = tenants.import_(client, io.BytesIO(data))
    assert (report.keys, report.skipped) == (1, len(own) - 1)
    assert client.get("acme:session:1") == b"newer"
    assert client.hgetall("acme:hash") == {b"a": b"1", b"b": b"2"}
    report = tenants.import_(client, io.BytesIO(data), replace=True)
    assert (report.keys, report.skipped) == (len(own), 0)
    assert client.get("acme:session:1") == b"state 1"


def test_import_dry_run_writes_nothing(client: Client) -> None:
    """A rehearsal judges the file and says what would be skipped."""
    own = fill(client)
    data = exported(client)
    client.delete("acme:hash")
    before = left(client)
    report = tenants.import_(client, io.BytesIO(data), dry_run=True)
    assert (report.keys, report.skipped, report.dry_run) == (1, len(own) - 1, True)
    assert tenants.import_(client, io.BytesIO(data), dry_run=True, replace=True).keys == len(own)
    assert tenants.import_(client, io.BytesIO(data), dry_run=True, tenant_id="initech").keys == len(own)
    assert left(client) == before


def test_import_goes_on_after_a_kill(client: Client) -> None:
    """A run that was ended half-way is finished by a second one."""
    client.mset({f"acme:{number}": str(number) for number in range(1200)})
    data = exported(client)
    tenants.purge(client, "acme")

    def stop(report: tenants.ImportReport) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tenants.import_(client, io.BytesIO(data), on_progress=stop)
    done = len(left(client))
    assert 0 < done < 1200
    report = tenants.import_(client, io.BytesIO(data))
    assert (report.keys, report.skipped) == (1200 - done, done)
    assert len(left(client)) == 1200


def _cuts(data: bytes) -> list[bytes]:
    lines = data.splitlines(keepends=True)
    return [
        b"",
        data[:-1],
        data[: len(data) // 2],
        b"".join(lines[:-1]),
        b"".join(lines[:1]),
        lines[0] + lines[-1],
        b"".join([*lines[:3], *lines[4:]]),
        b"".join([*lines[:3], lines[2], *lines[3:]]),
        b"".join([*lines, lines[2]]),
        data + b"\n",
        data + data,
        b"".join(lines[1:]),
        b"".join(reversed(lines)),
    ]


def test_import_judges_the_whole_file_before_it_writes(client: Client) -> None:
    """A file of several batches whose last line is missing: not even the first batch is written."""
    client.mset({f"acme:{number}": "x" for number in range(1200)})
    lines = exported(client).splitlines(keepends=True)
    client.flushall()
    for bad in (b"".join(lines[:-1]), b"".join(lines).replace(b'"sha256": "', b'"sha256": "0')):
        with pytest.raises(ExportFileError, match="line 1202"):
            tenants.import_(client, io.BytesIO(bad))
        assert not left(client)


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        *enumerate(
            [
                "line 1: the file is empty",
                "line 39: the file is cut: the line does not end",
                "the file is cut: the line does not end",
                "line 39: the file is cut: it has no last line",
                "line 2: the file is cut: it has no last line",
                "line 2: the export says 37 keys and the file holds 0",
                "line 38: the export says 37 keys and the file holds 36",
                "line 40: the export says 37 keys and the file holds 38",
                "line 40: there is more after the last line",
                "line 40: there is more after the last line",
                "line 40: there is more after the last line",
                "line 1: this is no first line",
                "line 1: this is no first line",
            ]
        )
    ],
)
def test_import_of_a_cut_or_changed_file_writes_nothing(client: Client, number: int, reason: str) -> None:
    """Cut, joined, shuffled or repeated lines are found out before the first key is written."""
    fill(client)
    bad = _cuts(exported(client))[number]
    client.flushall()
    with pytest.raises(ExportFileError, match=reason) as caught:
        tenants.import_(client, io.BytesIO(bad))
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, TenancyError)
    assert pickle.loads(pickle.dumps(caught.value)).args == (caught.value.line, caught.value.reason)
    assert not left(client)


@pytest.mark.parametrize("line", [b"[1]\n", b"7\n", b"[" * 100_000 + b"\n", b"\xff\n"])
def test_import_of_what_is_no_object_says_so(client: Client, line: bytes) -> None:
    """Whatever JSON or no JSON stands there."""
    with pytest.raises(ExportFileError, match="line 1: this is no"):
        tenants.import_(client, io.BytesIO(line))


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b'"acme:session:7"', b'"globex:session:7"', "does not belong to the tenant"),
        (b'"acme:session:7"', b'"acme2:session:7"', "does not belong to the tenant"),
        (b'"acme:session:7"', b'"%shared:x"', "does not belong to the tenant"),
        (b'"acme:session:7"', b"7", "key is not text"),
        (b'"acme:session:7"', b'"acme:\\ud800"', "key is not text"),
        (b'"acme:session:7"', b'"acme:session:8"', "line 39: the file was changed"),
        (b'"tenantry": "export"', b'"tenantry": "x"', "line 1: this is no first line"),
        (b'"tenant": "acme"', b'"tenant": "globex"', "line 1: the prefix 'acme:' is not that of"),
        (b'"tenant": "acme"', b'"tenant": "a*"', "line 1: the export names no tenant"),
        (b'"tenant": "acme"', b'"tenant": null', "line 1: the export names no tenant"),
        (b'"prefix": "acme:"', b'"prefix": ""', "line 1: the prefix '' is not that of"),
        (b'"prefix": "acme:"', b'"prefix": "acme"', "line 1: the prefix 'acme' is not"),
        (b'"version": 1', b'"version": 2', "line 1: unknown version 2"),
        (b'"version": 1', b'"version": true', "line 1: unknown version True"),
        (b'"version": 1, ', b"", "line 1: unknown version None"),
        (b'"pttl": -1', b'"pttl": -2', "pttl is milliseconds or -1, not -2"),
        (b'"pttl": -1', b'"pttl": true', "pttl is milliseconds or -1, not True"),
        (b'"pttl": -1', b'"pttl": 1.5', r"pttl is milliseconds or -1, not 1\.5"),
        (b'"type": "hash"', b'"type": 1', "type is text, not 1"),
        (b'"dump": "', b'"dump": "!', "dump is not base64"),
        (b'"dump": "', b'"dump": 7, "x": "', "dump is not base64"),
        (b'"dump": "', b'"dmp": "', "dump is empty"),
        (b'"dump": "', b'"dump": "", "x": "', "dump is empty"),
        (b'"pttl": -1', b'"pttl": 9223372036854775807', "pttl is milliseconds or -1"),
        (b'{"key"', b'["key"', "this is not JSON"),
        (b'{"end": true', b'{"end": true, "x": 1', "line 39: the file was changed"),
        (b'"keys": 37', b'"keys": 36', "line 39: the export says 36 keys and the file holds 37"),
        (b'"keys": 37', b'"keys": 37.5', r"line 39: the export says 37\.5 keys"),
        (b'"sha256": "', b'"sha256": "0', "line 39: the file was changed"),
    ],
    ids=str,
)
def test_import_of_foreign_or_malformed_lines_writes_nothing(
    client: Client, old: bytes, new: bytes, reason: str
) -> None:
    """One line that is not the tenant's, or not of the format, spoils the file before it is used."""
    fill(client)
    data = exported(client)
    assert old in data
    client.flushall()
    with pytest.raises(ExportFileError, match=reason) as caught:
        tenants.import_(client, io.BytesIO(data.replace(old, new, 1)))
    lines = data.splitlines()
    assert caught.value.line in (39, *(number for number, line in enumerate(lines, 1) if old in line))
    assert not left(client)


def test_refusal_of_a_key_does_not_show_it(client: Client) -> None:
    """A file of another tenant may be in the wrong hands."""
    fill(client)
    for name in (b"7", b'"acme:\\ud800"', b'"globex:secret"'):
        data = exported(client).replace(b'"acme:session:7"', name, 1)
        with pytest.raises(ExportFileError) as caught:
            tenants.import_(client, io.BytesIO(data))
        assert "acme:" not in str(caught.value)
        assert "secret" not in str(caught.value)


def test_import_refuses_a_foreign_line_in_a_well_formed_file(client: Client) -> None:
    """Whoever can compute the sum cannot smuggle: the key itself is judged."""
    client.set("acme:1", "x")
    file = io.BytesIO()
    writer = Writer(file)
    writer.header("acme", b"acme:")
    writer.entry(Entry(b"acme:1", "string", -1, client.dump("acme:1") or b""))
    writer.entry(Entry(b"globex:1", "string", -1, client.dump("acme:1") or b""))
    writer.trailer()
    client.flushall()
    with pytest.raises(ExportFileError, match="line 3: the key does not belong"):
        tenants.import_(client, io.BytesIO(file.getvalue()), tenant_id="initech")
    assert not left(client)


@both
def test_import_names_the_line_that_the_server_refuses(client: Client) -> None:
    """A value that this server cannot read: the error says which."""
    file = io.BytesIO()
    writer = Writer(file)
    writer.header("acme", b"acme:")
    writer.entry(Entry(b"acme:1", "string", -1, b"no dump"))
    writer.trailer()
    with pytest.raises(ExportFileError, match="line 2: the server refuses"):
        tenants.import_(client, io.BytesIO(file.getvalue()))
    assert not left(client)


def test_import_errors_never_show_the_foreign_key(client: Client) -> None:
    """A message is no place for another tenant's data."""
    client.set("acme:1", "x")
    data = exported(client).replace(b'"acme:1"', b'"globex:secret"')
    with pytest.raises(ExportFileError) as caught:
        tenants.import_(client, io.BytesIO(data))
    assert "secret" not in str(caught.value)


def test_import_gives_a_last_millisecond(client: Client) -> None:
    """A time to live of 0 does not become one of for ever."""
    client.set("acme:1", "x")
    file = io.BytesIO()
    writer = Writer(file)
    writer.header("acme", b"acme:")
    writer.entry(Entry(b"acme:2", "string", 0, client.dump("acme:1") or b""))
    writer.trailer()
    tenants.import_(client, io.BytesIO(file.getvalue()))
    assert client.pttl("acme:2") != -1


def test_import_from_a_path_and_a_pipe(client: Client, tmp_path: Path) -> None:
    """A path is read where it is; what can be read once is copied first."""
    fill(client)
    path = tmp_path / "acme.ndjson"
    tenants.export(client, "acme", path)
    assert tenants.import_(client, path, tenant_id="a1").keys == 37
    assert tenants.import_(client, str(path), tenant_id="a2").keys == 37
    end, start = os.pipe()
    with os.fdopen(end, "rb") as reader, os.fdopen(start, "wb") as writer:
        writer.write(path.read_bytes())
        writer.close()
        assert tenants.import_(client, reader, tenant_id="a3").keys == 37
    with pytest.raises(FileNotFoundError, match="missing"):
        tenants.import_(client, tmp_path / "missing")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    thread = threading.Thread(target=fifo.write_bytes, args=[path.read_bytes()])
    thread.start()
    assert tenants.import_(client, fifo, tenant_id="a4").keys == 37
    thread.join()


# --- audit ---------------------------------------------------------------------------------------------


@both
def test_audit_finds_what_belongs_to_nobody(client: Client) -> None:
    """Keys without a tenant's prefix and undeclared shared keys; not the declared ones."""
    fill(client)
    orphans = {b"acme", b"{acme}:1", b"%shared:x", b"\xfe:1"}
    assert set(tenants.audit(client)) == orphans


def test_audit_of_a_decoding_client_yields_text(client: Client, url: str) -> None:
    """As the client itself would name them; what is no text stays bytes."""
    fill(client)
    with redis.Redis.from_url(url, decode_responses=True) as other:
        assert set(tenants.audit(other)) == {"acme", "{acme}:1", "%shared:x", b"\xfe:1"}


def test_audit_streams_and_reports(client: Client) -> None:
    """An iterator, lazily; the report counts what was looked at."""
    client.mset({f"orphan{number}": "x" for number in range(3000)} | {"acme:1": "x"})
    reports: list[tenants.AuditReport] = []
    found = tenants.audit(client, on_progress=reports.append, dry_run=True)
    assert not reports
    assert isinstance(next(found), bytes)
    assert len(reports) == 1
    rest = list(found)
    assert len(rest) == 2999
    assert reports[-1] == tenants.AuditReport(keys=3000, scanned=3001, passes=1, dry_run=True)


def test_audit_left_early_leaves_the_client_usable(client: Client) -> None:
    """A consumer that has seen enough."""
    client.mset({f"orphan{number}": "x" for number in range(3000)})
    for _ in tenants.audit(client):
        break
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert client.ping()


# --- slots that move --------------------------------------------------------------------------------


@pytest.fixture
def maps(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let the server tell these maps of its slots, one after the other, and the last for ever."""

    def tell(*told: int) -> None:
        left = list(told)
        monkeypatch.setattr(
            store._Single, "refresh", lambda _: left.pop(0) if len(left) > 1 else left[0], raising=True
        )

    return tell


@pytest.mark.parametrize(
    "run",
    [
        lambda client: tenants.usage(client, "acme"),
        lambda client: tenants.export(client, "acme", io.BytesIO()),
        lambda client: tenants.purge(client, "acme", dry_run=True),
        lambda client: list(tenants.audit(client)),
    ],
    ids=["usage", "export", "purge", "audit"],
)
def test_run_that_may_have_missed_keys_says_so(client: Client, maps: Any, run: Any) -> None:
    """Slots moved between its first look and its last."""
    fill(client)
    maps(1, 2)
    with pytest.raises(RuntimeError, match="slots of the cluster moved"):
        run(client)
    run(client)


def test_purge_takes_no_empty_pass_for_a_proof_when_slots_moved_meanwhile(client: Client, maps: Any) -> None:
    """It looks again, as often as it may."""
    maps(1, 2, 2)
    assert tenants.purge(client, "acme") == tenants.PurgeReport(passes=2)
    fill(client)
    maps(1, 1, 2, 2)
    report = tenants.purge(client, "acme")
    assert (report.keys, report.passes, report.remaining) == (37, 3, 0)
    maps(1, 2, 3, 4)
    with pytest.raises(RuntimeError, match="slots of the cluster moved"):
        tenants.purge(client, "acme", max_passes=3)
    fill(client)
    maps(1, 2)
    assert tenants.purge(client, "acme", max_passes=1).remaining == 37
