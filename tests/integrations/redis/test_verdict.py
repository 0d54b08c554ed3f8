"""The verdict: what passes for whom, and what a refusal says."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

pytest.importorskip("redis")

from tenantry.errors import CrossTenantError, TenancyError, UnknownCommandError
from tenantry.integrations.redis.rules import RULES, declare
from tenantry.integrations.redis.verdict import Refusal, binds, refuse, verdict
from tenantry.keys import shared_key


@shared_key("verdict-flags:{name}", reason="a flag that all tenants read")
def flag(name: str) -> str:
    """String: one platform flag."""


def argv(text: str) -> list[bytes]:
    """Words to arguments; ``~`` is the shared key, ``_`` an empty argument."""
    shared = flag("x").encode()
    return [{b"~": shared, b"_": b""}.get(word, word) for word in text.encode().split()]


OWN = """
GET acme:1
get acme:1
SET acme:1 globex:1
MGET acme:1 acme:2 ~
MSET acme:1 globex:1 acme:2 x
DEL acme:1
RENAME acme:1 acme:2
COPY acme:1 acme:2 REPLACE
SMOVE acme:1 acme:2 globex:1
LMOVE acme:1 acme:2 LEFT RIGHT
BITOP AND acme:d acme:1 acme:2
ZUNIONSTORE acme:d 2 acme:1 acme:2 WEIGHTS 1 2
LMPOP 2 acme:1 acme:2 LEFT
BLMPOP 0 2 acme:1 acme:2 LEFT
BLPOP acme:1 acme:2 0
EVAL return 1 acme:1 globex:1
EVAL return 0
FCALL f 1 acme:1 globex:1
FCALL f 0 globex:1
XREAD COUNT 1 BLOCK 0 STREAMS acme:1 acme:2 0 0
XREADGROUP GROUP streams c STREAMS acme:1 >
XREADGROUP COUNT 1 GROUP streams c STREAMS acme:st >
XREADGROUP COUNT 1 NOACK GROUP g STREAMS STREAMS acme:st >
XREADGROUP GROUP g c CLAIM 100 STREAMS acme:st >
XGROUP CREATE acme:1 g $
XINFO STREAM acme:1
OBJECT ENCODING acme:1
MEMORY USAGE acme:1
memory usage acme:1
WATCH acme:1 acme:2
GEORADIUS acme:g 1 1 1 m STORE acme:x
GEORADIUSBYMEMBER acme:g STORE 1 m STOREDIST acme:x
GEOSEARCHSTORE acme:d acme:g FROMMEMBER m BYRADIUS 1 m
SORT acme:1
SORT acme:1 BY nosort GET # GET acme:w:*->f LIMIT 0 1 DESC ALPHA STORE acme:d
SORT acme:1 LIMIT 0 1
SORT acme:1 LIMIT 0 1 STORE acme:d
SORT acme:1 STORE acme:d GET #
SORT acme:1 DESC STORE acme:d
SORT_RO acme:1 BY acme:w:*
SCAN 0 MATCH acme:*
scan 0 count 10 match acme:cart:* type string
SSCAN acme:1 0 MATCH globex:*
PUBLISH acme:ch globex:1
SPUBLISH acme:ch x
SUBSCRIBE acme:ch
PSUBSCRIBE acme:* __keyspace@0__:acme:*
SSUBSCRIBE acme:ch
UNSUBSCRIBE
UNSUBSCRIBE acme:ch
PUNSUBSCRIBE
SUNSUBSCRIBE
PUBSUB NUMSUB acme:ch
PUBSUB CHANNELS acme:*
MSETEX 2 acme:1 v acme:2 globex:1 EX 10
JSON.SET acme:1 $ 1
JSON.MGET acme:1 acme:2 $
JSON.MSET acme:1 $ 1 acme:2 $ 2
JSON.DEBUG MEMORY acme:1
TS.MADD acme:1 1 1 acme:2 1 1
TS.CREATERULE acme:1 acme:2 AGGREGATION avg 1
CMS.MERGE acme:d 2 acme:1 acme:2
BF.ADD acme:1 globex:1
VADD acme:1 VALUES 1 1 e
HIMPORT SET acme:1 f v
PING
ECHO globex:1
TIME
WAIT 0 0
WAITAOF 0 0 0
LOLWUT
MULTI
EXEC
DISCARD
UNWATCH
SCRIPT LOAD x
SCRIPT EXISTS x
CLIENT ID
CLIENT GETNAME
CLIENT SETNAME x
CLIENT SETINFO LIB-NAME x
COMMAND
COMMAND COUNT
COMMAND GETKEYS GET globex:1
CLUSTER KEYSLOT globex:1
CLUSTER SLOTS
CLUSTER SHARDS
CLUSTER NODES
CLUSTER MYID
GET ~
""".strip().splitlines()


@pytest.mark.parametrize("command", OWN)
def test_verdict_passes_what_is_the_tenants_own(command: str) -> None:
    """Own keys, shared keys and harmless keyless commands pass."""
    assert verdict(argv(command), "acme") is None


FOREIGN = """
1 GET globex:1
1 GET acme
1 GET acmex:1
1 GET {acme}:1
1 GET %shared:verdict-nobody:x
1 GET _
1 GET __keyspace@0__:acme:1
3 SCAN 0 MATCH __keyspace@0__:acme:*
2 MGET acme:1 globex:1
3 MSET acme:1 x globex:1 x
2 DEL acme:1 globex:1 acme:2
2 RENAME acme:1 globex:1
2 COPY acme:1 globex:1
2 SMOVE acme:1 globex:1 m
2 LMOVE acme:1 globex:1 LEFT RIGHT
2 BITOP AND globex:d acme:1
4 BITOP AND acme:d acme:1 globex:1
1 ZUNIONSTORE globex:d 1 acme:1
4 ZUNIONSTORE acme:d 2 acme:1 globex:1
3 LMPOP 2 acme:1 globex:1 LEFT
3 BLMPOP 0 1 globex:1 LEFT
2 BLPOP acme:1 globex:1 0
3 EVAL s 1 globex:1
4 EVALSHA s 2 acme:1 globex:1
3 FCALL_RO f 1 globex:1
5 XREAD STREAMS acme:1 acme:2 acme:3 globex:1 0 0 0 0
3 XREAD STREAMS acme:1 globex:1 0 0
5 XREADGROUP GROUP g c STREAMS globex:1 >
2 XGROUP CREATE globex:1 g $
2 OBJECT ENCODING globex:1
2 MEMORY USAGE globex:1
2 WATCH acme:1 globex:1
9 GEORADIUS acme:g 1 1 1 m STORE acme:x STORE globex:y
6 GEORADIUSBYMEMBER acme:g m 1 m STORE globex:x
8 georadiusbymember acme:g m 1 m store acme:x storedist globex:y
3 SORT acme:1 STORE globex:d
5 sort acme:1 get # get globex:w:*
3 SORT acme:1 BY weight_*
3 SORT acme:1 GET nosort
3 SORT_RO acme:1 BY globex:*
5 SORT acme:1 STORE acme:d STORE globex:d
3 SCAN 0 MATCH *
5 SCAN 0 MATCH acme:* MATCH globex:*
3 SCAN 0 MATCH [a]cme:*
1 PUBLISH globex:ch x
1 PUBLISH globex:ch
1 SPUBLISH globex:ch x
2 SUBSCRIBE acme:ch globex:ch
1 PSUBSCRIBE *
1 PSUBSCRIBE a*
1 PSUBSCRIBE __keyspace@*__:acme:*
1 PSUBSCRIBE __keyspace@0__:globex:*
1 PSUBSCRIBE __keyspace@__:acme:*
1 PSUBSCRIBE __keyevent@0__:del
1 SUBSCRIBE ~
2 PUBSUB NUMSUB globex:ch
2 PUBSUB CHANNELS *
4 MSETEX 2 acme:1 v globex:2 v EX 10
2 JSON.MGET acme:1 globex:1 $
4 JSON.MSET acme:1 $ 1 globex:2 $ 2
4 TS.MADD acme:1 1 1 globex:2 1 1
2 TS.CREATERULE acme:1 globex:2 AGGREGATION avg 1
4 CMS.MERGE acme:d 2 acme:1 globex:2
2 HIMPORT SET globex:1 f v
""".strip().splitlines()


@pytest.mark.parametrize("line", FOREIGN)
def test_verdict_refuses_a_foreign_argument_anywhere(line: str) -> None:
    """One argument that is not the tenant's is enough, and the refusal says which."""
    position, _, command = line.partition(" ")
    refusal = verdict(argv(command), "acme")
    assert refusal is not None
    assert (refusal.reason, refusal.position) == ("foreign", int(position))


