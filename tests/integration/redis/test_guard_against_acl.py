"""The guard's verdict against the servers' own: what the guard passes, an ACL finds no foreign key in.

Neither is the other's copy: servers read keys with their key specs and functions, the guard with a
table and rules of its own. Random arguments, hostile words among them, for every command there is.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from tenantry.integrations.redis.verdict import verdict
from tests import services

BINARIES: dict[str, Callable[[], str]] = {
    "redis": services.redis_binary,
    "redis8": services.redis8_binary,
    "valkey8": services.valkey8_binary,
    "valkey": services.valkey_binary,
}
WORDS = (
    "acme:1 acme:2 globex:1 globex:2 bare 0 1 2 3 -1 01 +1 STORE STOREDIST store STREAMS GROUP COUNT BY GET "
    "KEYS WEIGHTS AGGREGATE SUM LEFT RIGHT MIN MAX DB REPLACE LIMIT ALPHA NOACK BLOCK km m > * id XX EX AND "
    "WITHCOORD ASC nosort # acme:* globex:* FIELDS CLAIM AUTH MATCH"
).split()


def _commands(rows: list[Any]) -> Iterator[tuple[list[str], int]]:
    for row in rows:
        if row[9]:
            yield from _commands(row[9])
        else:
            yield row[0].decode().split("|"), row[1]


def _vector(chance: random.Random, name: list[str], arity: int) -> list[str]:
    length = max(abs(arity) - len(name), 0) + (chance.randrange(7) if arity < 0 else 0)
    words = chance.choices(WORDS, k=length)
    if chance.random() < 0.6:  # mostly own keys, so that the guard passes more
        words = [word.replace("globex", "acme") if chance.random() < 0.7 else word for word in words]
    return [*name, *words]


def _passed(chance: random.Random, name: list[str], arity: int, count: int) -> list[list[str]]:
    vectors = (_vector(chance, name, arity) for _ in range(count))
    return [vector for vector in vectors if verdict([word.encode() for word in vector], "acme") is None]


def _foreign_key(reply: object) -> bool:
    """Whether a dry run was refused for a key or channel that is not acme's."""
    found = re.search(r"access the '(.*?)' (key|channel)", str(reply))
    return found is not None and not found[1].startswith("acme:")


def _leaks(server: services.Server, seed: int, count: int) -> tuple[int, list[list[str]]]:
    chance = random.Random(seed)
    with redis.Redis(port=server.port) as client:
        client.set_response_callback("COMMAND", lambda reply, **_: reply)
        client.execute_command("ACL", "SETUSER", "keys", "reset", "~acme:*", "&acme:*", "+@all")
        leaks: list[list[str]] = []
        total = 0
        for name, arity in _commands(client.execute_command("COMMAND")):
            passed = _passed(chance, name, arity, count)
            total += len(passed)
            with client.pipeline(transaction=False) as pipe:
                for vector in passed:
                    pipe.execute_command("ACL", "DRYRUN", "keys", *vector)
                replies = pipe.execute(raise_on_error=False)
            leaks += [v for v, reply in zip(passed, replies, strict=True) if _foreign_key(reply)]
    # The server takes a group of that name for the option: its mistake, and no leak.
    return total, [v for v in leaks if not (v[0] == "xreadgroup" and "STREAMS" in v[:-3])]


@pytest.mark.parametrize("binary", ["redis", "valkey"])
def test_guard_passes_no_key_that_an_acl_refuses(binary: str) -> None:
    """A few vectors of every command in CI."""
    with services.redis_server(binary=BINARIES[binary]()) as server:
        total, leaks = _leaks(server, seed=1, count=20)
    assert total > 500
    assert leaks == []


@pytest.mark.deep
@pytest.mark.parametrize("binary", BINARIES)
@pytest.mark.parametrize("seed", range(5))
def test_guard_passes_no_key_that_an_acl_refuses_in_depth(binary: str, seed: int) -> None:
    """Many vectors of every command, on every server."""
    with services.redis_server(binary=BINARIES[binary]()) as server:
        total, leaks = _leaks(server, seed=seed + 2, count=400)
    assert total > 10_000
    assert leaks == []
