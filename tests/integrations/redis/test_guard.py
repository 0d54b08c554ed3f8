"""guard on a client of one server, over fakeredis: nothing foreign is sent, nothing breaks."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("redis")
pytest.importorskip("fakeredis")

import fakeredis
import redis
import redis.asyncio

from tenantry import NoTenantError, TenancyError, tenant_scope, without_tenant
from tenantry.errors import CrossTenantError, UnknownCommandError
from tenantry.integrations.redis import guard


@pytest.fixture
def server() -> Any:
    """One fake server for guarded and plain clients."""
    return fakeredis.FakeServer()


@pytest.fixture
def plain(server: Any) -> Any:
    """A client that was never guarded, with a key of each tenant."""
    client = fakeredis.FakeRedis(server=server)
    client.mset({"acme:1": "a", "globex:1": "secret"})
    return client


@pytest.fixture
def client(server: Any, plain: Any) -> Any:
    """A guarded client."""
    return guard(fakeredis.FakeRedis(server=server))


@contextlib.contextmanager
def writes_nothing(plain: Any) -> Iterator[None]:
    """The server holds afterwards what it held before."""

    def content() -> dict[bytes, bytes]:
        return {key: plain.dump(key) for key in plain.keys()}

    before = content()
    yield
    assert content() == before


def test_guard_returns_the_same_client_and_leaves_its_type(server: Any) -> None:
    """The client is changed in place and stays an instance of what it was."""
    client = fakeredis.FakeRedis(server=server)
    assert guard(client) is client
    assert isinstance(client, fakeredis.FakeRedis)
    assert type(client).__name__ == "FakeRedis"


def test_guard_passes_own_and_refuses_foreign(client: Any, plain: Any) -> None:
    """The two things that it is for."""
    with tenant_scope("acme"):
        assert client.get("acme:1") == b"a"
        with writes_nothing(plain), pytest.raises(CrossTenantError, match="GET, argument 1"):
            client.get("globex:1")
        with writes_nothing(plain), pytest.raises(CrossTenantError, match="MSET, argument 3"):
            client.mset({"acme:2": 1, "globex:2": 2})


def test_guard_refuses_everything_without_a_tenant(client: Any, plain: Any) -> None:
    """No tenant, explicitly none or not, is no tenant."""
    with writes_nothing(plain), pytest.raises(NoTenantError, match="SET needs an active tenant"):
        client.set("acme:2", 1)
    with (
        without_tenant(reason="test"),
        writes_nothing(plain),
        pytest.raises(NoTenantError, match="without_tenant"),
    ):
        client.set("acme:2", 1)
    assert client.ping()


def test_guard_is_idempotent(client: Any) -> None:
    """Guarding twice is guarding once; the second call may add commands."""
    kind, pool = type(client), type(client.connection_pool)
    assert guard(client) is client
    assert (type(client), type(client.connection_pool)) == (kind, pool)
    with tenant_scope("acme"):
        with pytest.raises(UnknownCommandError, match=r"MYMOD\.GET"):
            client.execute_command("MYMOD.GET", "acme:1")
        guard(client, commands={"mymod.get": 1})
        with pytest.raises(CrossTenantError, match=r"MYMOD\.GET, argument 1"):
            client.execute_command("MYMOD.GET", "globex:1")
        with pytest.raises(redis.ResponseError, match="unknown command"):
            client.execute_command("MYMOD.GET", "acme:1")


def test_guarding_again_guards_the_pool_that_it_was_given_meanwhile(client: Any, server: Any) -> None:
    """And proves it."""
    client.connection_pool = fakeredis.FakeRedis(server=server).connection_pool
    guard(client)
    connection = client.connection_pool.get_connection()
    with tenant_scope("acme"), pytest.raises(CrossTenantError):
        connection.send_command("GET", "globex:1")
    client.connection_pool.release(connection)


def test_declared_commands_are_of_one_client(client: Any, server: Any) -> None:
    """Another client does not know them."""
    other = guard(fakeredis.FakeRedis(server=server), commands={"MYMOD.GET": 1})
    with tenant_scope("acme"):
        with pytest.raises(redis.ResponseError, match="unknown command"):
            other.execute_command("MYMOD.GET", "acme:1")
        with pytest.raises(UnknownCommandError, match=r"MYMOD\.GET"):
            client.execute_command("MYMOD.GET", "acme:1")


async def test_connection_class_that_greets_the_server_may(server: Any, plain: Any) -> None:
    """What a class of its own sends while it connects is the client's own; nothing else is."""
    greetings: list[bytes] = []

    class Greeting(plain.connection_pool.connection_class):  # type: ignore[misc]
        def connect(self) -> None:
            super().connect()
            self.send_command("CLIENT", "SETNAME", "greeted")
            greetings.append(self.read_response())

    later = fakeredis.FakeAsyncRedis(server=server)

    class AsyncGreeting(later.connection_pool.connection_class):  # type: ignore[misc]
        async def connect(self) -> None:
            await super().connect()
            await self.send_command("CLIENT", "SETNAME", "greeted")
            greetings.append(await self.read_response())

    for client, kind in ((fakeredis.FakeRedis(server=server), Greeting), (later, AsyncGreeting)):
        client.connection_pool.connection_class = kind
        guard(client)
        connection = client.connection_pool.make_connection()
        greeted = connection.connect()
        if greeted is not None:
            await greeted
        with pytest.raises(NoTenantError, match="CLIENT SETNAME"):
            sent = connection.send_command("CLIENT", "SETNAME", "x")
            if sent is not None:
                await sent
    assert greetings == [b"OK", b"OK"]
    await later.aclose()


