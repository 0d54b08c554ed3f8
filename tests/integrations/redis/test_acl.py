"""ACL rules on real servers: what a user made with them may do, and what it may not.

``TENANTRY_REDIS_BINARIES`` (paths, separated by ``:``) adds servers of further versions.
"""

from __future__ import annotations

import asyncio
import os
import re
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.cache import CacheConfig
from redis.retry import Retry

from tenantry import tenant_scope
from tenantry.errors import InvalidTenantIdError, TenancyError
from tenantry.integrations.redis import acl_rules, guard, service_acl_rules
from tests import services

BINARIES: dict[str, Callable[[], str]] = {
    "redis": services.redis_binary,
    "redis8": services.redis8_binary,
    "valkey8": services.valkey8_binary,
    "valkey": services.valkey_binary,
}
BINARIES |= {
    path: (lambda path=path: path)
    for path in os.environ.get("TENANTRY_REDIS_BINARIES", "").split(":")
    if path
}

# What a user may call that names no key, on one server or another.
KEYLESS = {
    *"asking auth hello ping echo quit readonly readwrite reset time lolwut wait waitaof".split(),
    *"multi exec discard unwatch xgroup|help xinfo|help script|load script|exists".split(),
    *"publish subscribe unsubscribe punsubscribe".split(),
    *"client|id client|getname client|setname client|setinfo client|help".split(),
    *"client|capa client|no-touch client|import-source".split(),
    *"command|count command|docs command|getkeys command|getkeysandflags".split(),
    *"command|help command|info command|list".split(),
    *"cluster|keyslot cluster|myid cluster|nodes cluster|shards cluster|slots".split(),
}
# What names keys and stays denied even for one's own.
KEYED_DENIED = {
    *"copy georadius georadiusbymember migrate move pfdebug".split(),
    *"restore restore-asking sort sort_ro clusterscan".split(),
}
# One of them, which a vector of keys alone does not call.
COUNTED = {"clusterscan"}


class Acl:
    """A server with user ``default`` still on, seen by its administrator."""

    def __init__(self, server: services.Server) -> None:
        self.server = server
        self.admin = redis.Redis(port=server.port)
        self.admin.set_response_callback("COMMAND", lambda reply, **_: reply)

    def user(self, name: str, rules: list[str]) -> str:
        self.admin.execute_command("ACL", "SETUSER", name, "reset", *rules, "on", f">{name}")
        return name

    def connect(self, name: str = "acme", **options: Any) -> redis.Redis:
        return redis.Redis(port=self.server.port, username=name, password=name, **options)

    def allows(self, *words: str | bytes, name: str = "acme") -> bool:
        reply = self.admin.execute_command("ACL", "DRYRUN", name, *words)
        return reply in (b"OK", "OK", True)

    def commands(self) -> Iterator[tuple[str, int, bool]]:
        """Yield name (``container|sub``), arity and whether keys are named."""
        yield from self._walk(self.admin.execute_command("COMMAND"))

    def _walk(self, rows: list[Any]) -> Iterator[tuple[str, int, bool]]:
        for row in rows:
            if row[9]:
                yield from self._walk(row[9])
            else:
                yield row[0].decode().lower(), row[1], bool(row[8])


@pytest.fixture(scope="module", params=BINARIES)
def acl(request: pytest.FixtureRequest) -> Iterator[Acl]:
    """A server with the users ``acme`` (one tenant) and ``fleet`` (all tenants)."""
    with services.redis_server(binary=BINARIES[request.param]()) as server:
        found = Acl(server)
        found.user("acme", acl_rules("acme"))
        found.user("fleet", service_acl_rules())
        found.admin.mset({"acme:1": "mine", "globex:1": "secret", "%shared:flags": "on", "bare": "x"})
        yield found
        found.admin.close()


@pytest.fixture
def acme(acl: Acl) -> Iterator[redis.Redis]:
    """A client of the tenant's user."""
    with acl.connect() as client:
        yield client