REFUSED = """
FLUSHALL
FLUSHDB
KEYS acme:*
RANDOMKEY
DBSIZE
SELECT 1
SWAPDB 0 1
MOVE acme:1 1
COPY acme:1 acme:2 DB 1
COPY acme:1 acme:2 db 0
COPY acme:1 acme:2 DB
COPY acme:1 acme:2 FOO
MIGRATE h 1 acme:1 0 100
MONITOR
CONFIG GET *
SCRIPT FLUSH
SCRIPT KILL
FUNCTION FLUSH
FUNCTION LOAD x
FUNCTION LIST
CLUSTER GETKEYSINSLOT 1 10
CLUSTER COUNTKEYSINSLOT 1
CLUSTER INFO
RESET
AUTH x
HELLO 3
QUIT
CLIENT TRACKING ON BCAST PREFIX globex:
CLIENT TRACKING ON
CLIENT LIST
CLIENT KILL x
CLIENT NO-EVICT on
CLIENT REPLY OFF
ACL LIST
INFO
DEBUG OBJECT acme:1
SLOWLOG GET
OBJECT HELP
MEMORY DOCTOR
PUBSUB NUMPAT
PUBSUB CHANNELS
PUBSUB NUMSUB
SCAN 0
SCAN 0 COUNT 10
SCAN 0 FOO x MATCH acme:*
SCAN 0 MATCH acme:* NOVALUES
SCAN 0 MATCH
SUBSCRIBE
PUBLISH
GET
MGET
DEL
BITOP AND acme:1
EVAL s
EVAL s -1 globex:1
EVAL s 01 globex:1
EVAL s 2 acme:1
EVAL s +1 acme:1
EVAL s x acme:1
LMPOP 9999999999999999999999 acme:1
XREAD acme:1 0
XREAD STREAMS acme:1
XREAD COUNT 1
XREAD STREAMS acme:1 acme:2 0
XREAD FOO STREAMS acme:1 0
SORT acme:1 FOO
SORT acme:1 LIMIT 0
SORT acme:1 STORE
SORT acme:1 FOO acme:x
SORT acme:1 BY
SORT acme:1 GET
GEORADIUS acme:g 1 1 1 m STORE
TS.MGET FILTER a=b
TS.MRANGE - + FILTER a=b
TS.QUERYINDEX a=b
FT.SEARCH idx *
FT.CREATE idx
CLUSTERSCAN 0 MATCH acme:*
SHUTDOWN
SYNC
REPLICAOF h 1
SENTINEL MASTERS
HIMPORT PREPARE fields f
HIMPORT DISCARD fields
HIMPORT DISCARDALL
""".strip().splitlines()