class AsyncUntracked(redis.asyncio.ConnectionPool):
    """Makes connections by itself, and keeps no list."""

    async def get_connection(self, *args: Any, **kwargs: Any) -> Any:
        connection = self.connection_class(**self.connection_kwargs)
        await connection.connect()
        return connection

    async def release(self, connection: Any) -> None:
        await connection.disconnect()


async def test_asyncio_pool_with_a_way_of_its_own_is_guarded(server: Any, plain: Any) -> None:
    """What it hands out is guarded, wherever it got it from."""
    stock = fakeredis.FakeAsyncRedis(server=server).connection_pool
    pool = AsyncUntracked(connection_class=stock.connection_class, server=server)
    client = guard(redis.asyncio.Redis(connection_pool=pool))
    with tenant_scope("acme"):
        assert await client.get("acme:1") == b"a"
        connection = await pool.get_connection()
        with pytest.raises(CrossTenantError, match="GET"):
            await connection.send_command("GET", "globex:1")
        await connection.disconnect()
    await client.aclose()


def test_declaration_wins_over_what_is_known(server: Any, plain: Any) -> None:
    """At the call, in a pipeline and on the connection: a server may have another command of that name."""
    client = guard(fakeredis.FakeRedis(server=server))
    guard(client, commands={"GET": 2})
    connection = client.connection_pool.make_connection()
    words = ("GET", "acme:1", "globex:1")
    with tenant_scope("acme"):
        for send in (
            client.execute_command,
            client.pipeline().execute_command,
            connection.send_command,
        ):
            with pytest.raises(CrossTenantError, match="GET, argument 2"):
                send(*words)


@pytest.mark.parametrize("thing", [None, "redis://", object(), redis.ConnectionPool(), redis.Redis, 1])
def test_guard_refuses_what_is_no_client(thing: Any) -> None:
    """Only clients of redis-py's can be guarded."""
    with pytest.raises(TypeError, match="guard takes"):
        guard(thing)


@pytest.mark.parametrize("commands", [{"X": "1"}, {"X": -1}])
def test_guard_with_a_bad_option_changes_nothing(server: Any, commands: Any) -> None:
    """The option is checked first."""
    client = fakeredis.FakeRedis(server=server)
    kind = type(client)
    with pytest.raises((TypeError, ValueError), match="position"):
        guard(client, commands=commands)
    assert type(client) is kind


SMUGGLED = [
    ("GET globex:1",),
    (b"GET globex:1",),
    ("GET\tglobex:1",),
    ("GET\nglobex:1",),
    ("mEmOrY usage", "globex:1"),
    ("MEMORY", b"USAGE", "globex:1"),
    (b"MEMORY USAGE", "globex:1"),
    (" GET ", "globex:1"),
    ("", "GET", "globex:1"),
    (" ", "GET", "globex:1"),
    ("MGET acme:1", "globex:1"),
    (bytearray(b"GET globex:1"),),
    (b"GET\tglobex:1",),
    (b"GET\x0bglobex:1",),
    (b"GET\nglobex:1",),
    (memoryview(b"GET\rglobex:1"),),
    (b"", "GET", "globex:1"),
]