def _vector(name: str, arity: int, key: str) -> list[str]:
    words = name.split("|")
    return [*words, *[key] * (abs(arity) - len(words))]


# --- the list itself ----------------------------------------------------------------------------


def test_acl_rules_are_tokens_without_blanks() -> None:
    """A token with white space would be two, or a syntax error."""
    for token in [*acl_rules("acme"), *service_acl_rules()]:
        assert isinstance(token, str)
        assert len(token.split()) == 1


def test_acl_rules_name_the_tenant_and_the_shared_keys() -> None:
    """The keys of one tenant, and those that belong to none."""
    rules = acl_rules("acme")
    assert [rule for rule in rules if rule.startswith("~")] == ["~acme:*", "~%shared:*"]
    assert [rule for rule in rules if rule.startswith("&")] == ["&acme:*", "&__keyspace@0__:acme:*"]


@pytest.mark.parametrize(
    ("layout", "one", "fleet"),
    [("plain", "acme:*", "[A-Za-z0-9]*:*"), ("tagged", "{acme}:*", "{[A-Za-z0-9]*}:*")],
)
def test_acl_rules_follow_the_layout_in_use(
    monkeypatch: pytest.MonkeyPatch, layout: str, one: str, fleet: str
) -> None:
    """For keys, channels and the notifications of keys, of one tenant and of all."""
    monkeypatch.setattr("tenantry.keys.layout._layout", layout)
    for rules, prefix in ((acl_rules("acme"), one), (service_acl_rules(), fleet)):
        patterns = [rule for rule in rules if rule[0] in "~&"]
        assert patterns == [f"~{prefix}", "~%shared:*", f"&{prefix}", f"&__keyspace@0__:{prefix}"]


def test_acl_rules_set_neither_password_nor_on() -> None:
    """Who may log in is decided beside the rules."""
    for rules in (acl_rules("acme"), service_acl_rules()):
        assert not {"on", "nopass", "allkeys", "allchannels", "allcommands", "+@all"} & set(rules)
        assert not [rule for rule in rules if rule.startswith((">", "#"))]


def test_acl_rules_take_a_uuid() -> None:
    """An id is text or a UUID."""
    tenant = uuid.uuid4()
    assert f"~{tenant}:*" in acl_rules(tenant)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "bad", ["", "a*", "a b", "a:b", "{acme}", "acme\n", "none", None, b"acme", 7, "[x]", "~x"]
)
def test_acl_rules_refuse_what_is_no_tenant_id(bad: Any) -> None:
    """A glob for an id would open everybody's keys."""
    with pytest.raises(InvalidTenantIdError, match="tenant id"):
        acl_rules(bad)


def test_acl_rules_return_a_list_of_their_own() -> None:
    """What one caller adds is not in the next one's rules."""
    acl_rules("acme").append("+@all")
    service_acl_rules().append("+@all")
    assert "+@all" not in acl_rules("acme")
    assert "+@all" not in service_acl_rules()


# --- the whole command table of the server -----------------------------------------------------------


@pytest.mark.parametrize("name", ["acme", "fleet"])
def test_acl_grants_no_other_keyless_command(acl: Acl, name: str) -> None:
    """Of all commands of this server that name no key, exactly the known harmless ones pass."""
    granted = set()
    for command, arity, keyed in acl.commands():
        if not keyed and acl.allows(*_vector(command, arity, "acme:1"), name=name):
            granted.add(command)
    assert granted <= KEYLESS
    assert granted >= KEYLESS - set(
        "waitaof client|setinfo client|capa client|no-touch client|import-source".split()
    )


