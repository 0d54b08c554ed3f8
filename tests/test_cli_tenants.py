"""``tenantry tenants`` against a real server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from redis.sentinel import SentinelManagedConnection
from typer.testing import CliRunner, Result

from tenantry.cli import app, tenants
from tenantry.cli.tenants import Server
from tests import services

KEYS = {"acme:1": "a", "acme:2": "b", "globex:1": "c"}


@pytest.fixture
def client(valkey_url: str) -> Iterator[redis.Redis]:
    """A server with two tenants."""
    with redis.Redis.from_url(valkey_url, decode_responses=True) as found:
        found.flushall()
        found.mset(KEYS)
        yield found


@pytest.fixture
def url(valkey_url: str) -> str:
    return valkey_url


def invoke(url: str, *words: str, answer: str | None = None, **more: str) -> Result:
    return CliRunner().invoke(
        app, ["tenants", *words], input=answer, env={"REDIS_URL": url, "COLUMNS": "200", **more}
    )


@pytest.fixture
def fresh_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process in which no layout was chosen and no key built."""
    for name, value in {"_layout": "plain", "_is_chosen": False, "_is_frozen": False}.items():
        monkeypatch.setattr(f"tenantry.keys.layout.{name}", value)


def report(result: Result) -> dict[str, object]:
    found = json.loads(result.stdout.splitlines()[-1])
    assert isinstance(found, dict)
    return found


# --- usage ----------------------------------------------------------------------------------------


def test_usage_tells_people_and_programs(client: redis.Redis, url: str) -> None:
    """A line and a table for people, one JSON object for programs."""
    client.hset("acme:h", mapping={"a": "1"})
    client.rpush("acme:a-list", "x")
    client.zadd("acme:b", {"x": 1})
    client.sadd("acme:c", "x")
    client.xadd("acme:d", {"x": "y"})
    result = invoke(url, "usage", "acme")
    assert result.exit_code == 0
    assert result.stdout.startswith("acme: 7 keys, ")
    assert result.stdout.splitlines()[1:] == [
        "  string             2",
        "  hash               1",
        "  list               1",
        "  set                1",
        "  stream             1",
        "  zset               1",
    ]
    assert result.stderr == ""
    client.delete("acme:a-list", "acme:b", "acme:c", "acme:d")
    found = report(invoke(url, "usage", "acme", "--json"))
    assert (found["operation"], found["tenant"], found["keys"]) == ("usage", "acme", 3)
    assert found["by_type"] == {"string": 2, "hash": 1}


def test_url_option_wins_over_the_environment(client: redis.Redis, url: str) -> None:
    """``--url`` is nearer than ``REDIS_URL``."""
    result = invoke("redis://127.0.0.1:1", "usage", "acme", "--url", url, "--json")
    assert report(result)["keys"] == 2


def test_no_command_at_all_shows_the_help() -> None:
    """Whoever types half of it is told the rest."""
    result = invoke("redis://nowhere", "")
    assert result.exit_code == 2
    result = CliRunner().invoke(app, ["tenants"], env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert "purge" in result.output


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (0, "0 bytes"),
        (1023, "1,023 bytes"),
        (1024, "1.0 KiB"),
        (1536 * 1024, "1.5 MiB"),
        (1 << 30, "1.0 GiB"),
        (5 << 40, "5.0 TiB"),
        (1 << 50, "1,024.0 TiB"),
    ],
)
def test_sizes_are_told_in_units_that_people_read(size: int, shown: str) -> None:
    """Whole bytes, and a decimal of what is larger."""
    assert tenants._size(size) == shown


# --- where ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("server", "shown"),
    [
        (Server("redis://user:pw@host:1/3?password=pw"), "redis://host:1/3"),
        (Server("redis://:pw@host:2", sentinel="primary"), "the primary of 'primary' at redis://host:2"),
    ],
)
def test_server_is_named_without_its_password(server: Server, shown: str) -> None:
    """Questions and errors are read by others, too."""
    assert str(server) == shown