@pytest.mark.parametrize("words", SMUGGLED)
def test_first_argument_cannot_smuggle_a_key(client: Any, words: tuple[Any, ...]) -> None:
    """The packers split the first argument; so does the guard, at every white space and for every type."""
    with tenant_scope("acme"), pytest.raises(CrossTenantError, match="refused"):
        client.execute_command(*words)


def test_first_argument_that_splits_into_own_keys_passes(client: Any) -> None:
    """Splitting is not refused by itself."""
    with tenant_scope("acme"):
        assert client.execute_command("MGET acme:1", "acme:2") == [b"a", None]
        assert client.execute_command("get\tacme:1") == b"a"
        assert client.execute_command(b"get\tacme:1") == b"a"


class Lying(str):
    """Text that encodes, compares and prints as another."""

    __slots__ = ()

    def encode(self, *args: Any) -> bytes:
        return b"globex:1"

    def __str__(self) -> str:
        return "globex:1"

    def __eq__(self, other: object) -> bool:
        return other == "acme:1"

    def __hash__(self) -> int:
        return hash("acme:1")

    def startswith(self, *args: Any) -> bool:
        return True


def test_text_that_lies_counts_by_its_underlying_value(client: Any, plain: Any) -> None:
    """What was judged is what is sent, for subclasses of str."""
    with tenant_scope("acme"):
        assert client.get(Lying("acme:1")) == b"a"
        with pytest.raises(CrossTenantError, match="GET"):
            client.get(Lying("globex:1"))
        assert client.set(Lying("acme:2"), "x")
    assert plain.get("acme:2") == b"x"


@pytest.mark.parametrize("make", [bytearray, memoryview, lambda raw: memoryview(bytearray(raw))])
def test_buffers_are_judged_and_sent_by_their_bytes(client: Any, make: Any) -> None:
    """Bytearray and memoryview keys work, and are refused where they are foreign."""
    with tenant_scope("acme"):
        assert client.get(make(b"acme:1")) == b"a"
        with pytest.raises(CrossTenantError, match="GET"):
            client.get(make(b"globex:1"))


def test_buffer_that_changes_after_it_was_queued_does_not_change_the_command(client: Any, plain: Any) -> None:
    """A pipeline keeps the bytes that it judged."""
    key = bytearray(b"acme:22")
    with tenant_scope("acme"):
        pipe = client.pipeline().set(memoryview(key), "x")
        key[:] = b"globex1"[:7]
        pipe.execute()
    assert plain.get("acme:22") == b"x"


@pytest.mark.parametrize("value", [None, True, object(), [b"x"]])
def test_values_that_redis_py_does_not_send_stay_its_own_error(client: Any, value: Any) -> None:
    """The guard does not widen what may be sent."""
    with tenant_scope("acme"), pytest.raises(redis.DataError, match=r"Invalid input|must be"):
        client.set("acme:1", value)


@pytest.mark.parametrize("value", [1, -5, 1.5, 10**30, "é", b"\xff", memoryview(b"y"), ""])
def test_values_arrive_as_without_the_guard(client: Any, plain: Any, value: Any) -> None:
    """What is sent is byte for byte what an unguarded client sends."""
    with tenant_scope("acme"):
        client.set("acme:v", value)
    plain.set("globex:v", value)
    assert plain.get("acme:v") == plain.get("globex:v")


def test_connection_serves_on_after_a_thousand_refusals(client: Any) -> None:
    """A refusal neither breaks nor leaks a connection, and is not retried."""
    pool = client.connection_pool
    with tenant_scope("acme"):
        for _ in range(1000):
            with pytest.raises(CrossTenantError, match="GET"):
                client.get("globex:1")
            assert client.get("acme:1") == b"a"
    assert len(pool._available_connections) == 1
    assert not pool._in_use_connections


def test_refusal_needs_no_server() -> None:
    """It comes before a connection is asked for."""
    client = guard(redis.Redis(port=1))
    with tenant_scope("acme"), pytest.raises(CrossTenantError, match="GET"):
        client.get("globex:1")
    with pytest.raises(NoTenantError, match="GET"):
        client.get("acme:1")