@pytest.mark.parametrize("name", ["acme", "fleet"])
def test_acl_judges_the_keys_of_every_keyed_command(acl: Acl, name: str) -> None:
    """No command passes with a foreign key, and with own ones all but the documented few."""
    foreign = "globex:1" if name == "acme" else "bare"
    leaks, denied = set(), set()
    for command, arity, keyed in acl.commands():
        if not keyed or _needs_numbers(acl, command, arity):
            continue  # those that count their keys have vectors of their own below
        if _passes(acl, _vector(command, arity, foreign), name):
            leaks.add(command)
        if not _passes(acl, _vector(command, arity, "acme:1"), name):
            denied.add(command)
    assert not leaks
    there = {command for command, _, _ in acl.commands()}
    assert {command for command in denied if not command.startswith("v")} == KEYED_DENIED & there - COUNTED
    assert "get" not in denied


def _passes(acl: Acl, words: list[str], name: str) -> bool:
    try:
        return acl.allows(*words, name=name)
    except redis.ResponseError:
        return False


def _needs_numbers(acl: Acl, command: str, arity: int) -> bool:
    """Whether a vector of keys alone is no call of this command (it wants a number of keys)."""
    if command.startswith(("eval", "fcall")):
        return True
    try:
        acl.admin.execute_command("COMMAND", "GETKEYS", *_vector(command, arity, "acme:1"))
    except redis.ResponseError:
        return True
    return False


POSITIONS = [
    "EVAL return 1 {k}",
    "EVALSHA abc 1 {k}",
    "EVAL_RO return 1 {k}",
    "FCALL f 1 {k}",
    "FCALL_RO f 1 {k}",
    "ZUNIONSTORE acme:d 1 {k}",
    "ZUNIONSTORE {k} 1 acme:1",
    "ZINTERCARD 2 acme:1 {k}",
    "SINTERCARD 1 {k}",
    "LMPOP 1 {k} LEFT",
    "BLMPOP 0 1 {k} LEFT",
    "ZMPOP 1 {k} MIN",
    "BZMPOP 0 1 {k} MIN",
    "XREAD COUNT 1 STREAMS {k} 0",
    "XREADGROUP GROUP g c STREAMS acme:1 {k} > >",
    "MGET acme:1 {k}",
    "MSET acme:1 x {k} x",
    "RENAME acme:1 {k}",
    "SMOVE {k} acme:1 m",
    "LMOVE acme:1 {k} LEFT LEFT",
    "BITOP AND acme:1 acme:2 {k}",
    "PFMERGE {k} acme:1",
    "GEOSEARCHSTORE {k} acme:1 FROMMEMBER m BYRADIUS 1 m",
    "OBJECT ENCODING {k}",
    "MEMORY USAGE {k}",
    "XGROUP CREATE {k} g 0",
    "WATCH acme:1 {k}",
    "SINTERSTORE acme:1 {k}",
    "DUMP {k}",
    "SUBSCRIBE {k}",
    "PUBLISH {k} m",
    "SPUBLISH {k} m",
    "SSUBSCRIBE {k}",
]


def test_acl_judges_every_position(acl: Acl) -> None:
    """Own and shared keys pass wherever they stand; a foreign one does not."""
    foreign = ("globex:1", "acme2:1", "acm", "acme", "{acme}:1", "%other:x", "ACME:1", "xacme:1")
    for words in POSITIONS:
        assert acl.allows(*words.format(k="acme:2").split()), words
        for key in foreign:
            assert not acl.allows(*words.format(k=key).split()), (words, key)
        if not words.startswith(("SUB", "PUB", "SPUB", "SSUB")):
            assert acl.allows(*words.format(k="%shared:flags").split()), words


def test_acl_of_a_tenant_named_like_a_prefix(acl: Acl) -> None:
    """``acme`` owns nothing of ``acme.eu``, and the other way round."""
    acl.user("acme.eu", acl_rules("acme.eu"))
    assert acl.allows("GET", "acme.eu:1", name="acme.eu")
    assert not acl.allows("GET", "acme:1", name="acme.eu")
    assert not acl.allows("GET", "acme.eu:1", name="acme")
    assert not acl.allows("GET", "acmeXeu:1", name="acme.eu")


