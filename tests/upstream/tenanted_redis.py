"""A plugin for redis-py's own suite: every client that it makes works for a tenant.

``TENANTED`` says how: ``rewritten`` puts the keys of every command into the tenant's namespace, as a
service would that moves there, and takes the prefix off what comes back; ``guarded`` does the same on
guarded clients under the tenant; ``unchanged`` guards and rewrites nothing, so that nothing may be
written. What each test did goes to the file ``TENANTED_REPORT``. Imported by a pytest of its own, under
that name: redis-py's tests are called ``tests`` too.
"""

from __future__ import annotations

import gc
import json
import os
import re
import threading
import tracemalloc
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio
import redis.asyncio.connection
import redis.connection

from tenantry import bind_tenant, carry_tenant, current_tenant_or_none, reset_tenant
from tenantry.errors import TenancyError
from tenantry.integrations.redis import guard
from tenantry.integrations.redis.encoding import encode_all, utf8
from tenantry.integrations.redis.rules import Rule, Unreadable, find_rule

MODE = os.environ["TENANTED"]
REPORT = Path(os.environ["TENANTED_REPORT"])
TENANT = "acme"
PREFIX = f"{TENANT}:"
REWRITES = MODE in ("rewritten", "guarded")
GUARDS = MODE in ("guarded", "unchanged")


# --- keys, there and back ---------------------------------------------------------------------------


def prefixed(value: Any) -> Any:
    """The same name in the tenant's namespace; as it is where it is there already."""
    if isinstance(value, str):
        space = re.match(r"__keyspace@\d+__:|", value)
        at = space.end() if space else 0
        return value if value.startswith(PREFIX, at) else value[:at] + PREFIX + value[at:]
    if isinstance(value, bytes | bytearray | memoryview):
        raw = bytes(value)
        return prefixed(raw.decode("latin-1")).encode("latin-1")
    return prefixed(repr(value)) if isinstance(value, int | float) else value


_OPTION = {b"KEYS": 1}  # a pattern, which the guard knows only to refuse it
_NO_MATCH = ("MATCH", f"{PREFIX}*")