# --- pipelines -----------------------------------------------------------------------------------


@pytest.mark.parametrize("transaction", [True, False])
def test_pipeline_with_one_foreign_command_writes_nothing(client: Any, plain: Any, transaction: bool) -> None:
    """It is refused when it is queued, and the rest is not sent."""
    with tenant_scope("acme"), writes_nothing(plain), pytest.raises(CrossTenantError, match="SET"):
        client.pipeline(transaction=transaction).set("acme:2", 1).set("globex:2", 2).execute()


@pytest.mark.parametrize("transaction", [True, False])
def test_pipeline_belongs_to_the_tenant_of_its_first_command(
    client: Any, plain: Any, transaction: bool
) -> None:
    """Under another tenant or none it raises, and keeps what it holds."""
    pipe = client.pipeline(transaction=transaction)
    with tenant_scope("acme"):
        pipe.set("acme:2", 1)
    with writes_nothing(plain):
        with pytest.raises(NoTenantError, match="EXEC"):
            pipe.execute()
        with tenant_scope("globex"):
            with pytest.raises(CrossTenantError, match=r"EXEC.*pipeline"):
                pipe.execute()
            with pytest.raises(CrossTenantError, match=r"SET.*pipeline"):
                pipe.set("globex:2", 1)
    with tenant_scope("acme"):
        assert pipe.execute() == [True]
    with tenant_scope("globex"):
        assert pipe.set("globex:2", 1).execute() == [True]


async def test_asyncio_pipeline_belongs_to_the_tenant_of_its_first_command(server: Any, plain: Any) -> None:
    """The same for asyncio: what it holds stays whole until its tenant executes it, or it is reset."""
    client = guard(fakeredis.FakeAsyncRedis(server=server))
    pipe = client.pipeline()
    with tenant_scope("acme"):
        pipe.set(b"acme:2", 1)
    with writes_nothing(plain):
        with pytest.raises(NoTenantError, match="EXEC"):
            await pipe.execute()
        with tenant_scope("globex"), pytest.raises(CrossTenantError, match=r"EXEC.*pipeline"):
            await pipe.execute()
    with tenant_scope("acme"):
        assert await pipe.execute() == [True]
    with tenant_scope("globex"):
        pipe.set("globex:2", 1)
    await pipe.reset()
    with tenant_scope("acme"):
        assert await pipe.set("acme:3", 1).execute() == [True]
    await client.aclose()


@pytest.mark.parametrize("kind", ["quick", "careful"])
async def test_key_of_the_pipelines_tenant_is_not_queued_under_another(
    client: Any, server: Any, kind: str
) -> None:
    """Its owner's keys are its owner's alone, however well they would fit in."""
    key: Any = "acme:2" if kind == "quick" else b"acme:2"
    later = guard(fakeredis.FakeAsyncRedis(server=server))
    for pipe in (client.pipeline(), later.pipeline()):
        with tenant_scope("acme"):
            pipe.set(key, 1)
        with tenant_scope("globex"), pytest.raises(CrossTenantError, match="SET, argument 1"):
            pipe.set(key, 2)
        with pytest.raises(NoTenantError, match="SET"):
            pipe.set(key, 3)
        assert len(pipe.command_stack) == 1
    await later.aclose()


@pytest.mark.parametrize(
    "words", [(), ("GET",), (["GET"], "acme:1"), ("GET", ["acme:1"]), ("GET globex:1",), ("NOPE", "acme:1")]
)
def test_pipeline_queues_no_command_that_it_cannot_judge(client: Any, words: tuple[Any, ...]) -> None:
    """Where there is no name, no key or nothing that redis-py sends, nothing is queued."""
    pipe = client.pipeline()
    with tenant_scope("acme"):
        pipe.get("acme:1")
        with pytest.raises((TenancyError, redis.DataError), match=r"refused|known|Invalid"):
            pipe.execute_command(*words)
        assert pipe.execute() == [b"a"]


def test_pipeline_takes_keys_of_every_type(client: Any) -> None:
    """Bytes are no less a key, and a shared command binds nobody."""
    pipe = client.pipeline()
    pipe.ping()
    with tenant_scope("acme"):
        pipe.get(b"acme:1").get(bytearray(b"acme:1")).mget("acme:1", b"acme:2")
        assert pipe.execute() == [True, b"a", b"a", [b"a", None]]