def test_acl_denies_looking_into_slots(acl: Acl) -> None:
    """These two are in no dangerous category on any server, and tell keys of everybody."""
    for name in ("acme", "fleet"):
        assert not acl.allows("CLUSTER", "GETKEYSINSLOT", "1", "10", name=name)
        assert not acl.allows("CLUSTER", "COUNTKEYSINSLOT", "1", name=name)


def test_acl_denies_every_store_of_georadius(acl: Acl, acme: redis.Redis) -> None:
    """Some servers check the first STORE and write to the last one."""
    acme.geoadd("acme:geo", (13.36, 38.11, "Palermo"))
    words = ["acme:geo", "13", "38", "200", "km", "STORE", "acme:d", "STORE", "globex:d"]
    with pytest.raises(redis.exceptions.NoPermissionError, match="no permissions"):
        acme.execute_command("GEORADIUS", *words)
    with pytest.raises(redis.exceptions.NoPermissionError, match="no permissions"):
        acme.execute_command(
            "GEORADIUSBYMEMBER", "acme:geo", "Palermo", "9", "km", "STORE", "acme:d", "STORE", "globex:d"
        )
    assert not acl.admin.exists("globex:d")
    assert acme.geosearchstore("acme:near", "acme:geo", longitude=13, latitude=38, radius=200, unit="km") == 1


def test_acl_applied_again_leaves_nothing_of_before(acl: Acl) -> None:
    """The list replaces what the user had, without ``reset`` too."""
    acl.admin.execute_command("ACL", "SETUSER", "again", "on", ">again", "+@all", "~*", "&*", "(+@all ~*)")
    acl.admin.execute_command("ACL", "SETUSER", "again", *acl_rules("acme"))
    assert acl.allows("GET", "acme:1", name="again")
    for words in (["GET", "globex:1"], ["RANDOMKEY"], ["FLUSHALL"], ["PUBLISH", "globex:1", "m"]):
        assert not acl.allows(*words, name="again")


# --- real connections -------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [2, 3])
def test_acl_serves_an_ordinary_client(acl: Acl, protocol: int) -> None:
    """What redis-py does by itself passes: handshake, names, health checks, locks, scripts, WATCH."""
    before = len(acl.admin.acl_log())
    options = {"client_name": "worker", "health_check_interval": 0.001}
    with acl.connect(protocol=protocol, **options) as client:
        assert client.set("acme:k", "v")
        assert client.mget("acme:k", "%shared:flags") == [b"v", b"on"]
        assert client.client_getname() in (b"worker", "worker")
        with client.lock("acme:lock", timeout=5) as lock:
            lock.extend(5)
            assert lock.owned()
        script = client.register_script("return redis.call('get', KEYS[1])")
        assert script(keys=["acme:k"]) == b"v"
        with client.pipeline() as pipe:
            pipe.watch("acme:k")
            pipe.multi()
            pipe.append("acme:k", "w").get("acme:k")
            assert pipe.execute() == [2, b"vw"]
        with client.pipeline(transaction=False) as pipe:
            script(keys=["acme:k"], client=pipe)
            assert pipe.execute() == [b"vw"]
        assert client.client_id()
        client.delete("acme:stream")
        client.xadd("acme:stream", {"a": 1})
        client.xgroup_create("acme:stream", "g", "0")
        assert client.xreadgroup("g", "c", {"acme:stream": ">"})
        assert client.blpop("acme:none", 0.01) is None
        assert client.time()
        assert client.object("encoding", "acme:k")
        assert client.memory_usage("acme:k")
    refused = {entry["object"] for entry in acl.admin.acl_log()[: len(acl.admin.acl_log()) - before]}
    assert not refused


def test_acl_serves_an_asyncio_client(acl: Acl) -> None:
    """The same for the asyncio client."""

    async def run() -> None:
        async with redis.asyncio.Redis(
            port=acl.server.port, username="acme", password="acme", client_name="w"
        ) as client:
            await client.set("acme:a", "v")
            async with client.lock("acme:alock", timeout=5):
                script = client.register_script("return redis.call('get', KEYS[1])")
                assert await script(keys=["acme:a"]) == b"v"
            async with client.pipeline() as pipe:
                assert await pipe.incr("acme:n").execute() == [1]
            await client.delete("acme:n")
            with pytest.raises(redis.exceptions.NoPermissionError, match="permissions"):
                await client.get("globex:1")
            assert await client.get("acme:a") == b"v"

    asyncio.run(run())