@pytest.mark.parametrize(
    ("url", "address", "has_tls"),
    [
        ("redis://s1:7/2", ("s1", 7), False),
        ("redis://?socket_timeout=3", ("127.0.0.1", 26379), False),
        ("rediss://:pw@s1?ssl_cert_reqs=none", ("s1", 26379), True),
    ],
)
def test_url_with_sentinel_names_the_sentinel(url: str, address: tuple[str, int], has_tls: bool) -> None:
    """Everything but the address is for the primary, and what makes a connection for both; nothing is asked."""
    with Server(url, sentinel="primary").connected() as found:
        pool = found.connection_pool
        (sentinel,) = pool.sentinel_manager.sentinels
    asked = sentinel.connection_pool.connection_kwargs
    assert (asked["host"], asked["port"], asked.get("password")) == (*address, None)
    assert (asked.get("socket_timeout") == 3) == ("socket" in url)
    assert asked.get("ssl_cert_reqs") == ("none" if has_tls else None)
    assert issubclass(sentinel.connection_pool.connection_class, redis.SSLConnection) == has_tls
    assert issubclass(pool.connection_class, SentinelManagedConnection)
    assert pool.service_name == "primary"
    assert pool.connection_kwargs.get("db", 0) == (2 if url.endswith("/2") else 0)
    assert issubclass(pool.connection_class, redis.SSLConnection) == has_tls


def test_sentinels_primary_and_clusters_are_reached() -> None:
    """By the same commands, with an option."""
    with services.redis_sentinel() as found:
        with redis.Redis(port=found.primary.port) as primary:
            primary.mset(KEYS)
        told = invoke(f"redis://127.0.0.1:{found.sentinel.port}", "usage", "acme", "--sentinel", "primary")
        assert told.stdout.startswith("acme: 2 keys")
    with services.redis_cluster() as nodes:
        with redis.RedisCluster(host="127.0.0.1", port=nodes[0].port) as cluster:
            for key in KEYS:
                cluster.set(key, "x")
        told = invoke(nodes[0].url, "usage", "acme", "--cluster")
        assert told.stdout.startswith("acme: 2 keys")
        told = invoke(nodes[0].url, "usage", "acme")
        assert (told.exit_code, told.stdout) == (3, "")
        assert "RedisCluster" in told.stderr


def test_connections_are_closed_when_the_command_is_done(client: redis.Redis, url: str) -> None:
    """Also where it fails."""
    before = client.info("clients")["connected_clients"]
    with Server(url).connected() as other:
        other.ping()
        pool = other.connection_pool
    with pytest.raises(ZeroDivisionError), Server(url).connected() as other:
        other.ping()
        raise ZeroDivisionError
    services.wait_until(lambda: client.info("clients")["connected_clients"] == before, "the server to see it")
    assert not [found for found in pool._available_connections if found._sock is not None]


# --- purge ----------------------------------------------------------------------------------------


def test_purge_asks_first(client: redis.Redis, url: str) -> None:
    """A no, silence or the end of input changes nothing; a yes removes."""
    for answer in ("n\n", "\n", None):
        result = invoke(url, "purge", "acme", answer=answer)
        assert result.exit_code == 1
        assert "Nothing was done" in result.stderr
        assert client.dbsize() == 3
    result = invoke(url, "purge", "acme", answer="y\n")
    assert result.exit_code == 0, result.output
    assert client.keys() == ["globex:1"]


def test_purge_yes_and_json(client: redis.Redis, url: str) -> None:
    """For scripts: no question, a report."""
    result = invoke(url, "purge", "acme", "--yes", "--json")
    assert result.exit_code == 0
    found = report(result)
    assert (found["keys"], found["remaining"], found["passes"], found["dry_run"]) == (2, 0, 2, False)
    assert (found["operation"], found["tenant"]) == ("purge", "acme")
    assert len(result.stdout.splitlines()) == 1


def test_purge_tells_what_it_did(client: redis.Redis, url: str) -> None:
    """How much, and in how many passes: the last one found nothing."""
    size = report(invoke(url, "usage", "acme", "--json"))["bytes"]
    result = invoke(url, "purge", "acme", "-y")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"acme: removed 2 keys ({size} bytes) in 2 passes\n"
    assert invoke(url, "purge", "acme", "--yes").stdout == "acme: removed 0 keys (0 bytes) in 1 pass\n"