class Counting(redis.client.Pipeline):
    """A pipeline with an ``execute_command`` of its own."""

    seen = 0

    def execute_command(self, *args: Any, **options: Any) -> Any:
        self.seen += 1
        return super().execute_command(*args, **options)


def test_pipeline_of_a_class_of_its_own_is_asked(client: Any) -> None:
    """The short cut past redis-py's own method is for redis-py's own method."""
    pipe = Counting(client.connection_pool, client.response_callbacks, True, None)
    client._tenantry.adopt(pipe)
    with tenant_scope("acme"):
        assert pipe.get("acme:1").get("acme:2").execute() == [b"a", None]
        assert pipe.seen == 2
        with pytest.raises(CrossTenantError, match="GET"):
            pipe.get("globex:1")
    assert pipe.seen == 2


def test_pipeline_in_another_encoding_is_judged_by_the_bytes() -> None:
    """When it is queued, as everywhere: in UTF-16 no text starts with the prefix."""
    encode = redis.connection.Encoder("utf-16-le", "strict", False).encode
    packer = redis.connection.PythonRespSerializer(6000, encode)
    pool = redis.ConnectionPool(command_packer=packer, encoding="utf-16-le", port=1)
    client = guard(redis.Redis(connection_pool=pool))
    with tenant_scope("acme"):
        for each in (client, client.pipeline()):
            with pytest.raises(CrossTenantError, match="no tenant prefix"):
                each.set("acme:1", 1)
        pipe = client.pipeline().set(b"acme:1", 1)
        with pytest.raises(CrossTenantError, match="no tenant prefix"):
            pipe.set("acme:1", 2)
        assert len(pipe.command_stack) == 1


@pytest.mark.parametrize("module", ["json", "ts", "ft"])
async def test_pipeline_of_a_module_is_guarded(client: Any, server: Any, module: str) -> None:
    """It is made past the client."""
    later = guard(fakeredis.FakeAsyncRedis(server=server))
    for each in (client, later):
        pipe = getattr(each, module)(*(["acme:index"] if module == "ft" else [])).pipeline()
        with tenant_scope("acme"), pytest.raises(CrossTenantError, match="GET, argument 1"):
            pipe.execute_command("GET", "globex:1")
        with pytest.raises(NoTenantError, match="GET"):
            pipe.execute_command("GET", "acme:1")
    await later.aclose()


def test_pipeline_that_was_reset_is_free_again(client: Any) -> None:
    """reset() ends what it remembers."""
    pipe = client.pipeline()
    with tenant_scope("acme"):
        pipe.set("acme:2", 1)
    pipe.reset()
    with tenant_scope("globex"):
        assert pipe.set("globex:2", 1).execute() == [True]


async def test_pipeline_that_was_executed_with_nothing_queued_is_free_again(client: Any, server: Any) -> None:
    """redis-py does not reset it then."""
    later = guard(fakeredis.FakeAsyncRedis(server=server))
    pipe, later_pipe = client.pipeline(), later.pipeline()
    with tenant_scope("acme"):
        pipe.watch("acme:1")
        pipe.unwatch()
        assert pipe.execute() == []
        await later_pipe.watch("acme:1")
        await later_pipe.unwatch()
        assert await later_pipe.execute() == []
    with tenant_scope("globex"):
        assert pipe.set("globex:2", 1).execute() == [True]
        assert await later_pipe.set("globex:2", 1).execute() == [True]
    await later.aclose()


def test_watch_and_transaction_work_and_are_judged(client: Any, plain: Any) -> None:
    """WATCH is sent at once; its keys are judged as all others."""
    with tenant_scope("acme"):
        with client.pipeline() as pipe:
            pipe.watch("acme:1")
            assert pipe.get("acme:1") == b"a"
            pipe.multi()
            pipe.set("acme:1", "b")
            assert pipe.execute() == [True]
        with client.pipeline() as pipe, pytest.raises(CrossTenantError, match="WATCH"):
            pipe.watch("acme:1", "globex:1")
        assert client.transaction(lambda pipe: pipe.multi() or pipe.get("acme:1"), "acme:1") == [b"b"]


def test_pipeline_left_watching_is_cleaned_up_without_a_tenant(client: Any) -> None:
    """The UNWATCH of reset() passes with no tenant."""
    with tenant_scope("acme"):
        pipe = client.pipeline()
        pipe.watch("acme:1")
    pipe.reset()
    with tenant_scope("acme"):
        assert client.get("acme:1") == b"a"