def test_acl_serves_pubsub_of_own_channels(acl: Acl, acme: redis.Redis) -> None:
    """Own channels, the one granted pattern and own keyspace notifications; nobody else's."""
    acl.admin.config_set("notify-keyspace-events", "KEA")
    with acme.pubsub() as pubsub:
        pubsub.subscribe("acme:news", "__keyspace@0__:acme:watched")
        pubsub.psubscribe("acme:*", "__keyspace@0__:acme:*")
        for _ in range(4):
            assert pubsub.get_message(timeout=5)["type"].endswith("subscribe")
        acme.publish("acme:news", "hello")
        assert pubsub.get_message(timeout=5)["data"] == b"hello"
    for channel in (
        "globex:news",
        "__keyspace@0__:globex:1",
        "__keyevent@0__:set",
        "__redis__:invalidate",
        "%shared:x",
    ):
        with (
            acme.pubsub() as pubsub,
            pytest.raises(redis.exceptions.NoPermissionError, match=r"channel|permissions"),
        ):
            pubsub.subscribe(channel)
            pubsub.get_message(timeout=5)


def test_acl_keyspace_pattern_is_not_met_by_foreign_keys(acl: Acl, acme: redis.Redis) -> None:
    """The name of a channel contains a key: ``__:acme:`` inside another tenant's key grants nothing."""
    assert not acl.allows("SUBSCRIBE", "__keyspace@0__:globex:cart:x__:acme:1")
    assert not acl.allows("SUBSCRIBE", "__keyspace@00__:acme:1")


# --- keys inside scripts ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        "return redis.call('get', 'globex:1')",
        "return redis.call('get', (KEYS[1]:gsub('acme', 'globex')))",
        "return redis.call('set', 'globex:1', 'x')",
        "return redis.call('del', 'globex:1')",
        "return redis.call('randomkey')",
        "return redis.call('scan', '0')",
        "return redis.call('keys', '*')",
        "return redis.call('dbsize')",
        "return redis.call('flushall')",
        "return redis.call('select', '1')",
        "return redis.call('publish', 'globex:news', 'x')",
        "return redis.call('copy', 'acme:1', 'acme:2', 'DB', '1')",
        "return redis.call('sort', 'acme:list', 'by', 'globex:*')",
        "return redis.call('georadius', 'acme:geo', 13, 38, 9, 'km', 'STORE', 'acme:d', 'STORE', 'globex:d')",
        "return redis.call('config', 'get', '*')",
        "return redis.call('acl', 'setuser', 'acme', '~*')",
    ],
)
def test_acl_holds_inside_lua(acl: Acl, acme: redis.Redis, body: str) -> None:
    """A client's guard sees KEYS alone; the server judges what the script calls."""
    with pytest.raises(redis.ResponseError, match=r"permission|ACL|can't|not allowed"):
        acme.eval(body, 1, "acme:1")
    assert acl.admin.get("globex:1") == b"secret"
    assert not acl.admin.exists("globex:d")


def test_acl_lets_scripts_use_own_and_shared_keys(acme: redis.Redis) -> None:
    """Scripts work on what the user may touch, declared in KEYS or not."""
    assert acme.eval("return redis.call('get', 'acme:1')", 0) == b"mine"
    assert acme.eval("return redis.call('get', KEYS[1])", 1, "%shared:flags") == b"on"


