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
from typer.testing import CliRunner, Result

from tenantry.cli import app

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


def invoke(url: str, *words: str, answer: str | None = None) -> Result:
    return CliRunner().invoke(
        app, ["tenants", *words], input=answer, env={"REDIS_URL": url, "COLUMNS": "200"}
    )


def report(result: Result) -> dict[str, object]:
    found = json.loads(result.stdout.splitlines()[-1])
    assert isinstance(found, dict)
    return found


# --- usage ----------------------------------------------------------------------------------------


def test_usage_tells_people_and_programs(client: redis.Redis, url: str) -> None:
    """A line and a table for people, one JSON object for programs."""
    client.hset("acme:h", mapping={"a": "1"})
    result = invoke(url, "usage", "acme")
    assert result.exit_code == 0
    assert result.stdout.startswith("acme: 3 keys, ")
    assert "hash" in result.stdout
    found = report(invoke(url, "usage", "acme", "--json"))
    assert (found["operation"], found["tenant"], found["keys"]) == ("usage", "acme", 3)
    assert found["by_type"] == {"string": 2, "hash": 1}


def test_url_option_wins_over_the_environment(client: redis.Redis, url: str) -> None:
    """``--url`` is nearer than ``REDIS_URL``."""
    result = invoke("redis://127.0.0.1:1", "usage", "acme", "--url", url, "--json")
    assert report(result)["keys"] == 2


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


def test_purge_dry_run_asks_nothing_and_removes_nothing(client: redis.Redis, url: str) -> None:
    """A rehearsal is harmless, and no failure."""
    result = invoke(url, "purge", "acme", "--dry-run")
    assert result.exit_code == 0
    assert "would remove 2 keys" in result.stdout
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


def test_wrong_url_is_exit_status_2() -> None:
    """Not a failure of a server."""
    result = invoke("http://example.com", "usage", "acme")
    assert result.exit_code == 2
    assert "scheme" in result.stderr


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
    assert result.exit_code == 0
    assert "copied 2 keys" in result.stdout
    result = invoke(url, "import", file, "--tenant", "initech")
    assert result.exit_code == 0
    assert "wrote 2 keys" in result.stdout
    assert client.mget("initech:1", "initech:2") == ["a", "b"]


def test_export_asks_before_it_replaces_a_file(client: redis.Redis, url: str, tmp_path: Path) -> None:
    """Yesterday's file is destroyed only on request."""
    file = tmp_path / "acme.ndjson"
    file.write_text("yesterday")
    assert invoke(url, "export", "acme", str(file), answer="n\n").exit_code == 1
    assert file.read_text() == "yesterday"
    assert invoke(url, "export", "acme", str(file), "--yes", "--json").exit_code == 0
    assert len(file.read_text().splitlines()) == 4


def test_export_and_import_through_pipes(client: redis.Redis, url: str) -> None:
    """``-`` is stdout and stdin; nothing else is written to stdout."""
    result = invoke(url, "export", "acme", "-")
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 4
    client.delete("acme:1", "acme:2")
    done = invoke(url, "import", "-", "--json", answer=result.stdout)
    assert done.exit_code == 0, done.output
    assert report(done)["keys"] == 2
    assert invoke(url, "export", "acme", "-", "--json").exit_code == 2
    assert invoke(url, "import", "-", "--replace").exit_code == 2


def test_import_that_skips_is_exit_status_1(client: redis.Redis, url: str, tmp_path: Path) -> None:
    """Existing keys stay; with --replace and a yes they are overwritten."""
    file = str(tmp_path / "acme.ndjson")
    invoke(url, "export", "acme", file)
    client.set("acme:1", "newer")
    result = invoke(url, "import", file)
    assert result.exit_code == 1
    assert "2 keys" in result.stderr
    assert client.get("acme:1") == "newer"
    assert invoke(url, "import", file, "--replace", answer="n\n").exit_code == 1
    assert client.get("acme:1") == "newer"
    assert invoke(url, "import", file, "--replace", answer="y\n").exit_code == 0
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
    assert invoke(url, "audit").exit_code == 0
    client.mset({"orphan": "x", "new\nline": "x"})
    client.set(b"\xfe", "x")
    result = invoke(url, "audit")
    assert result.exit_code == 1
    assert set(result.stdout.splitlines()) == {"orphan", r"new\nline", r"\xfe"}
    lines = [json.loads(line) for line in invoke(url, "audit", "--json").stdout.splitlines()]
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
    words = [sys.executable, "-m", "tenantry", "tenants", "audit", "--url", url]
    assert subprocess.run(words, cwd=tmp_path, capture_output=True, timeout=60).returncode == 1
    done = subprocess.run([*words, "--import", "shop_keys"], cwd=tmp_path, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    done = subprocess.run(
        [*words, "--import", "shop_kyes"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 3
    assert "shop_kyes" in done.stderr


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