@pytest.mark.parametrize("command", REFUSED)
def test_verdict_refuses_what_is_not_known_to_stay_with_the_tenant(command: str) -> None:
    """Commands without a key of the tenant's, and those whose keys cannot be read, are denied."""
    refusal = verdict(argv(command), "acme")
    assert refusal is not None
    assert refusal.reason == "foreign"


@pytest.mark.parametrize(
    "words",
    [
        [b"FOO", b"acme:1"],
        [b"GETX", b"acme:1"],
        [b"MEMORY", b"acme:1"],
        [b"XGROUP", b"FROB", b"acme:1"],
        [b"GET acme:1"],
        [b"GET\tacme:1"],
        [b"MEMORY USAGE", b"acme:1"],
        [b"GET\n", b"acme:1"],
        [b"", b"GET", b"acme:1"],
        [b"\xdf"],
        [],
    ],
)
def test_verdict_does_not_know_what_is_in_no_table(words: list[bytes]) -> None:
    """Names that no table has are unknown, also when they would be known after a split."""
    refusal = verdict(words, "acme")
    assert refusal is not None
    assert refusal.reason == "unknown"


ANYTIME = """
COMMAND COUNT
PING
MULTI
EXEC
UNWATCH
DISCARD
SCRIPT LOAD x
SCRIPT EXISTS x
COMMAND
COMMAND GETKEYS GET globex:1
CLUSTER SLOTS
CLUSTER SHARDS
ASKING
READONLY
GET ~
MGET ~ ~
""".strip().splitlines()


