"""The packers: they judge what reaches them past the call site, and pack what redis-py would."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("redis")

import redis
import redis.asyncio
from redis.connection import PythonRespSerializer

from tenantry import CrossTenantError, NoTenantError, TenancyError, tenant_scope
from tenantry.integrations.redis import guard
from tenantry.integrations.redis.packing import Window, this_task, this_thread
from tests.contracts.redis_credentials import Streaming


def _python(encoding: str = "utf-8") -> Any:
    """A client that packs without hiredis."""
    encode = redis.connection.Encoder(encoding, "strict", False).encode
    packer = PythonRespSerializer(6000, encode)
    return redis.Redis(connection_pool=redis.ConnectionPool(command_packer=packer, encoding=encoding))


# No server is asked: a connection is made, and packs.
CLIENTS: dict[str, Callable[[], Any]] = {
    "default": redis.Redis,
    "python": _python,
    "asyncio": redis.asyncio.Redis,
}
WIDE: dict[str, Callable[[], Any]] = {
    "python": lambda: _python("utf-16-le"),
    "asyncio": lambda: redis.asyncio.Redis(encoding="utf-16-le"),
}


def packing(client: Any) -> Callable[..., bytes]:
    """How a new connection of ``client`` packs."""
    connection = client.connection_pool.make_connection()
    return lambda *args: b"".join(bytes(part) for part in connection.pack_command(*args))


@pytest.mark.parametrize("name", CLIENTS)
@pytest.mark.parametrize(
    "args",
    [
        ("GET", "acme:1"),
        ("get", "acme:1"),
        ("GET acme:1",),
        (b"GET", b"acme:1"),
        ("SET", "acme:1", "\xe9"),
        ("SET", "acme:1", b"\xff", "EX", 5),
        ("SET", "acme:1", 1.5),
        pytest.param(("SET", memoryview(b"acme:1"), "x" * 10_000), id="a view and a long text"),
        ("MGET", "acme:1", "acme:2"),
        ("EVALSHA", "sha", 1, "acme:1", "globex:1"),
        ("XREAD", b"STREAMS", "acme:1", "$"),
        ("CLIENT SETNAME", "x"),
    ],
    ids=str,
)
def test_what_passes_is_packed_as_without_the_guard(name: str, args: tuple[Any, ...]) -> None:
    """Byte for byte, by each way that a command may take through the packer."""
    guarded, plain = packing(guard(CLIENTS[name]())), packing(CLIENTS[name]())
    with tenant_scope("acme"):
        assert guarded(*args) == plain(*args)


@pytest.mark.parametrize("name", CLIENTS)
@pytest.mark.parametrize(
    "args",
    [
        ("GET", "globex:1"),
        ("GET globex:1",),
        (b"GET", b"globex:1"),
        ("SET", bytearray(b"globex:1"), "x"),
        ("MGET", "acme:1", "globex:1"),
        ("EVALSHA", "sha", 1, "globex:1"),
        ("AUTH", "pw"),
        ("GET",),
        (),
    ],
    ids=str,
)
def test_what_is_foreign_is_not_packed(name: str, args: tuple[Any, ...]) -> None:
    """Whoever holds a connection of a guarded client is judged."""
    guarded = packing(guard(CLIENTS[name]()))
    with tenant_scope("acme"), pytest.raises(TenancyError, match=r"refused|known"):
        guarded(*args)
    with pytest.raises(NoTenantError, match="needs an active tenant"):
        guarded(*args)


@pytest.mark.parametrize("name", WIDE)
def test_text_counts_by_the_bytes_that_the_connection_makes_of_it(name: str) -> None:
    """In UTF-16 no text starts with the prefix, though it reads so."""
    guarded, plain = packing(guard(WIDE[name]())), packing(WIDE[name]())
    with tenant_scope("acme"):
        for command in ("GET", "MGET"):
            with pytest.raises(CrossTenantError, match=f"{command}, argument 1 .*no tenant prefix"):
                guarded(command, "acme:1")
        args = ("SET", b"acme:1", "\xe9")
        assert guarded(*args) == plain(*args)


def test_hiredis_packs_utf8_whatever_the_client_says() -> None:
    """So that is what its text is judged by."""
    hiredis = pytest.importorskip("hiredis")
    guarded = packing(guard(redis.Redis(encoding="utf-16-le")))
    with tenant_scope("acme"):
        assert guarded("GET", "acme:1") == hiredis.pack_command(("GET", "acme:1"))
        careful = ("SET", b"acme:1", "\xe9")
        assert guarded(*careful) == hiredis.pack_command(careful)
        with pytest.raises(CrossTenantError, match="GET"):
            guarded("GET", "acme:1".encode("utf-16-le"))


class OwnPacker:
    """Packs in a way of its own."""

    def pack(self, *args: Any) -> list[bytes]:
        return [b"own ", b" ".join(arg if isinstance(arg, bytes) else arg.encode() for arg in args)]


class OwnConnection(redis.asyncio.Connection):
    """The same for asyncio, where the connection packs."""

    def pack_command(self, *args: Any) -> list[bytes]:
        return OwnPacker().pack(*args)


@pytest.mark.parametrize(
    "pool",
    [
        lambda: redis.ConnectionPool(command_packer=OwnPacker()),
        lambda: redis.asyncio.ConnectionPool(connection_class=OwnConnection),
    ],
)
def test_packer_of_its_own_packs_what_was_judged(pool: Any) -> None:
    """Whatever it makes of it, it is still asked, and asked for nothing that is foreign."""
    found = pool()
    kind = redis.asyncio.Redis if isinstance(found, redis.asyncio.ConnectionPool) else redis.Redis
    guarded = packing(guard(kind(connection_pool=found)))
    with tenant_scope("acme"):
        assert guarded("GET", "acme:1") == guarded("GET", b"acme:1") == b"own GET acme:1"
        with pytest.raises(CrossTenantError, match="GET"):
            guarded("GET", "globex:1")


@pytest.mark.parametrize("kind", [redis.Redis, redis.asyncio.Redis])
def test_client_with_a_token_authenticates_again_from_wherever_it_is_renewed(kind: Any) -> None:
    """With no tenant, and it alone: nothing else passes, nor does an AUTH of another client's."""
    guarded = packing(guard(kind(credential_provider=Streaming())))
    assert guarded("AUTH", "default", "pw") == packing(kind())("AUTH", "default", "pw")
    for words in (("HELLO", 3), ("GET", "AUTH"), ("RESET",)):
        with pytest.raises(NoTenantError, match="needs an active tenant"):
            guarded(*words)
    with pytest.raises(NoTenantError, match="AUTH"):
        packing(guard(kind()))("AUTH", "default", "pw")