def test_acl_holds_inside_functions(acl: Acl, acme: redis.Redis) -> None:
    """An administrator's function gets no further than its caller may."""
    acl.admin.function_load(
        "#!lua name=lib\nredis.register_function('peek', function(keys, args) return redis.call('get', args[1]) end)",
        replace=True,
    )
    assert acme.fcall("peek", 0, "acme:1") == b"mine"
    with pytest.raises(redis.ResponseError, match=r"permission|ACL|can't"):
        acme.fcall("peek", 0, "globex:1")
    for words in (
        ["FUNCTION", "LIST"],
        ["FUNCTION", "FLUSH"],
        ["FUNCTION", "LOAD", "x"],
        ["SCRIPT", "FLUSH"],
    ):
        with pytest.raises(redis.exceptions.NoPermissionError, match="no permissions"):
            acme.execute_command(*words)


# --- identity ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", [["RESET"], ["AUTH", "default", "x"], ["HELLO", "3", "AUTH", "default", "x"]])
def test_acl_identity_with_default_off(acl: Acl, way: list[str]) -> None:
    """RESET, AUTH and HELLO pass every ACL; with ``default`` off they lead nowhere."""
    acl.admin.execute_command("ACL", "SETUSER", "root", "reset", "+@all", "~*", "&*", "on", ">root")
    with acl.connect("root") as root:
        root.execute_command("ACL", "SETUSER", "default", "off")
        try:
            once = Retry(NoBackoff(), 0)  # else redis-py logs in again as acme
            with acl.connect(protocol=2, single_connection_client=True, retry=once) as client:
                try:
                    client.execute_command(*way)
                except redis.AuthenticationError:
                    assert client.get("acme:1") == b"mine"  # the attempt changed nothing
                else:
                    with pytest.raises(redis.AuthenticationError, match="Authentication required"):
                        client.execute_command("GET", "globex:1")
        finally:
            root.execute_command("ACL", "SETUSER", "default", "on")


def test_acl_reset_leads_to_default_while_it_is_on(acl: Acl) -> None:
    """Why ``default`` must be off: no rule can deny RESET."""
    with acl.connect(protocol=2, single_connection_client=True) as client:
        client.execute_command("RESET")
        assert client.get("globex:1") == b"secret"


# --- the fleet's user -----------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["acme:1", "globex:1", "7:x", "%shared:flags", "a-b.c_d:x"])
def test_service_acl_reaches_every_tenant(acl: Acl, key: str) -> None:
    """Whatever a key function can return."""
    assert acl.allows("GET", key, name="fleet")
    assert acl.allows("EVAL", "return 1", "1", key, name="fleet")


@pytest.mark.parametrize(
    "key", ["bare", "_kombu.binding.celery", "%other:x", "%shared", ":x", "-a:x", "{acme}:1", "", "_:x"]
)
def test_service_acl_refuses_what_has_no_prefix(acl: Acl, key: str) -> None:
    """Names that no tenant id can begin."""
    assert not acl.allows("GET", key, name="fleet")


@pytest.mark.parametrize("key", ["user:1", "a b:c", "none:x", "a" * 64 + ":x", "acme-:x"])
def test_service_acl_lets_through_what_globs_cannot_tell(acl: Acl, key: str) -> None:
    """Documented: a glob knows neither the length nor the reserved words of ids."""
    assert acl.allows("GET", key, name="fleet")


def test_service_acl_serves_pubsub(acl: Acl) -> None:
    """Channels of any tenant by name; no pattern, since a pattern must equal a granted one."""
    assert acl.allows("SUBSCRIBE", "acme:news", name="fleet")
    assert acl.allows("SUBSCRIBE", "__keyspace@0__:acme:1", name="fleet")
    assert not acl.allows("SUBSCRIBE", "news", name="fleet")
    assert not acl.allows("PSUBSCRIBE", "acme:*", name="fleet")


# --- what the guard passes and the rules deny: a test per row of the documented table ---------------------

