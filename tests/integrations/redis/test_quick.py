"""The quick yes: it never says yes where the verdict would not."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("redis")

from hypothesis import given
from hypothesis import strategies as st

from tenantry import tenant_scope
from tenantry.integrations.redis.encoding import encode_all, utf8
from tenantry.integrations.redis.quick import Quick
from tenantry.integrations.redis.rules import RULES, declare
from tenantry.integrations.redis.verdict import verdict

QUICK = Quick()
WORDS = st.one_of(
    st.sampled_from(
        ["acme:1", "acme:2", "acme:", "acme", "globex:1", "STORE", "DB", "0", "1", "2", "", "%shared:x"]
    ),
    st.sampled_from([0, 1, 2, -1, 1.5, b"acme:1", b"globex:1", bytearray(b"acme:1"), True]),
    st.text(max_size=8),
)
NAMES = st.one_of(st.sampled_from(sorted(RULES)), st.sampled_from(["get", "GET x", "NOPE", ""]))


@given(name=NAMES, words=st.lists(WORDS, max_size=7))
def test_quick_yes_is_a_yes_of_the_verdict(name: str, words: list[Any]) -> None:
    """For all commands and arguments, of all types."""
    args = (name, *words)
    with tenant_scope("acme"):
        quick = QUICK.own_tenant(args)
    if quick:
        rest = tuple(word for word in words if type(word) is not bool)
        assert verdict(encode_all((name, *rest), utf8), "acme") is None or len(rest) != len(words)


@given(
    name=st.sampled_from(["XREAD", "XREADGROUP"]),
    before=st.lists(
        st.sampled_from(
            [b"GROUP", "GROUP", "COUNT", b"BLOCK", "NOACK", "CLAIM", b"STREAMS", "streams", "g", 1]
        ),
        max_size=6,
    ),
    behind=st.lists(
        st.sampled_from(["acme:1", "globex:1", "acme:2", ">", "0", 1, b"acme:1", "STREAMS"]), max_size=5
    ),
)
def test_quick_reads_options_of_streams_as_the_verdict_does(
    name: str, before: list[Any], behind: list[Any]
) -> None:
    """Wherever the word STREAMS stands: a group, a consumer or a key may be called so."""
    args = (name, *before, "STREAMS", *behind)
    with tenant_scope("acme"):
        if QUICK.own_tenant(args):
            assert verdict(encode_all(args, utf8), "acme") is None


@pytest.mark.parametrize(
    "args",
    [
        ("GET", "acme:1"),
        ("SET", "acme:1", "globex:1", "EX", 5),
        ("MGET", "acme:1", "acme:2"),
        ("MSET", "acme:1", "x", "acme:2", "y"),
        ("BLPOP", "acme:1", "acme:2", 0),
        ("BITOP", "AND", "acme:d", "acme:1"),
        ("RENAME", "acme:1", "acme:2"),
        ("SMOVE", "acme:1", "acme:2", "globex:1"),
        ("EVALSHA", "s", 1, "acme:1", "globex:1"),
        ("ZUNIONSTORE", "acme:d", 2, "acme:1", "acme:2"),
        ("MSETEX", 2, "acme:1", "globex:1", "acme:2", "x"),
        ("MSETEX", 1, "acme:1", "x", "EX", 5),
        ("XREAD", b"STREAMS", "acme:1", "$"),
        ("XREADGROUP", b"GROUP", "g", "c", b"COUNT", 1, b"NOACK", b"STREAMS", "acme:1", "acme:2", ">", ">"),
        ("XREADGROUP", "GROUP", "STREAMS", "STREAMS", "STREAMS", "acme:1", "globex:1"),
    ],
)
def test_quick_knows_the_ordinary_commands(args: tuple[Any, ...]) -> None:
    """Else it would be no quicker."""
    with tenant_scope("acme"):
        assert QUICK.own_tenant(args)
    with tenant_scope("globex"):
        assert not QUICK.own_tenant(args)
    assert not QUICK.own_tenant(args)


class Text(str):
    """Text of a type of its own."""

    __slots__ = ()


@pytest.mark.parametrize(
    "args",
    [
        (),
        ("GET",),
        (b"GET", "acme:1"),
        ("get", "acme:1"),
        ("GET", Text("acme:1")),
        (Text("GET"), "acme:1"),
        ("GET", b"acme:1"),
        ("MGET",),
        ("MGET", "acme:1", "globex:1"),
        ("MGET", "acme:1", b"acme:2"),
        ("MGET", "acme:1", Text("acme:2")),
        ("EVALSHA", "s"),
        ("EVALSHA", "s", "1", "acme:1"),
        ("EVALSHA", "s", True, "acme:1"),
        ("EVALSHA", "s", 2, "acme:1"),
        ("MSETEX", 3, "acme:1", "x", "acme:2", "x"),
        ("MSETEX", 4, "acme:1", "x", "acme:2", "x", "acme:3", "x", "globex:1", "x"),
        ("EVALSHA", "s", 0),
        ("EVALSHA", "s", -1, "acme:1"),
        ("EVALSHA", "s", -4, "acme:1", "x"),
        ("ZUNIONSTORE", "globex:d", 1, "acme:1"),
        ("COPY", "acme:1", "acme:2", "DB", 1),
        ("MOVE", "acme:1", 1),
        ("SORT", "acme:1", "GET", "globex:*"),
        ("XREAD", "FOO", "acme:1", "$"),
        ("XREAD", "STREAMS", "acme:1", "acme:2", "$"),
        ("XREAD", "COUNT"),
        ("XREAD", "COUNT", 1),
        ("XREAD", 1, "STREAMS", "acme:1", "$"),
        ("PUBLISH", "acme:ch", "x"),
        ("OBJECT ENCODING", "globex:1", "acme:1"),
        (["GET"], "acme:1"),
    ],
)
def test_quick_leaves_the_rest_to_the_verdict(args: tuple[Any, ...]) -> None:
    """No is not a refusal, only not a certain yes."""
    with tenant_scope("acme"):
        assert not QUICK.own_tenant(args)


def test_quick_does_not_know_better_than_a_declaration() -> None:
    """What a client declares wins over the table."""
    quick = Quick()
    quick.declare(
        declare({"GET": 2, "MGET": (2, -1, 1), "EVALSHA": lambda words: [1], "SET EX": 2, "MYMOD.GET": 1})
        | declare({"MYMOD SUB": 2, "MYMOD.STATS": 0})
    )
    with tenant_scope("acme"):
        assert not quick.own_tenant(("GET", "acme:1", "globex:1"))
        assert quick.own_tenant(("GET", "globex:1", "acme:1"))
        assert quick.own_tenant(("MYMOD.GET", "acme:1"))
        for args in (("MGET", "acme:1"), ("EVALSHA", "s", 1, "acme:1"), ("SET", "acme:1", "x")):
            assert not quick.own_tenant(args)
        assert not quick.own_tenant(("MYMOD SUB", "globex:1", "acme:1")), "the packer splits it: position 1"
        assert not quick.own_tenant(("MYMOD.STATS", "acme:1"))
        assert not quick.own_tenant(("MGET", "x", "acme:1", "globex:1"))


def test_quick_takes_no_name_of_a_declared_command_for_its_key() -> None:
    """The command itself stands at position 0, which for a declaration means that there is no single key."""
    quick = Quick()
    quick.declare(declare({"ACME:GET": (2, -1, 1), "ACME:STATS": 0}))
    with tenant_scope("ACME"):
        for name in ("ACME:GET", "ACME:STATS"):
            assert not quick.own_tenant((name, "globex:1", "globex:2"))