class Text(str):
    """Text of a type of its own."""

    __slots__ = ()


def _python_packer() -> Any:
    """The packer of a guarded client's connection where hiredis is not used."""
    return guard(_python()).connection_pool.make_connection()._command_packer


@pytest.mark.parametrize("key", ["globex:1", "acme", "1", b"globex:1", "acmeglobex:1"])
def test_python_packer_judges_one_key_by_itself(key) -> None:
    """What reaches the packer past the call site is refused there."""
    packer = _python_packer()
    with tenant_scope("acme"):
        assert b"".join(packer.pack("GET", "acme:1")) == b"*2\r\n$3\r\nGET\r\n$6\r\nacme:1\r\n"
        with pytest.raises(CrossTenantError, match="argument 1"):
            packer.pack("GET", key)
    for nobodys in ("acme:1", "None:1"):
        with pytest.raises(NoTenantError, match="GET"):
            packer.pack("GET", nobodys)


@pytest.mark.parametrize(
    "words", [(), ("GET",), (Text("GET"), "globex:1"), (b"GET", "globex:1"), ("GET", "acme:1", ["globex:1"])]
)
def test_python_packer_leaves_the_rest_to_the_verdict(words: tuple[Any, ...]) -> None:
    """Whatever is no single key in plain text is judged as bytes, or is nothing that redis-py sends."""
    packer = _python_packer()
    with tenant_scope("acme"), pytest.raises((TenancyError, redis.DataError), match=r"refused|known|Invalid"):
        packer.pack(*words)


class Lying(str):
    """Text that encodes itself as a command on another tenant's key."""

    __slots__ = ()

    def encode(self, *args: Any) -> bytes:
        return b"DEL globex:1"


@pytest.mark.parametrize("name", CLIENTS)
def test_name_that_lies_is_packed_by_its_underlying_value(name: str) -> None:
    """The Python packer asks a name to encode itself, and splits what comes out."""
    guarded = packing(guard(CLIENTS[name]()))
    with tenant_scope("acme"):
        assert guarded(Lying("GET"), "acme:1") == guarded("GET", "acme:1")
        with pytest.raises(redis.DataError, match="Invalid input of type: 'list'"):
            guarded(["GET"], "acme:1")


async def test_whoever_runs_is_somebody() -> None:
    """A window that is open for nobody must be open for no one; a callback runs in no task."""
    loop = asyncio.get_running_loop()
    seen = loop.create_future()
    loop.call_soon(lambda: seen.set_result(this_task()))
    assert await seen == this_thread() == threading.get_ident()
    assert this_task() is asyncio.current_task()
    window = Window()
    for who in (None, this_task(), this_thread()):
        assert not window.is_open_for(who)


def test_window_of_a_connection_that_connects_again_is_restored() -> None:
    """Connecting nests: whoever connected before goes on."""
    window = Window()
    outer = window.open_for("outer")
    inner = window.open_for("inner")
    assert window.is_open_for("inner")
    assert not window.is_open_for("outer")
    window.leave(inner)
    assert window.is_open_for("outer")
    window.leave(outer)
    assert not window.is_open_for("outer")


def test_this_task_without_a_loop_is_the_thread() -> None:
    """An asyncio connection may be packed by hand."""
    assert this_task() == this_thread() == threading.get_ident()