@pytest.mark.parametrize("command", ANYTIME)
def test_verdict_passes_without_a_tenant_what_the_client_sends_on_its_own(command: str) -> None:
    """The client's own commands and shared keys need no tenant."""
    assert verdict(argv(command), None) is None


@pytest.mark.parametrize("command", sorted({*OWN, *REFUSED} - set(ANYTIME)))
def test_verdict_needs_a_tenant_for_everything_else(command: str) -> None:
    """Whatever else there is, known or not, is refused for want of a tenant."""
    refusal = verdict(argv(command), None)
    assert refusal is not None
    assert refusal.reason == "no tenant"


@pytest.mark.parametrize("command", ["MGET acme:1 ~", "SORT ~ BY acme:*", "GET acme:1"])
def test_verdict_needs_a_tenant_for_one_key_that_is_not_shared(command: str) -> None:
    """A shared key beside a tenant's does not carry it."""
    refusal = verdict(argv(command), None)
    assert refusal is not None
    assert refusal.reason == "no tenant"


@pytest.mark.parametrize("line", FOREIGN)
def test_refusal_never_shows_the_argument(line: str) -> None:
    """Neither the key nor the other tenant is in the error."""
    refusal = verdict(argv(line.partition(" ")[2]), "acme")
    assert refusal is not None
    with pytest.raises(CrossTenantError) as caught:
        refuse(refusal, "acme")
    shown = str(caught.value) + repr(caught.value)
    assert "globex" not in shown
    assert "acme:" not in shown.replace("acme: ", "")


def test_refusal_tells_another_tenants_key_from_one_without_a_prefix() -> None:
    """The error says which of the two mistakes it was."""
    other, bare = verdict([b"GET", b"globex:1"], "acme"), verdict([b"GET", b"x"], "acme")
    assert other is not None
    assert bare is not None
    assert "another tenant" in other.detail
    assert "no tenant prefix" in bare.detail


def test_refusal_tells_a_shared_key_that_nobody_declared_what_it_lacks() -> None:
    """It has the prefix of shared keys, so it is no tenant's; what is missing is the declaration."""
    refusal = verdict([b"GET", b"%shared:verdict-nobody:x"], "acme")
    assert refusal is not None
    assert "@shared_key" in refusal.detail
    assert "verdict-nobody" not in refusal.detail


@pytest.mark.parametrize("value", [RULES["GET"], verdict([b"GET", b"x"], "acme")])
def test_rules_and_refusals_cannot_be_changed(value: Any) -> None:
    """All clients of the process share the rules."""
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign"):
        setattr(value, dataclasses.fields(value)[-1].name, 2)
    assert not hasattr(value, "__dict__")


@pytest.mark.parametrize("word", [b"GETX globex:1", b"GETX\tglobex:1", b"\x00globex:1", b"x" * 100])
def test_refusal_shows_no_more_of_an_unknown_name_than_a_name(word: bytes) -> None:
    """What stands behind a name in the same argument may be a key."""
    refusal = verdict([word], "acme")
    assert refusal is not None
    with pytest.raises(UnknownCommandError, match=r"commands=|without a name") as caught:
        refuse(refusal, "acme")
    assert "globex" not in str(caught.value).lower()
    assert len(caught.value.command) <= 40


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ([b"object", b"frob", b"acme:1"], "OBJECT FROB"),
        ([b"OBJECT", b"globex:1", b"acme:1"], "OBJECT"),
        ([b"GET\x00globex:1"], "GET"),
        ([b"mymod.get", b"globex:1"], "MYMOD.GET"),
    ],
)
def test_unknown_command_is_named_as_far_as_it_is_a_name(words: list[bytes], shown: str) -> None:
    """A container shows its subcommand, unless that does not look like one."""
    for tenant, reason in (("acme", "unknown"), (None, "no tenant")):
        refusal = verdict(words, tenant)
        assert refusal is not None
        assert (refusal.command, refusal.position, refusal.reason) == (shown, None, reason)