ROWS: dict[str, Callable[[redis.Redis], object]] = {
    "SCAN": lambda client: client.scan(match="acme:*"),
    "SORT": lambda client: client.sort("acme:list"),
    "SORT_RO": lambda client: client.execute_command("SORT_RO", "acme:list"),
    "SELECT": lambda client: redis.Redis(**{**_arguments(client), "db": 1}).get("acme:1"),
    "PUBSUB CHANNELS": lambda client: client.pubsub_channels("acme:*"),
    "PUBSUB NUMSUB": lambda client: client.pubsub_numsub("acme:news"),
    "PUBSUB SHARDCHANNELS": lambda client: client.pubsub_shardchannels("acme:*"),
    "PUBSUB SHARDNUMSUB": lambda client: client.pubsub_shardnumsub("acme:news"),
    "PSUBSCRIBE": lambda client: _subscribed(client, "psubscribe", "acme:x*"),
    "SUBSCRIBE __keyspace@1__:acme:x": lambda client: _subscribed(
        client, "subscribe", "__keyspace@1__:acme:x"
    ),
    "COPY": lambda client: client.copy("acme:1", "acme:2"),
    "RESTORE": lambda client: client.restore("acme:2", 0, client.dump("acme:1")),
    "GEORADIUS": lambda client: client.georadius("acme:geo", 13, 38, 1, store="acme:d"),
    "GEORADIUSBYMEMBER": lambda client: client.georadiusbymember("acme:geo", "m", 1),
    "XREADGROUP": lambda client: client.execute_command(
        "XREADGROUP", "COUNT", 1, "GROUP", "streams", "c", "STREAMS", "acme:stream", ">"
    ),
    "PFDEBUG": lambda client: client.execute_command("PFDEBUG", "ENCODING", "acme:hll"),
    "CLIENT TRACKING": lambda client: redis.Redis(
        **_arguments(client), protocol=3, cache_config=CacheConfig()
    ).get("acme:1"),
    "VADD": lambda client: client.execute_command("VADD", "acme:v", "VALUES", 1, 0.5, "m"),
}


def _arguments(client: redis.Redis) -> dict[str, Any]:
    return {"port": client.connection_pool.connection_kwargs["port"], "username": "acme", "password": "acme"}


def _subscribed(client: redis.Redis, how: str, channel: str) -> object:
    with client.pubsub() as pubsub:
        getattr(pubsub, how)(channel)
        return pubsub.get_message(timeout=5)


@pytest.mark.parametrize("row", ROWS)
def test_guard_passes_and_acl_denies(acl: Acl, row: str) -> None:
    """The server's own refusal, or its word that it has no such command; never the guard's."""
    if row == "CLIENT TRACKING" and not _caches(acl):
        assert not acl.allows("CLIENT", "TRACKING", "ON")  # redis-py has no cache for this server
        return
    expected = r"permission|unknown command" if row == "VADD" else "permission"
    with guard(acl.connect()) as client, tenant_scope("acme"):
        with pytest.raises(redis.ResponseError, match=expected) as caught:
            ROWS[row](client)
    assert not isinstance(caught.value, TenancyError)
    assert isinstance(caught.value, redis.exceptions.NoPermissionError) or "unknown command" in str(
        caught.value
    )


def _caches(acl: Acl) -> bool:
    return int(str(acl.admin.info()["redis_version"]).split(".")[0]) >= 8


def test_documented_table_is_the_tested_one() -> None:
    """Every command that the page names in its table has a row here, and the other way round."""
    page = (Path(__file__).parents[3] / "docs/how-to/redis-acl-users.md").read_text(encoding="utf-8")
    table = page.partition("| command | why | instead |")[2].partition("\n\n")[0]
    named = {
        name
        for line in table.splitlines()
        for name in re.findall(r"`([^`]+)`", line.split("|")[1] if "|" in line else "")
    }
    assert named == set(ROWS)


def test_documented_patterns_pass_both(acl: Acl) -> None:
    """The patterns that are granted letter by letter are the guard's own, too."""
    with guard(acl.connect()) as client, tenant_scope("acme"):
        for pattern in ("acme:*", "__keyspace@0__:acme:*"):
            assert _subscribed(client, "psubscribe", pattern)["type"] == "psubscribe"  # type: ignore[index]
