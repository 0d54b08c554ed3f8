"""redis-py's own suite on clients of a tenant: with the guard the same tests pass as without it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests import services
from tests.upstream.sources import unpacked

pytestmark = [pytest.mark.deep, pytest.mark.timeout(3600)]

HERE = Path(__file__).parent
WAYS = ("rewritten", "guarded", "unchanged")
FILES = ("test_commands", "test_pipeline", "test_lock", "test_scripting", "test_pubsub")
# What the guard refuses and tests of redis-py's use: they configure, watch or empty the server, or change
# who or where a connection is.
DENIED = frozenset(
    " ".join(line.split())
    for line in """
    AUTH, DBSIZE, FLUSHALL, FLUSHDB, INFO, KEYS, LASTSAVE, MONITOR, QUIT, RANDOMKEY, REPLICAOF, RESET, ROLE,
    SELECT, ACL CAT, ACL DELUSER, ACL DRYRUN, ACL GENPASS, ACL GETUSER, ACL HELP, ACL LIST, ACL LOG,
    ACL SETUSER, ACL USERS, ACL WHOAMI, CLIENT GETREDIR, CLIENT INFO, CLIENT KILL, CLIENT LIST,
    CLIENT NO-EVICT, CLIENT NO-TOUCH, CLIENT PAUSE, CLIENT REPLY, CLIENT TRACKING, CLIENT TRACKINGINFO,
    CLIENT UNBLOCK, CLIENT UNPAUSE, CLUSTER ADDSLOTS, CLUSTER COUNT-FAILURE-REPORTS,
    CLUSTER COUNTKEYSINSLOT, CLUSTER DELSLOTS, CLUSTER FAILOVER, CLUSTER FORGET, CLUSTER INFO, CLUSTER MEET,
    CLUSTER REPLICATE, CLUSTER RESET, CLUSTER SAVECONFIG, CLUSTER SETSLOT, CLUSTER SLAVES, CONFIG GET,
    CONFIG SET, LATENCY HISTORY, LATENCY LATEST, LATENCY RESET, MEMORY MALLOC-STATS, MEMORY STATS, MODULE LIST,
    PUBSUB NUMPAT, SCRIPT FLUSH, SLOWLOG LEN, SLOWLOG RESET
    """.split(",")
)
# Further refusals that are meant, with the only tests that may meet them.
MEANT = {
    "COPY": ("test_copy_to_another_database",),
    # Only a pipeline's: the client's own ``mget([])`` is answered.
    "MGET": ("test_pipeline_with_empty_error_command", "test_transaction_with_empty_error_command"),
}


@pytest.fixture(scope="session")
def suite(request: pytest.FixtureRequest) -> Path:
    """The suite of the redis-py that is installed, from its source distribution."""
    return unpacked(request.config, "redis", "tests", "pyproject.toml")


def run(suite: Path, way: str, paths: list[str], report: Path) -> dict[str, Any]:
    """Run the suite in one of the ways, on a server of its own."""
    options = ["-p", "pytest_asyncio.plugin", "-p", "pytest_timeout", "-p", "tenanted_redis"]
    options += ["-p", "no:cacheprovider", "--assert=plain", "--tb=native", "-q"]
    options += ["-m", "not redismod and not onlycluster and not ssl"]
    env = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "TENANTED": way}
    env |= {
        "TENANTED_REPORT": str(report),
        "PYTHONPATH": os.pathsep.join([str(HERE), *filter(None, sys.path)]),
    }
    with services.redis_server("--enable-debug-command", "yes", binary=services.redis8_binary()) as server:
        url = server.url.replace("127.0.0.1", "localhost")
        command = [sys.executable, "-m", "pytest", *options, "--redis-url", url, *paths]
        done = subprocess.run(command, cwd=suite, env=env, capture_output=True, text=True)
    assert report.exists(), done.stdout[-4000:] + done.stderr[-4000:]
    found = json.loads(report.read_text())
    assert isinstance(found, dict)
    return found


def passed(report: dict[str, Any]) -> set[str]:
    return {test for test, found in report["tests"].items() if found.get("outcome") == "passed"}


def unexplained(test: str, found: dict[str, Any]) -> bool:
    """Whether a test fails with the guard for another reason than a command that is refused on purpose."""
    refused = [line.partition(" ")[2] for line in found.get("refused", ())]
    name = test.rpartition("::")[2].partition("[")[0]
    return not any(command in DENIED or name in MEANT.get(command, ()) for command in refused)


def tell(reports: dict[str, dict[str, Any]]) -> None:
    """Print the counts, and what the guard refused to tests that pass without it."""
    for way, report in reports.items():
        print(way, dict(Counter(found.get("outcome") for found in report["tests"].values())))
    lost = passed(reports["rewritten"]) - passed(reports["guarded"])
    first = Counter(next(iter(reports["guarded"]["tests"][test]["refused"]), "?") for test in lost)
    for refusal, count in sorted(first.items()):
        print(f"{count:5} {refusal}")


@pytest.mark.parametrize("folder", ["tests", "tests/test_asyncio"])
def test_redis_pys_own_suite_passes_with_the_guard_as_without(
    suite: Path, tmp_path: Path, folder: str
) -> None:
    """The same keys, in the tenant's namespace, with and without the guard; unchanged, nothing is written."""
    paths = [f"{folder}/{name}.py" for name in FILES]
    with ThreadPoolExecutor() as pool:
        found = pool.map(lambda way: run(suite, way, paths, tmp_path / f"{way}.json"), WAYS)
        reports = dict(zip(WAYS, found, strict=True))
    tell(reports)
    rewritten, guarded, unchanged = (reports[way] for way in WAYS)

    assert len(passed(rewritten)) > 500
    assert passed(guarded) <= passed(rewritten)
    lost = passed(rewritten) - passed(guarded)
    assert [test for test in lost if unexplained(test, guarded["tests"][test])] == []
    assert {test: f["outside"] for test, f in guarded["tests"].items() if f.get("outside")} == {}
    assert {test: f["outside"] for test, f in unchanged["tests"].items() if f.get("written")} == {}
    assert guarded["changed"] == unchanged["changed"] == []