def test_command_without_a_name_is_told_what_a_name_is() -> None:
    """Declaring it would not help."""
    refusal = verdict([b""], "acme")
    assert refusal is not None
    assert "name alone" in refusal.detail
    named = verdict([b"NOPE"], "acme")
    assert named is not None
    assert named.detail == ""


def test_scan_without_match_is_told_what_it_lacks() -> None:
    """The refusal points behind what is there, and says where patterns come from."""
    refusal = verdict(argv("SCAN 0 COUNT 10"), "acme")
    assert refusal is not None
    assert refusal.position == 3
    assert "MATCH" in refusal.detail


@pytest.mark.parametrize(
    ("command", "detail"), [("MOVE acme:1 1", "database"), ("MIGRATE h 1 acme:1 0 9", "server")]
)
def test_refusal_of_a_way_out_says_where_it_leads(command: str, detail: str) -> None:
    """The key is the tenant's own; what is wrong is where it would go."""
    refusal = verdict(argv(command), "acme")
    assert refusal is not None
    assert detail in refusal.detail


def test_binds_tells_what_needs_the_tenant_from_what_passes_in_every_state() -> None:
    """A pipeline belongs to a tenant only once it holds a command that needs one."""
    assert binds(argv("GET acme:1"))
    assert binds(argv("TIME"))
    assert binds(argv("NOPE x"))
    assert not binds(argv("PING"))
    assert not binds([b"GET", argv("GET ~")[1]])
    assert binds(argv("NOPE x"), declare({"NOPE": 1}))
    assert not binds(argv("NOPE ~"), declare({"NOPE": 1}))


def test_unknown_command_names_itself_and_the_option() -> None:
    """The error says what to declare."""
    refusal = verdict([b"mymod.get", b"acme:1"], "acme")
    assert refusal is not None
    with pytest.raises(UnknownCommandError, match=r"MYMOD\.GET.*commands="):
        refuse(refusal, "acme")


@pytest.mark.parametrize(
    ("declared", "command", "position"),
    [
        ({"mymod.get": 1}, "MYMOD.GET acme:1 globex:1", "passes"),
        ({"mymod.get": 1}, "mymod.get globex:1", 1),
        ({"MYMOD.GET": 2}, "MYMOD.GET x globex:1", 2),
        ({"MYMOD.GET": (1, -1, 2)}, "MYMOD.GET acme:1 globex:1 globex:2", 3),
        ({"MYMOD.GET": (1, 2, 1)}, "MYMOD.GET acme:1 globex:1 x", 2),
        ({"mymod sub": 2}, "MYMOD SUB globex:1", 2),
        ({"MYMOD|SUB": 2}, "MYMOD SUB acme:1", "passes"),
        ({"MYMOD.GET": lambda words: [len(words) - 1]}, "MYMOD.GET x globex:1", 2),
        ({"FT.SEARCH": 1}, "FT.SEARCH acme:idx *", "passes"),
        ({"FT.SEARCH": 1}, "FT.SEARCH idx *", 1),
        ({"MYMOD.STATS": 0}, "MYMOD.STATS x", "passes"),
        ({"MYMOD.GET": lambda words: []}, "MYMOD.GET globex:1", "passes"),
        ({"CLIENT": 1}, "CLIENT acme:1", "passes"),
        ({"MYMOD.STATS": (0, 0, 0)}, "MYMOD.STATS", "passes"),
    ],
)
def test_declared_command_is_judged_by_its_declaration(declared, command, position) -> None:
    """The option takes a position, a range or a function, and any spelling of the name."""
    refusal = verdict(argv(command), "acme", declare(declared))
    assert (refusal.position if refusal else "passes") == position


def _fails_on_the_way(words):
    yield 1
    yield int(words[1])