def test_purge_that_cannot_prove_that_nothing_is_left_is_exit_status_1(client: redis.Redis, url: str) -> None:
    """The last pass allowed still found something, so somebody may be writing."""
    for more in ([], ["--json"]):
        client.mset(KEYS)
        result = invoke(url, "purge", "acme", "--yes", "--max-passes", "1", *more)
        assert result.exit_code == 1
        assert "The last pass still found 2 keys" in result.stderr
        assert client.keys() == ["globex:1"]
    assert "[default: 10]" in invoke(url, "purge", "--help").output


def test_purge_shows_its_passes_on_a_terminal(client: redis.Redis, url: str) -> None:
    """Keys so far, and which pass over the server's keys it is; one number tells how many those are."""
    client.config_resetstat()
    result = invoke(url, "purge", "acme", "--yes", FORCE_COLOR="1", TERM="xterm")
    assert result.exit_code == 0
    assert "Removing" in result.stderr
    assert "2, pass 2" in result.stderr
    assert client.info("commandstats")["cmdstat_dbsize"]["calls"] == 1


@pytest.mark.usefixtures("fresh_layout")
def test_bar_has_no_total_where_the_server_looks_at_one_tenants_keys(client: redis.Redis, url: str) -> None:
    """Tagged keys: the number of all keys says nothing."""
    client.set("{acme}:1", "x")
    client.config_resetstat()
    result = invoke(url, "usage", "acme", "--layout", "tagged", FORCE_COLOR="1", TERM="xterm")
    assert result.stdout.startswith("acme: 1 key,")
    assert "Counting" in result.stderr
    assert "pass" not in result.stderr
    assert "cmdstat_dbsize" not in client.info("commandstats")
    assert invoke(url, "usage", "acme", "--layout", "tagged").exit_code == 2, "chosen once in a process"


def test_purge_dry_run_asks_nothing_and_removes_nothing(client: redis.Redis, url: str) -> None:
    """A rehearsal is harmless, and no failure."""
    result = invoke(url, "purge", "acme", "--dry-run")
    assert result.exit_code == 0
    assert "would remove 2 keys" in result.stdout
    assert "pass" not in result.stdout
    assert result.stderr == ""
    assert client.dbsize() == 3


@pytest.mark.parametrize("bad", ["*", "a*", "acme:", "none", "a b", "{acme}"])
def test_wrong_id_is_exit_status_2(client: redis.Redis, url: str, bad: str) -> None:
    """A pattern for an id is refused before anything is asked of the server."""
    for words in (
        ["purge", bad, "--yes"],
        ["usage", bad],
        ["export", bad, "-"],
        ["import", "-", "--tenant", bad],
    ):
        result = invoke(url, *words)
        assert result.exit_code == 2
        assert "tenant id" in result.stderr
    assert client.dbsize() == 3


@pytest.mark.parametrize(
    ("url", "why", "options"),
    [
        ("http://example.com", "scheme", []),
        ("redis://:sec/ret@127.0.0.1:1/0", "cannot be read", []),
        ("redis://:12/sec@ret:1/0", "names no host", []),
        ("redis://user:12/sec@ret:1/0", "its path is no number", []),
        ("redis://:12#sec@ret:1/0", "names no host", []),
        ("redis://sec@ret:1#/0", "names no host", []),
        ("redis://:12?sec@ret:1/0", "cannot be read", []),
        ("redis://:12?sec=ret@h:1/0", "names no host", []),
        ("redis://[::1", "cannot be read", []),
        ("redis://h:99999", "cannot be read", []),
        ("redis://h:1/sec", "its path is no number", []),
        ("redis://h:1/0/1", "its path is no number", []),
        ("redis://h:1/0?sec=1", "has an option", []),
        ("redis://h:1/0?socket_timeout=sec", "socket_timeout", ["--cluster"]),
        ("redis://h:1/0?socket_timeout=sec", "socket_timeout", []),
        ("redis://h:1/0?sec=1", "has an option", ["--sentinel", "primary"]),
        ("unix:///tmp/sec", "name a host", ["--sentinel", "primary"]),
        ("unix:///tmp/sec", "name a host", ["--cluster"]),
        ("redis://h:1", "a cluster has no sentinel", ["--sentinel", "primary", "--cluster"]),
    ],
)
@pytest.mark.parametrize("command", ["usage", "purge", "export"])
def test_wrong_url_is_exit_status_2(
    command: str, url: str, why: str, options: list[str], tmp_path: Path
) -> None:
    """Before a question, no failure of a server, and no part of what may be a password is shown."""
    file = [str(tmp_path / "file")] if command == "export" else []
    result = invoke(url, command, "acme", *file, *options, answer="n\n")
    told = " ".join(result.stderr.replace("│", " ").split())
    assert result.exit_code == 2
    assert why in told
    assert "[y/N]" not in told
    assert "ret" not in told
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    "url", ["redis://", "redis:///0", "redis://?socket_timeout=1", "unix://u:p@/tmp/s?db=1"]
)
def test_url_may_leave_the_server_to_redis_py(url: str) -> None:
    """If it names nothing at all."""
    with Server(url).connected():
        pass