# --- what was made earlier, and copies -----------------------------------------------------------


def test_pipeline_and_pubsub_made_earlier_are_guarded(server: Any, plain: Any) -> None:
    """They share the pool of their client."""
    client = fakeredis.FakeRedis(server=server)
    pipe, pubsub = client.pipeline(), client.pubsub()
    guard(client)
    with tenant_scope("acme"), writes_nothing(plain):
        with pytest.raises(CrossTenantError, match="SET"):
            pipe.set("globex:1", 1).execute()
        with pytest.raises(CrossTenantError, match="SUBSCRIBE"):
            pubsub.subscribe("globex:ch")
    with pytest.raises(NoTenantError):
        client.pipeline().set("acme:1", 1).execute()


@pytest.mark.parametrize("is_looked_into", [False, True])
def test_what_was_made_earlier_is_judged_where_it_is_called(is_looked_into: bool) -> None:
    """Not only where it packs: no server is asked. Its attributes may live in a dict of their own."""
    client = redis.Redis(port=1)
    twin, pipe, pubsub = copy.copy(client), client.pipeline(), client.pubsub()
    if is_looked_into:
        assert all(vars(each) for each in (client, twin, pipe, pubsub))
    guard(client)
    with tenant_scope("acme"):
        for refused in (
            lambda: client.get("globex:1"),
            lambda: twin.get("globex:1"),
            lambda: pipe.get("globex:1"),
            lambda: pubsub.subscribe("globex:1"),
        ):
            with pytest.raises(CrossTenantError, match="argument 1"):
                refused()
        pipe.get("acme:1")
    with tenant_scope("globex"), pytest.raises(CrossTenantError, match="pipeline belongs to another"):
        pipe.get("globex:1")


def test_what_only_knows_the_pool_is_left_alone() -> None:
    """A client that has a pool of its own is nobody's copy, whatever else it holds."""
    client, other = redis.Redis(port=1), redis.Redis(port=2)
    other.known_pools = {"main": client.connection_pool}  # type: ignore[attr-defined]
    kind = type(other)
    guard(client)
    assert type(other) is kind
    assert type(other.connection_pool) is redis.ConnectionPool


class Around(redis.Connection):
    """Sends in a way of its own."""

    def send_command(self, *args: Any, **options: Any) -> Any:
        return self.send_packed_command([b""])


class Broken(redis.Connection):
    """Fails before anybody could judge."""

    def pack_commands(self, commands: Any) -> Any:
        raise redis.DataError("no command is good enough")


class Silent(redis.asyncio.Connection):
    """Packs nothing at all."""

    def pack_commands(self, commands: Any) -> Any:
        return []


@pytest.mark.parametrize(
    ("pool", "connection", "hook"),
    [
        (redis.ConnectionPool, Around, "send_command"),
        (redis.BlockingConnectionPool, Around, "send_command"),
        (redis.ConnectionPool, Broken, "pack_commands"),
        (redis.asyncio.ConnectionPool, Silent, "pack_commands"),
    ],
)
def test_guard_raises_where_a_connection_goes_around_it(pool: Any, connection: Any, hook: str) -> None:
    """Whatever it does instead of refusing is not the guard's doing."""
    kind = redis.asyncio.Redis if connection is Silent else redis.Redis
    client = kind(connection_pool=pool(connection_class=connection, port=1))
    with pytest.raises(RuntimeError, match=f"{connection.__name__}.{hook} goes around the guard"):
        guard(client)


def test_pipeline_queued_earlier_is_judged_when_it_is_executed(server: Any, plain: Any) -> None:
    """What was queued before the guard came is not sent unjudged."""
    client = fakeredis.FakeRedis(server=server)
    pipe = client.pipeline().set("acme:2", 1).set("globex:1", 1)
    guard(client)
    with tenant_scope("acme"), writes_nothing(plain), pytest.raises(CrossTenantError, match="SET"):
        pipe.execute()