@pytest.mark.parametrize(
    "positions", [lambda words: [int(words[1])], _fails_on_the_way, lambda words: words.x]
)
def test_declared_function_that_raises_is_a_refusal(positions) -> None:
    """Its own error may hold the key, and knows no tenant."""
    declared = declare({"MYMOD.GET": positions})
    assert verdict(argv("MYMOD.GET globex:1"), None, declared) == Refusal("no tenant", "MYMOD.GET")
    refusal = verdict(argv("MYMOD.GET globex:1"), "acme", declared)
    assert refusal is not None
    assert refusal.position == 0
    with pytest.raises(
        CrossTenantError, match="declaration in commands= raised (Value|Attribute)Error"
    ) as caught:
        refuse(refusal, "acme")
    assert "globex" not in str(caught.value)
    assert caught.value.__context__ is None


def test_declared_function_cannot_be_async() -> None:
    """The command is not sent before its positions are known."""

    async def positions(words):
        return [1]

    with pytest.raises(TypeError, match=r"MYMOD\.GET: .*async"):
        declare({"mymod.get": positions})


def test_declare_takes_nothing_for_nothing() -> None:
    """No option, no rules."""
    assert declare(None) == {}


def test_declared_function_gets_the_arguments_as_bytes_with_the_command_first() -> None:
    """Positions of a function count as those of the option do."""
    seen: list[object] = []

    def positions(words):
        seen.extend(words)
        return [1]

    assert verdict([b"mymod.get", b"acme:1"], "acme", declare({"MYMOD.GET": positions})) is None
    assert seen == [b"mymod.get", b"acme:1"]


@pytest.mark.parametrize("found", [[5], [-1], [0], ["1"], [True], None])
def test_declared_function_that_finds_no_argument_refuses(found: object) -> None:
    """A position that the command does not have fails closed."""
    rules = declare({"MYMOD.GET": lambda words: found})
    refusal = verdict([b"MYMOD.GET", b"acme:1"], "acme", rules)
    assert refusal is not None
    assert (refusal.reason, refusal.position) == ("foreign", 0)
    what = "no positions" if found is None else "a position that it does not have"
    assert refusal.detail == f"its declaration in commands= gave {what}"


@pytest.mark.parametrize(
    "bad",
    [
        ["GET"],
        "GET",
        {1: 1},
        {b"GET": 1},
        {"X": None},
        {"X": "1"},
        {"X": True},
        {"X": 1.0},
        {"X": (1, 2)},
        {"X": [1, 2, 1]},
    ],
)
def test_declare_refuses_what_is_of_another_kind(bad: object) -> None:
    """The form of the option is checked when the client is guarded."""
    with pytest.raises(TypeError, match=r"command|position"):
        declare(bad)


@pytest.mark.parametrize(
    "bad",
    [
        {"": 1},
        {"  ": 1},
        {"A B C": 1},
        {"X": -1},
        {"X": (2, 1, 1)},
        {"X": (1, 0, 1)},
        {"X": (1, -1, 0)},
        {"X": (0, 1, 1)},
    ],
)
def test_declare_refuses_what_cannot_be_a_command_or_a_position(bad: object) -> None:
    """So are its values."""
    with pytest.raises(ValueError, match=r"command|position"):
        declare(bad)


def test_tagged_layout_owns_tagged_keys_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Own means exactly the prefix of the layout in use."""
    monkeypatch.setattr("tenantry.keys.layout._layout", "tagged")
    assert verdict([b"GET", b"{acme}:1"], "acme") is None
    for key in (b"acme:1", b"{acme}1", b"{acme:1", b"{globex}:1", b"x{acme}:1"):
        refusal = verdict([b"GET", key], "acme")
        assert refusal is not None
        assert isinstance(refusal.detail, str)


def test_every_error_of_the_verdict_is_a_tenancy_error_and_none_is_retried() -> None:
    """A subclass of redis.ConnectionError would be retried."""
    import redis

    for kind in (CrossTenantError, UnknownCommandError):
        assert issubclass(kind, TenancyError)
        assert not issubclass(kind, redis.RedisError | OSError)