def rewritten(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """A command with its keys, patterns and channels in the tenant's namespace."""
    try:
        argv = encode_all(args, utf8)
    except redis.RedisError:
        return args
    words = len(argv) - len(args) + 1  # "CONFIG GET" is one argument and two words
    found = list(args)
    for position in _positions(argv):
        if position >= words:
            found[position - words + 1] = prefixed(found[position - words + 1])
    if argv and argv[0].upper() == b"SCAN" and b"MATCH" not in [word.upper() for word in argv]:
        found.extend(_NO_MATCH)
    return tuple(found)


def _positions(argv: tuple[bytes, ...]) -> Iterator[int]:
    if argv and argv[0].upper() in _OPTION:
        yield from range(1, len(argv))
    name, rule = find_rule(argv, {})
    if rule is None or name in ("MIGRATE", "MOVE"):
        yield from range(1, 2 if name == "MOVE" else 1)
    else:
        yield from _claimed(argv, rule)


def _claimed(argv: tuple[bytes, ...], rule: Rule) -> Iterator[int]:
    try:
        yield from [claim.position for claim in rule.claims(argv)] if rule.claims else ()
    except Unreadable:
        yield from _before_options(argv)


def _before_options(argv: tuple[bytes, ...]) -> range:
    """The keys of a command whose options say too little, or too much, for the guard."""
    return {b"COPY": range(1, 3), b"SCAN": range(0)}.get(argv[0].upper(), range(0))


def stripped(reply: Any) -> Any:
    """A reply without the tenant's prefix, in whatever shape."""
    if isinstance(reply, bytes):
        return re.sub(rb"\A(__keyspace@\d+__:|)" + PREFIX.encode(), rb"\1", reply)
    if isinstance(reply, str):
        return re.sub(rf"\A(__keyspace@\d+__:|){PREFIX}", r"\1", reply)
    if isinstance(reply, list):
        reply[:] = map(stripped, reply)
        return reply
    if isinstance(reply, dict):
        return {stripped(key): stripped(value) for key, value in reply.items()}
    return {stripped(value) for value in reply} if isinstance(reply, set) else reply


# --- clients ----------------------------------------------------------------------------------------


class Now:
    """Which test runs, whether a fixture of its does, and what the guard has refused to it."""

    test = ""
    in_fixture = False
    admin: Any = None
    refused: dict[str, list[str]] = {}


def _note(error: TenancyError) -> None:
    named = getattr(error, "command", getattr(error, "wanted", ""))
    Now.refused.setdefault(Now.test, []).append(f"{type(error).__name__} {named}")


def _on_top(target: Any, **methods: Any) -> Any:
    """Exchange the class of ``target`` for a subclass of it, guarded or not: the caller's side of it."""
    base = type(target)
    if hasattr(base, "_base_of_test"):
        return target
    target.__class__ = type(base.__name__, (base,), {"__slots__": (), "_base_of_test": base, **methods})
    return target


def _super(target: Any) -> Any:
    return super(next(kind for kind in type(target).__mro__ if "_base_of_test" in vars(kind)), target)


def _execute(target: Any, *args: Any, **options: Any) -> Any:
    sent = rewritten(args) if REWRITES else args
    try:
        return _super(target).execute_command(*sent, **options)
    except TenancyError as error:
        if Now.in_fixture:  # a fixture empties and configures the server, which is the platform's work
            return _as_platform(target, sent, options)
        _note(error)
        raise


def _as_platform(target: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    reply = Now.admin.execute_command(*args, **options)
    return _later(reply) if isinstance(target, redis.asyncio.Redis) else reply


async def _later(reply: Any) -> Any:
    return reply


def _pipeline(client: Any, *args: Any, **kwargs: Any) -> Any:
    return _on_top(_super(client).pipeline(*args, **kwargs), execute_command=_execute)


def _pubsub(client: Any, *args: Any, **kwargs: Any) -> Any:
    return _on_top(_super(client).pubsub(*args, **kwargs), execute_command=_execute)


def _lock(client: Any, name: Any, *args: Any, **kwargs: Any) -> Any:
    return _super(client).lock(prefixed(name) if REWRITES else name, *args, **kwargs)


def _equipped(client: Any) -> None:
    if GUARDS:
        guard(client)
    _on_top(client, execute_command=_execute, pipeline=_pipeline, pubsub=_pubsub, lock=_lock)


def _equip_new(kind: type) -> None:
    original = kind.__init__  # type: ignore[misc]

    def init(client: Any, *args: Any, **kwargs: Any) -> None:
        original(client, *args, **kwargs)
        _equipped(client)

    kind.__init__ = init  # type: ignore[misc]


def _strip_replies() -> None:
    sync, later = redis.connection.AbstractConnection, redis.asyncio.connection.AbstractConnection
    read, read_later = sync.read_response, later.read_response

    def read_response(connection: Any, *args: Any, **kwargs: Any) -> Any:
        return stripped(read(connection, *args, **kwargs))

    async def read_response_later(connection: Any, *args: Any, **kwargs: Any) -> Any:
        return stripped(await read_later(connection, *args, **kwargs))

    sync.read_response, later.read_response = read_response, read_response_later  # type: ignore[method-assign]


def _carry_into_threads() -> None:
    start = threading.Thread.start

    def carried(thread: threading.Thread) -> None:
        if type(thread) is threading.Thread and current_tenant_or_none() is not None:
            thread.run = carry_tenant(thread.run)  # type: ignore[method-assign]
        start(thread)

    threading.Thread.start = carried  # type: ignore[method-assign]


# --- the run ----------------------------------------------------------------------------------------


class _Plain(redis.connection.Connection):
    """A connection of the plugin's own, which strips nothing."""

    read_response = redis.connection.AbstractConnection.read_response


class _Admin(redis.Redis):
    """A client of the plugin's own, as redis-py makes it."""

    __init__ = redis.Redis.__init__


class Run:
    """Runs the tests under the tenant and notes what each did."""

    def __init__(self, url: str) -> None:
        pool = redis.ConnectionPool.from_url(url, connection_class=_Plain, protocol=2)
        Now.admin = self.admin = _Admin(connection_pool=pool)
        self.tests: dict[str, dict[str, Any]] = {}
        self.before = self.settings()
        self.admin.config_resetstat()

    def settings(self) -> dict[str, Any]:
        """What a test could leave on the server beside keys."""
        asked = {
            "users": self.admin.acl_list(),
            "functions": self.admin.execute_command("FUNCTION", "LIST"),
            "config": self.admin.config_get("*"),
        }
        return {name: json.loads(json.dumps(value, default=repr)) for name, value in asked.items()}

    def keys(self) -> list[str]:
        """What lies in any database now."""
        found = []
        for number in self.admin.info("keyspace"):
            with self.admin.client() as single:
                single.select(int(number.removeprefix("db")))
                found += [key.decode("latin-1") for key in single.scan_iter(count=1000)]
                single.select(0)
        return found

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """A test is one unit of work of the tenant."""
        Now.test, Now.in_fixture = item.nodeid, True
        token = bind_tenant(TENANT) if GUARDS else None
        try:
            return (yield)
        finally:
            if token is not None:
                reset_tenant(token)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self) -> Generator[None, Any, Any]:
        """See what the test has written before a fixture takes it away."""
        Now.in_fixture = False
        try:
            return (yield)
        finally:
            Now.in_fixture = True
            self.look()

    def pytest_runtest_logfinish(self) -> None:
        """Leave nothing to the next test."""
        self.look()
        self.admin.flushall()

    def look(self) -> None:
        """Note the keys that are there now."""
        left = [] if self.admin.info("keyspace") == {} else self.keys()
        test = self.tests.setdefault(Now.test, {})
        test["outside"] = sorted({*test.get("outside", ()), *(k for k in left if not k.startswith(PREFIX))})
        test["written"] = max(test.get("written", 0), len(left))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: Any) -> Generator[None, Any, Any]:
        """Note how the test ended."""
        if call.excinfo is not None and isinstance(call.excinfo.value, TenancyError):
            _note(call.excinfo.value)
        report = yield
        test = self.tests.setdefault(item.nodeid, {})
        if report.failed:
            test["outcome"] = "failed"
            test.setdefault("error", str(report.longrepr)[-400:])
        elif report.skipped or report.when == "call":
            test.setdefault("outcome", report.outcome)
        return report

    def pytest_sessionfinish(self) -> None:
        """Write the report."""
        for nodeid, test in self.tests.items():
            test["refused"] = list(dict.fromkeys(Now.refused.get(nodeid, [])))
        calls = {name: stat["calls"] for name, stat in self.admin.info("commandstats").items()}
        changed = [name for name, value in self.settings().items() if value != self.before[name]]
        REPORT.write_text(json.dumps({"tests": self.tests, "calls": calls, "changed": changed}))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Equip every client from now on: redis-py's conftest has asked the server what it is."""
    session.config.pluginmanager.register(Run(session.config.getoption("--redis-url")), "tenanted")
    tracemalloc.start = lambda *_: None  # which a fixture of the suite asks for, and nothing reads
    gc.freeze()  # ``guard`` asks the whole process who holds a pool: not what is older than any client
    if REWRITES:
        _strip_replies()
    if GUARDS:
        _carry_into_threads()
    _equip_new(redis.Redis)
    _equip_new(redis.asyncio.Redis)