@pytest.mark.parametrize(
    "make",
    [
        copy.copy,
        lambda client: client.client(),
        lambda client: type(client)(connection_pool=client.connection_pool),
    ],
)
def test_copies_are_guarded(client: Any, make: Any) -> None:
    """A second client of the same class or pool is guarded."""
    twin = make(client)
    with tenant_scope("acme"):
        assert twin.get("acme:1") == b"a"
        with pytest.raises(CrossTenantError, match="GET"):
            twin.get("globex:1")


def test_connections_that_are_checked_out_are_guarded(server: Any, plain: Any) -> None:
    """A connection in use when the guard comes judges from then on."""
    client = fakeredis.FakeRedis(server=server)
    client.get("acme:1")
    idle = client.connection_pool._available_connections[0]
    taken = fakeredis.FakeRedis(connection_pool=client.connection_pool, single_connection_client=True)
    held = client.connection_pool.get_connection()
    guard(client)
    for connection in (idle, held, taken.connection):
        if connection is not None:
            with pytest.raises(NoTenantError, match="GET"):
                connection.send_command("GET", "globex:1")
    with tenant_scope("acme"), pytest.raises(CrossTenantError, match="GET"):
        taken.get("globex:1")


class Untracked(redis.ConnectionPool):
    """Makes a connection whenever it is asked for one, and keeps no list."""

    def get_connection(self, *args: Any, **kwargs: Any) -> Any:
        connection = self.make_connection()
        connection.connect()
        return connection

    def release(self, connection: Any) -> None:
        connection.disconnect()


def test_only_connection_of_a_client_is_guarded_whoever_made_it(server: Any, plain: Any) -> None:
    """It was handed out before the guard came, by a pool that does not know it any more."""
    pool = Untracked(connection_class=plain.connection_pool.connection_class, server=server)
    client = redis.Redis(connection_pool=pool, single_connection_client=True)
    assert client.get("globex:1") == b"secret"
    guard(client)
    with pytest.raises(NoTenantError, match="GET"):
        client.connection.send_command("GET", "globex:1")
    with tenant_scope("acme"):
        assert client.get("acme:1") == b"a"
    client.close()


def test_clients_on_one_pool_share_what_they_declare(client: Any) -> None:
    """The pool's connections judge for both, so both have to know the same commands."""
    other = guard(fakeredis.FakeRedis(connection_pool=client.connection_pool), commands={"MYMOD.GET": 1})
    with tenant_scope("acme"):
        for each in (client, other):
            with pytest.raises(redis.ResponseError, match="unknown command"):
                each.execute_command("MYMOD.GET", "acme:1")
            with pytest.raises(CrossTenantError, match=r"MYMOD\.GET, argument 1"):
                each.execute_command("MYMOD.GET", "globex:1")


@pytest.mark.parametrize("kind", [redis.ConnectionPool, redis.BlockingConnectionPool])
def test_proof_takes_no_connection_of_the_pool(server: Any, plain: Any, kind: Any) -> None:
    """It is made on a connection that nobody counts: a pool of one still has its one."""
    pool = kind(connection_class=plain.connection_pool.connection_class, server=server, max_connections=1)
    held = pool.get_connection()
    client = guard(redis.Redis(connection_pool=pool))
    pool.release(held)
    with tenant_scope("acme"):
        assert client.get("acme:1") == b"a"
    assert {id(found) for found in getattr(pool, "_connections", ())} <= {id(held)}
    assert not pool._in_use_connections if hasattr(pool, "_in_use_connections") else True
    client.close()


def test_guarded_connections_of_one_client_are_of_one_class(client: Any) -> None:
    """A class is made once, however many connections there will be."""
    pool = client.connection_pool
    first, second = pool.make_connection(), pool.make_connection()
    assert type(first) is type(second)
    base = type(first).__mro__[1]
    assert (type(first).__module__, type(first).__doc__) == (base.__module__, base.__doc__)


# --- scripts and locks ---------------------------------------------------------------------------


def test_script_registered_at_import_serves_any_tenant(client: Any) -> None:
    """Its keys are judged at each call."""
    script = client.register_script("return redis.call('get', KEYS[1])")
    for tenant, value in (("acme", b"a"), ("globex", b"secret")):
        with tenant_scope(tenant):
            assert script(keys=[f"{tenant}:1"]) == value
    with tenant_scope("acme"), pytest.raises(CrossTenantError, match="EVALSHA, argument 3"):
        script(keys=["globex:1"])
    with pytest.raises(NoTenantError, match="EVALSHA"):
        script(keys=["acme:1"])


