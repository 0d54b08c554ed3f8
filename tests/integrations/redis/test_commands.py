"""The command table against the servers at hand and against every method of redis-py."""

from __future__ import annotations

import ast
import importlib.util
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("redis")

import redis

from tenantry.integrations.redis._commands import COMMANDS
from tenantry.integrations.redis.rules import RULES, Argv, Unreadable, find_rule
from tests import services

ROOT = Path(__file__).resolve().parents[3]
BINARIES = {
    "redis 7": services.redis_binary,
    "redis 8": services.redis8_binary,
    "valkey 8": services.valkey8_binary,
    "valkey 9": services.valkey_binary,
}


@pytest.fixture(scope="module")
def generator() -> Any:
    """The script that writes the table."""
    spec = importlib.util.spec_from_file_location("generator", ROOT / "scripts/generate_redis_commands.py")
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["generator"] = module
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    return module


@pytest.fixture(scope="module", params=BINARIES)
def client(request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    """A plain client of each server."""
    with (
        services.redis_server(binary=BINARIES[request.param]()) as server,
        redis.Redis(port=server.port, protocol=2, decode_responses=True) as client,
    ):
        yield client


def _command_table(client: redis.Redis, generator: Any) -> dict[str, str]:
    connection = client.connection_pool.get_connection()
    try:
        connection.send_command("COMMAND")
        return generator.read(connection.read_response())
    finally:
        client.connection_pool.release(connection)


def test_table_has_every_command_and_key_of_the_server(client: redis.Redis, generator: Any) -> None:
    """What a server has and the table lacks would be refused as unknown; a key that it lacks would leak."""
    live = _command_table(client, generator)
    assert live
    lacking = {
        name: keys
        for name, keys in live.items()
        if not set(keys.split()) <= set(COMMANDS.get(name, "-").split())
    }
    assert not {name: keys for name, keys in lacking.items() if keys or name not in COMMANDS}


def test_table_is_what_the_generator_writes(generator: Any) -> None:
    """Nobody edits it by hand."""
    tables = [generator.published(), *(generator.ask(find()) for find in BINARIES.values())]
    assert generator.render(generator.union(tables)) == generator.TARGET.read_text()


def test_every_command_of_the_table_has_a_rule() -> None:
    """A command is judged or refused; the ones whose keys the servers do not tell are written by hand."""
    told_by_option = {name for name, keys in COMMANDS.items() if re.search(r"[?@]", keys)}
    assert set(COMMANDS) == set(RULES)
    assert told_by_option == {
        "GEORADIUS", "GEORADIUSBYMEMBER", "MIGRATE", "SORT", "SORT_RO", "XREAD", "XREADGROUP",
    }  # fmt: skip
    for name in told_by_option:
        assert RULES[name].claims is not None or RULES[name].refused


# --- redis-py --------------------------------------------------------------------------------------

_NAME = re.compile(r"[A-Z][A-Z0-9_]*(\.[A-Z_]+)?([ |][A-Z][A-Z0-9-]*)?")
# Written into the wire by name, but no commands: options, types and messages that look like one.
_SENT_BY = re.compile(r"execute_command|send_command|_CMD$|^[A-Z]+_[A-Z_]+$")


def _names_sent() -> Iterator[str]:
    """Names that the source of redis-py hands to execute_command and send_command."""
    for path in Path(redis.__file__).parent.rglob("*.py"):
        tree = ast.parse(path.read_text())
        constants = {
            target.id: node.value.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
            for target in node.targets
            if isinstance(target, ast.Name) and isinstance(node.value.value, str)
        }
        for call in ast.walk(tree):
            if isinstance(call, ast.Call) and getattr(call.func, "attr", "") in (
                "execute_command",
                "send_command",
            ):
                yield from _first_words(call, constants)


def _first_words(call: ast.Call, constants: dict[str, str]) -> Iterator[str]:
    words = []
    for argument in call.args[:2]:
        if isinstance(argument, ast.Name):
            argument = ast.Constant(constants.get(argument.id))
        if not isinstance(argument, ast.Constant) or not isinstance(argument.value, str):
            break
        words.append(argument.value)
    if words and _NAME.fullmatch(words[0].upper()):
        yield " ".join(words)


def test_no_method_of_redis_py_sends_an_unknown_command() -> None:
    """Each is judged or deliberately refused."""
    names = set(_names_sent())
    assert len(names) > 350
    unknown = sorted(name for name in names if find_rule(tuple(map(str.encode, name.split())), {})[1] is None)
    assert not unknown


def _own_arguments(function: Any) -> list[Any]:
    import inspect

    values: list[Any] = []
    for parameter in list(inspect.signature(function).parameters.values()):
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            if parameter.default is parameter.empty:
                values.append(_value(parameter.name))
        elif parameter.kind is parameter.VAR_POSITIONAL:
            values.append("acme:x")
    return values


def _value(name: str) -> Any:
    if name in ("mapping", "streams"):
        return {"acme:x": 1}
    if name in ("keys", "names", "values", "ids", "messages", "message_ids", "fields", "args", "indices"):
        return ["acme:x"]
    if re.search(
        r"num|count|time|start|end|min|max|index|offset|amount|port|limit|cursor|longitude|latitude|db|slot|size|id$",
        name,
    ):
        return 1
    return "acme:x"


class _Recorder:
    """Records the first command of each method instead of sending it."""

    def __init__(self) -> None:
        self.sent: list[tuple[Any, ...]] = []

    def execute_command(self, *args: Any, **_: Any) -> Any:
        self.sent.append(args)
        raise InterruptedError


def test_every_command_method_of_the_client_is_known() -> None:
    """Called with made-up arguments, a method sends a command that the table has."""
    client = redis.Redis()
    recorder = _Recorder()
    client.execute_command = recorder.execute_command  # type: ignore[method-assign]
    called = 0
    for family in (
        client,
        client.json(),
        client.ts(),
        client.bf(),
        client.cf(),
        client.cms(),
        client.topk(),
        client.tdigest(),
        client.vset(),
        client.ft("acme:i"),
    ):
        family.execute_command = recorder.execute_command
        for name in dir(type(family)):
            function = getattr(family, name)
            if (
                name.startswith("_")
                or not callable(function)
                or name
                in (
                    "execute_command",
                    "from_url",
                    "from_pool",
                    "client",
                    "monitor",
                    "close",
                    "pipeline",
                    "cluster",
                    "object",
                    "lock",
                    "pubsub",
                    "transaction",
                )
                or isinstance(function, type)
            ):
                continue
            try:
                function(*_own_arguments(function))
            except InterruptedError:
                called += 1
            except Exception:
                continue
    assert called > 250
    for words in recorder.sent:
        first = [part.encode() for part in str(words[0]).split()]
        argv = (*first, *(str(word).encode() for word in words[1:]))
        assert find_rule(argv, {})[1] is not None, words


# --- the servers' own reader of keys ---------------------------------------------------------------

_HOSTILE = [
    "STORE",
    "STREAMS",
    "GET",
    "BY",
    "KEYS",
    "STOREDIST",
    "MATCH",
    "#",
    "nosort",
    "0",
    "1",
    "2",
    "3",
    "-1",
    "01",
    "acme:a",
    "k",
]
# What the guard claims beyond or differently, each for a reason given beside its rule.
_OWN_READER = {"SORT", "SORT_RO", "XREAD", "XREADGROUP"}


def _claimed(argv: Argv) -> set[bytes] | None:
    _name, rule = find_rule(argv, {})
    if rule is None or rule.refused:
        return None
    if rule.claims is None:
        return set()
    try:
        return {argv[claim.position] for claim in rule.claims(argv) if claim.kind == "key"}
    except Unreadable:
        return None


def _fuzz(client: redis.Redis, rounds: int, seed: int) -> int:
    chance = random.Random(seed)
    agreed = 0
    names = sorted(name for name, keys in COMMANDS.items() if keys and not keys.startswith("&"))
    for name in names:
        for _ in range(rounds):
            words = [chance.choice(_HOSTILE) for _ in range(chance.randint(1, 9))]
            argv = tuple(word.encode() for word in [*name.split(), *words])
            try:
                told = {str(key).encode() for key in client.execute_command("COMMAND GETKEYS", *argv)}
            except redis.ResponseError:
                continue
            claimed = _claimed(argv)
            assert claimed is None or told <= claimed or name in _OWN_READER, argv
            agreed += 1
    return agreed


def test_guard_claims_every_key_that_the_server_finds(client: redis.Redis) -> None:
    """Hostile words in every place; what the guard cannot read it refuses."""
    if not hasattr(client, "command_getkeys"):
        pytest.fail("redis-py has no COMMAND GETKEYS")
    assert _fuzz(client, rounds=12, seed=1) > 500


@pytest.mark.deep
@pytest.mark.timeout(1800)
def test_guard_claims_every_key_that_the_server_finds_at_length(client: redis.Redis) -> None:
    """The same with many more vectors."""
    assert _fuzz(client, rounds=300, seed=2) > 10_000