def test_url_of_a_cluster_may_have_options_of_its_client() -> None:
    """Which no connection takes."""
    Server("redis://h:1?read_from_replicas=true", cluster=True)


@pytest.mark.parametrize("is_cluster", [False, True])
def test_cluster_that_cannot_be_reached_is_exit_status_3(url: str, is_cluster: bool) -> None:
    """Its errors are of a kind of their own."""
    result = invoke(url if is_cluster else "redis://127.0.0.1:1", "usage", "acme", "--cluster")
    assert result.exit_code == 3
    assert "Traceback" not in result.output


@pytest.mark.parametrize("code", ["raise KeyError('shop')", "1 / 0", "raise SystemError"])
def test_module_that_cannot_be_imported_is_exit_status_3(
    client: redis.Redis, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    """Not 1, which means that there are keys of nobody."""
    (tmp_path / "broken_keys.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for module in ("broken_keys", ".relative"):
        result = invoke(url, "audit", "--import", module)
        assert (result.exit_code, result.stdout) == (3, "")
        assert f"--import {module}: " in result.stderr


def test_unreachable_server_is_exit_status_3_and_shows_no_password() -> None:
    """One line, no traceback, no secret, not even in the question."""
    result = invoke("redis://user:hunter2@127.0.0.1:1/3", "purge", "acme", answer="y\n")
    assert result.exit_code == 3
    assert "127.0.0.1:1/3" in result.stderr
    assert "hunter2" not in result.output
    assert "Traceback" not in result.output


# --- export and import ------------------------------------------------------------------------------


def test_export_and_import_move_a_tenant(client: redis.Redis, url: str, tmp_path: Path) -> None:
    """Out of one tenant, into another."""
    file = str(tmp_path / "acme.ndjson")
    result = invoke(url, "export", "acme", file)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("acme: copied 2 keys (")
    assert result.stdout.endswith(f" of values) to {file}\n")
    before = client.keys()
    rehearsed = invoke(url, "import", file, "--tenant", "initech", "--dry-run")
    assert rehearsed.stdout.startswith(f"{file}: would write 2 keys (")
    assert client.keys() == before
    result = invoke(url, "import", file, "--tenant", "initech")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith(f"{file}: wrote 2 keys (")
    assert client.mget("initech:1", "initech:2") == ["a", "b"]


def test_export_asks_before_it_replaces_a_file(client: redis.Redis, url: str, tmp_path: Path) -> None:
    """Yesterday's file is destroyed only on request."""
    file = tmp_path / "acme.ndjson"
    file.write_text("yesterday")
    assert invoke(url, "export", "acme", str(file), answer="n\n").exit_code == 1
    assert file.read_text() == "yesterday"
    rehearsed = invoke(url, "export", "acme", str(file), "--dry-run")
    assert rehearsed.stdout.startswith("acme: would copy 2 keys (")
    assert (rehearsed.exit_code, rehearsed.stderr, file.read_text()) == (0, "", "yesterday")
    result = invoke(url, "export", "acme", str(file), "--yes", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    found = report(result)
    assert (found["operation"], found["tenant"], found["file"], found["keys"]) == (
        "export", "acme", str(file), 2,
    )  # fmt: skip
    assert len(file.read_text().splitlines()) == 4


def test_export_and_import_through_pipes(
    client: redis.Redis, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``-`` is stdout and stdin, also where a file is called so; nothing else is written to stdout."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-").write_text("a file")
    result = invoke(url, "export", "acme", "-")
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 4
    assert result.stderr.startswith("acme: copied 2 keys (")
    client.delete("acme:1", "acme:2")
    done = invoke(url, "import", "-", "--json", answer=result.stdout)
    assert (done.exit_code, done.stderr) == (0, "")
    found = report(done)
    assert (found["operation"], found["tenant"], found["file"], found["keys"]) == ("import", None, "-", 2)
    refused = invoke(url, "export", "acme", "-", "--json")
    assert refused.exit_code == 2
    assert "--json" in refused.stderr
    assert report(invoke(url, "export", "acme", "-", "--json", "--dry-run"))["keys"] == 2
    refused = invoke(url, "import", "-", "--replace", answer=result.stdout)
    assert refused.exit_code == 2
    assert "--yes" in refused.stderr
    for more in ("--yes", "--dry-run"):
        assert invoke(url, "import", "-", "--replace", more, answer=result.stdout).exit_code == 0


def test_import_that_skips_is_exit_status_1(client: redis.Redis, url: str, tmp_path: Path) -> None:
    """Existing keys stay; with --replace and a yes they are overwritten."""
    file = str(tmp_path / "acme.ndjson")
    invoke(url, "export", "acme", file)
    client.set("acme:1", "newer")
    result = invoke(url, "import", file)
    assert result.exit_code == 1
    assert "2 keys" in result.stderr
    assert client.get("acme:1") == "newer"
    for more, whose in (([], "of the tenant that was exported"), (["--tenant", "acme"], "of 'acme'")):
        result = invoke(url, "import", file, "--replace", *more, answer="n\n")
        assert result.exit_code == 1
        assert f"Overwrite keys {whose} in redis://" in result.stderr
    assert client.get("acme:1") == "newer"
    result = invoke(url, "import", file, "--replace", answer="y\n")
    assert result.exit_code == 0
    assert "Left as they are" not in result.stderr
    assert client.get("acme:1") == "a"


def test_import_of_a_cut_file_is_exit_status_3(client: redis.Redis, url: str, tmp_path: Path) -> None:
    """The line is named and nothing is written."""
    file = tmp_path / "acme.ndjson"
    invoke(url, "export", "acme", str(file))
    file.write_bytes(file.read_bytes()[:-10])
    result = invoke(url, "import", str(file), "--tenant", "initech")
    assert result.exit_code == 3
    assert "line 4" in result.stderr
    assert client.dbsize() == 3
    assert invoke(url, "import", str(tmp_path / "missing")).exit_code == 3


# --- audit ------------------------------------------------------------------------------------------


def test_audit_lists_orphans(client: redis.Redis, url: str) -> None:
    """Exit status 0 when every key belongs to somebody, 1 otherwise; one key a line."""
    result = invoke(url, "audit")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "0 keys of nobody among 3\n")
    client.mset({"orphan": "x", "new\nline": "x"})
    client.set(b"\xfe", "x")
    result = invoke(url, "audit")
    assert result.exit_code == 1
    assert set(result.stdout.splitlines()) == {"orphan", r"new\nline", r"\xfe"}
    assert result.stderr == "3 keys of nobody among 6\n"
    lines = [json.loads(line) for line in invoke(url, "audit", "--json").stdout.splitlines()]
    shown = invoke(url, "audit", FORCE_COLOR="1", TERM="xterm").stderr
    assert "Looking" in shown
    assert "3" in shown.partition("Looking")[2]
    assert {"key": "new\nline"} in lines
    assert {"key_base64": "/g=="} in lines
    assert (lines[-1]["operation"], lines[-1]["keys"], lines[-1]["scanned"]) == ("audit", 3, 6)


def test_audit_knows_declared_shared_keys(client: redis.Redis, url: str, tmp_path: Path) -> None:
    """``--import`` brings the declarations of the application."""
    (tmp_path / "shop_keys.py").write_text(
        "from tenantry.keys import shared_key\n"
        "@shared_key('shop-flags:{name}', reason='flags')\ndef flag(name: str) -> str: ...\n"
    )
    client.set("%shared:shop-flags:beta", "x")
    assert invoke(url, "audit").exit_code == 1
    words = [sys.executable, "-m", "tenantry", "tenants", "audit", "--url", url]
    assert subprocess.run(words, cwd=tmp_path, capture_output=True, timeout=60).returncode == 1
    done = subprocess.run([*words, "--import", "shop_keys"], cwd=tmp_path, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    done = subprocess.run(
        [*words, "--import", "shop_kyes"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 3
    assert "shop_kyes" in done.stderr


def test_audit_imports_from_the_directory_where_it_runs(
    client: redis.Redis, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First of all, as ``python -m`` does: the script's own directory may hold another of that name."""
    for number, folder in enumerate((tmp_path / "elsewhere", tmp_path / "here")):
        folder.mkdir()
        (folder / "audited_keys.py").write_text(
            "from tenantry.keys import shared_key\n"
            f"@shared_key('audited-{number}:{{name}}', reason='x')\ndef flag(name: str) -> str: ...\n"
        )
    monkeypatch.setattr(sys, "path", [str(tmp_path / "elsewhere"), *sys.path])
    monkeypatch.chdir(tmp_path / "here")
    client.set("%shared:audited-1:x", "x")
    assert invoke(url, "audit").exit_code == 1
    result = invoke(url, "audit", "--import", "audited_keys")
    sys.modules.pop("audited_keys", None)
    assert result.exit_code == 0, result.output


# --- layout and signals -------------------------------------------------------------------------------


def test_layout_is_chosen_by_option_or_environment(client: redis.Redis, url: str) -> None:
    """Tagged keys are another prefix altogether."""
    client.mset({"{acme}:1": "x", "{acme}:2": "x", "{acme}:3": "x"})
    words = [sys.executable, "-m", "tenantry", "tenants", "usage", "acme", "--json", "--url", url]
    environment = {**os.environ, "TENANTRY_LAYOUT": "tagged"}
    for more, env in ((["--layout", "tagged"], None), ([], environment)):
        done = subprocess.run([*words, *more], capture_output=True, timeout=60, env=env)
        assert json.loads(done.stdout)["keys"] == 3
    assert invoke(url, "usage", "acme", "--layout", "round").exit_code == 2


@pytest.mark.usefixtures("fresh_layout")
def test_plain_layout_may_be_named(client: redis.Redis, url: str) -> None:
    """Though it is what there is anyway."""
    client.set("{acme}:1", "x")
    result = invoke(url, "usage", "acme", "--layout", "plain")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("acme: 2 keys, ")


def test_interrupt_is_exit_status_130(client: redis.Redis, url: str) -> None:
    """Ctrl-C ends a purge between two pages, and says that it can be run again."""
    client.mset({f"acme:{number}": "x" for number in range(5000)})
    program = (
        "import os, signal, sys\n"
        "from tenantry.integrations.redis.tenants import store\n"
        "run = store.Node.run\n"
        "def slow(self, commands, **options):\n"
        "    replies = run(self, commands, **options)\n"
        "    if commands and commands[0][0] == b'MEMORY': os.kill(os.getpid(), signal.SIGINT)\n"
        "    return replies\n"
        "store.Node.run = slow\n"
        "sys.argv = ['tenantry', 'tenants', 'purge', 'acme', '--yes', '--url', sys.argv[1]]\n"
        "from tenantry.cli import main\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", program, url], capture_output=True, text=True, timeout=60)
    assert done.returncode == 130, done.stderr
    assert "run the command again" in done.stderr
    assert 0 < client.dbsize() < 5001
    assert invoke(url, "purge", "acme", "--yes").exit_code == 0
    assert client.keys() == ["globex:1"]