def test_script_registered_under_a_tenant_is_that_tenants(client: Any) -> None:
    """Its text may hold what is the tenant's."""
    with tenant_scope("acme"):
        script = client.register_script("return redis.call('get', KEYS[1])")
        assert script(keys=["acme:1"]) == b"a"
    with tenant_scope("globex"), pytest.raises(CrossTenantError, match="script belongs to another tenant"):
        script(keys=["globex:1"])


async def test_script_registered_through_a_pipeline_remembers_its_tenant(client: Any, server: Any) -> None:
    """As through a client."""
    later = guard(fakeredis.FakeAsyncRedis(server=server))
    with tenant_scope("acme"):
        script = client.pipeline().register_script("return 1")
        later_script = later.pipeline().register_script("return 1")
        assert script(client=client) == await later_script(client=later) == 1
    with tenant_scope("globex"):
        with pytest.raises(CrossTenantError, match="script belongs to another tenant"):
            script(client=client)
        with pytest.raises(CrossTenantError, match="script belongs to another tenant"):
            await later_script(client=later)
    await later.aclose()


def test_no_error_of_the_guard_is_retried_or_swallowed(client: Any) -> None:
    """redis-py retries connection errors and collects response errors; these are neither."""
    with tenant_scope("acme"):
        for call in (lambda: client.get("x"), lambda: client.execute_command("NOPE"), client.flushall):
            with pytest.raises(TenancyError):
                call()


@pytest.mark.parametrize(
    "call",
    [
        "monitor",
        "flushall",
        "flushdb",
        "randomkey",
        "dbsize",
        "info",
        "config_get",
        "client_list",
        "script_flush",
        "function_list",
        "slowlog_get",
        "quit",
        "reset",
        "acl_list",
        "lastsave",
        "save",
    ],
)
def test_methods_that_reach_every_tenant_are_refused(client: Any, call: str) -> None:
    """Each by its method, and none takes a connection with it."""
    with tenant_scope("acme"), pytest.raises(CrossTenantError, match="refused"):
        getattr(client, call)()
    assert not client.connection_pool._in_use_connections


def test_monitor_may_be_declared(server: Any) -> None:
    """Like everything else, at the risk of whoever does so."""
    client = guard(fakeredis.FakeRedis(server=server), commands={"MONITOR": 0})
    with tenant_scope("acme"):
        monitor = client.monitor()
    assert isinstance(monitor, redis.client.Monitor)
    client.connection_pool.release(monitor.connection)


@pytest.mark.parametrize(
    "call", [("select", 1), ("auth", "x"), ("swapdb", 0, 1), ("move", "acme:1", 1), ("keys", "acme:*")]
)
def test_commands_that_change_who_or_where_a_connection_is_are_refused(
    client: Any, call: tuple[Any, ...]
) -> None:
    """A pooled connection would keep it for the next tenant."""
    with tenant_scope("acme"), pytest.raises(CrossTenantError, match="refused"):
        getattr(client, call[0])(*call[1:])


def test_scan_iter_needs_a_pattern_of_the_tenants_own(client: Any) -> None:
    """Bare iteration would show every tenant's keys."""
    with tenant_scope("acme"):
        with pytest.raises(CrossTenantError, match="SCAN"):
            list(client.scan_iter())
        with pytest.raises(CrossTenantError, match="SCAN"):
            list(client.scan_iter(match=r"*"))
        assert list(client.scan_iter(match=r"acme:*")) == [b"acme:1"]


async def test_mget_of_no_keys_is_an_empty_list(client: Any, server: Any) -> None:
    """As without the guard: a list of keys may be empty, which names nobody's key."""
    later = guard(fakeredis.FakeAsyncRedis(server=server))
    with tenant_scope("acme"):
        assert client.mget([]) == []
        assert await later.mget([]) == []
        assert client.execute_command("GET", b"acme:1", **{redis.client.EMPTY_RESPONSE: []}) == b"a"
        for keys in (["globex:1"], ["acme:1", "globex:1"]):
            with pytest.raises(CrossTenantError, match="MGET"):
                client.mget(keys)
        with pytest.raises(CrossTenantError, match="MGET"):
            client.execute_command("MGET")
    with pytest.raises(NoTenantError, match="MGET"):
        client.mget([])
    await later.aclose()
