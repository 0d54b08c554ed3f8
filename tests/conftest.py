"""Session servers, the rule for missing ones, and a summary of what ran against what."""

from __future__ import annotations

import contextlib
import os
from collections import Counter, defaultdict
from collections.abc import Generator, Iterable, Iterator
from typing import Any

import pytest

from tests import services

REQUIRED = os.environ.get("TENANTRY_REQUIRE_SERVICES") == "1"

# sentry-sdk imports eventlet where it is installed, whose DNS module imports httpcore2, and with it
# trio, under patched sockets that trio cannot be imported with. Subprocesses inherit this.
os.environ.setdefault("EVENTLET_NO_GREENDNS", "yes")

with contextlib.suppress(ImportError):
    from hypothesis import HealthCheck, settings

    settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.register_profile("ci", parent=settings.get_profile("tests"), derandomize=True)
    settings.load_profile("ci" if REQUIRED else "tests")


@pytest.fixture(scope="session")
def valkey_url() -> Iterator[str]:
    """An embedded Valkey of this session, yours to flush."""
    with services.valkey_server() as server:
        yield server.url


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A redis-server of this session, yours to flush."""
    with services.redis_server() as server:
        yield server.url


@pytest.fixture(scope="session")
def rabbitmq_url() -> Iterator[str]:
    """A virtual host of the running RabbitMQ (or its default one: use unique queue names)."""
    with services.rabbitmq() as url:
        yield url


@pytest.fixture(scope="session")
def postgres_dsn() -> Iterator[str]:
    """A database of this session; the role is a superuser, so make your own for row security."""
    with services.postgres() as dsn:
        yield dsn


@pytest.fixture(scope="session")
def pgvector_dsn() -> Iterator[str]:
    """A database of this session on a PostgreSQL that has pgvector; the role is a superuser."""
    with services.embedded_postgres() as dsn:
        yield dsn


# --- the part of the suite that every Python runs in CI -------------------------------------------


_ON_SERVERS = (
    "integration/",
    "examples/",
    "integrations/redis/test_acl.py",
    "integrations/redis/test_tenants.py",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--core``."""
    parser.addoption(
        "--core", action="store_true", help="of the tests on real servers, only what is marked core"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With ``--core``, leave out the tests of real servers that are not marked ``core``."""
    if not config.getoption("--core"):
        return
    servers = tuple(str(config.rootpath / "tests" / path) for path in _ON_SERVERS)
    out = [i for i in items if str(i.path).startswith(servers) and not i.get_closest_marker("core")]
    config.hook.pytest_deselected(items=out)
    kept = set(items) - set(out)
    items[:] = [item for item in items if item in kept]


# --- a missing server: a skip here, a failure where every service is required -------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None, Any, Any]:
    """Apply the rule to the servers that fixtures start."""
    return (yield from _judged())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, Any, Any]:
    """Apply the rule to the servers that tests start themselves."""
    return (yield from _judged())


def _judged() -> Generator[None, Any, Any]:
    try:
        return (yield)
    except services.Missing as problem:
        if REQUIRED:
            pytest.fail(f"TENANTRY_REQUIRE_SERVICES=1, and this test {problem}", pytrace=False)
        pytest.skip(str(problem))


# --- the summary; user_properties travel from xdist workers to the controller -------------------

_behind: dict[str, list[str]] = {}
_seen = 0


class _Recorder:
    """A plugin of its own: pytest asks no conftest but the root's about session fixtures."""

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Generator[None, Any, Any]:
        """Remember which servers stand behind a fixture that outlives one test."""
        before = len(services.used)
        try:
            return (yield)
        finally:
            inherited = [s for name in fixturedef.argnames for s in _behind.get(name, ())]
            if behind := [*services.used[before:], *inherited]:
                _behind[fixturedef.argname] = behind


def pytest_configure(config: pytest.Config) -> None:
    """Register the recorder."""
    config.pluginmanager.register(_Recorder(), "tenantry-servers")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Note on the report the servers that the test has used."""
    global _seen
    fresh, _seen = services.used[_seen:], len(services.used)
    named = [s for name in getattr(item, "fixturenames", ()) for s in _behind.get(name, ())]
    known = {value for _, value in item.user_properties}
    item.user_properties += [("server", s) for s in dict.fromkeys([*fresh, *named]) if s not in known]
    return (yield)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say plainly what ran against what, and what was skipped for want of what."""
    terminalreporter.section("what ran against what")
    for line in [*_ran(terminalreporter.stats), *_wanting(terminalreporter.stats)]:
        terminalreporter.write_line(line)


def _ran(stats: dict[str, list[Any]]) -> Iterable[str]:
    tests: Counter[str] = Counter()
    servers: dict[str, set[str]] = defaultdict(set)
    for outcome in ("passed", "failed", "error"):
        for report in stats.get(outcome, ()):
            path = report.nodeid.partition("::")[0]
            tests[path] += 1
            servers[path].update(v for n, v in getattr(report, "user_properties", ()) if n == "server")
    by_servers: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for path in sorted(tests):
        by_servers[tuple(sorted(servers[path]))].append(f"{path} ({tests[path]})")
    for names, paths in sorted(by_servers.items()):
        yield f"{', '.join(names) or 'no server'}: {', '.join(paths)}"


def _wanting(stats: dict[str, list[Any]]) -> Iterable[str]:
    reasons: Counter[str] = Counter()
    for report in stats.get("skipped", ()):
        reason = report.longrepr[-1] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reasons[reason.removeprefix("Skipped: ")] += 1
    for reason, count in sorted(reasons.items()):
        yield f"SKIPPED {count}: {reason}"
    if not reasons:
        yield "nothing was skipped"
