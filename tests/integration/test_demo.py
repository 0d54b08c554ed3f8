"""``make demo``: it holds, it ends, it leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import redis

from tests import services

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DEMO = ROOT / "examples" / "konstruct" / "demo.py"


@contextmanager
def _demo(folder: Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """The demo in a session of its own; whatever it left is killed, so that one failure is one."""
    inherited = {name: value for name, value in os.environ.items() if name != "REDIS_URL"}
    process = subprocess.Popen(
        [sys.executable, str(DEMO)],
        env={**inherited, "PYTHONUNBUFFERED": "1", "TMPDIR": str(folder), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def _left(folder: Path) -> list[str]:
    """What the demo left, but for the lock that everybody shares who starts this PostgreSQL."""
    return [path.name for path in folder.iterdir() if path.name != ".lockfile"]


def _excerpt() -> list[str]:
    """What the README says that the demo prints."""
    found = re.search(r"```text\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return [line for line in found[1].splitlines() if line.strip()]


def test_demo_holds_on_a_server_of_ones_own_and_leaves_it_empty(tmp_path: Path) -> None:
    """With REDIS_URL every check holds, and both databases are as empty as before."""
    with services.redis_server() as server:
        with _demo(tmp_path, REDIS_URL=server.url) as demo:
            output, _ = demo.communicate(timeout=150)
        assert demo.returncode == 0, output
        assert "Every check held" in output
        assert output.count("without: ") == output.count(" with: ") == 11
        assert set(_excerpt()) <= set(output.splitlines())
        with redis.Redis.from_url(server.url) as client:
            assert client.info("keyspace") == {}
    assert _left(tmp_path) == []


def test_demo_refuses_a_database_that_is_in_use(tmp_path: Path) -> None:
    """It touches no key of somebody else's."""
    with services.redis_server() as server, redis.Redis.from_url(server.url) as client:
        client.set("acme:precious", "1")
        with _demo(tmp_path, REDIS_URL=server.url) as demo:
            output, _ = demo.communicate(timeout=60)
        assert demo.returncode == 1
        assert "holds 1 keys" in output
        assert client.get("acme:precious") == b"1"


@pytest.mark.parametrize(
    ("moment", "signum", "status"),
    [
        ("Starting", signal.SIGINT, 130),
        ("valkey 9", signal.SIGINT, 130),
        ("uvicorn at", signal.SIGTERM, 143),
        ("a request without", signal.SIGINT, 130),
    ],
)
def test_demo_interrupted_leaves_nothing(tmp_path: Path, moment: str, signum: int, status: int) -> None:
    """Whenever it is stopped, every process ends and every file is gone."""
    with _demo(tmp_path) as demo:
        for line in demo.stdout:
            if moment in line:
                break
        family = psutil.Process(demo.pid).children(recursive=True)
        demo.send_signal(signum)
        output, _ = demo.communicate(timeout=60)
        _, alive = psutil.wait_procs(family, timeout=10)
        assert demo.returncode == status, output
        assert not alive
    assert _left(tmp_path) == []
