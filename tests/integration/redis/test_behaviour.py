"""What real servers and real connections do to a guarded client."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import redis
import redis.asyncio
from redis.cache import CacheConfig

from tenantry import NoTenantError, current_tenant_or_none, tenant_scope
from tenantry.errors import CrossTenantError, TenancyError
from tenantry.integrations.redis import guard
from tests import services
from tests.contracts.redis_credentials import Streaming
from tests.integration.redis.conftest import ASYNC, PATHS, SYNC, World, settled


@pytest.fixture
def plain(world: World) -> Iterator[redis.Redis]:
    """A client that was never guarded, on an empty server."""
    with redis.Redis(port=world.single.port) as client:
        client.flushall()
        yield client


# --- what the client sends on its own ------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
async def test_client_connects_with_no_tenant(world: World, made: list[Any], path: str) -> None:
    """Handshake, database, name, caching, topology and health checks are its own business."""
    client = guard(PATHS[path](world))
    made.append(client)
    for _ in range(3):
        assert await settled(client.ping())


@pytest.mark.parametrize("protocol", [2, 3])
async def test_client_authenticates_and_selects_on_its_own_but_not_for_a_user(protocol: int) -> None:
    """The same commands from a user stay refused."""
    with services.redis_server("--requirepass", "pw") as server:
        options = {"port": server.port, "password": "pw", "db": 2, "client_name": "n", "protocol": protocol}
        sync, later = guard(redis.Redis(**options)), guard(redis.asyncio.Redis(**options))
        assert sync.ping()
        assert await later.ping()
        with tenant_scope("acme"):
            for client in (sync, later):
                for words in (
                    ("AUTH", "pw"),
                    ("SELECT", 0),
                    ("HELLO", 3),
                    ("RESET",),
                    ("CLIENT TRACKING", "ON"),
                ):
                    with pytest.raises(CrossTenantError, match=r"refused"):
                        await settled(client.execute_command(*words))
        sync.close()
        await later.aclose()


async def test_window_of_a_connecting_task_is_not_another_tasks(world: World) -> None:
    """While one task connects, another one cannot send what it likes over the same connection."""
    client = guard(redis.asyncio.Redis(port=world.single.port))
    connection = client.connection_pool.make_connection()
    inside, go_on = asyncio.Event(), asyncio.Event()

    class Callback:
        async def __call__(self, connection: Any) -> None:
            inside.set()
            await go_on.wait()

        on_connect = __call__

    callback = Callback()
    connection.register_connect_callback(callback.on_connect)
    connecting = asyncio.create_task(connection.connect())
    await inside.wait()
    with pytest.raises(NoTenantError, match="GET"):
        connection.pack_command("GET", "globex:1")
    go_on.set()
    await connecting
    with pytest.raises(NoTenantError, match="GET"):
        connection.pack_command("GET", "globex:1")
    await connection.disconnect()


def test_window_of_a_connecting_thread_is_not_another_threads(world: World) -> None:
    """The same for threads."""
    client = guard(redis.Redis(port=world.single.port))
    connection = client.connection_pool.make_connection()
    inside, go_on = threading.Event(), threading.Event()

    class Callback:
        def on_connect(self, connection: Any) -> None:
            inside.set()
            go_on.wait(10)

    callback = Callback()
    connection.register_connect_callback(callback.on_connect)
    thread = threading.Thread(target=connection.connect)
    thread.start()
    assert inside.wait(10)
    with pytest.raises(NoTenantError, match="GET"):
        connection.pack_command("GET", "globex:1")
    go_on.set()
    thread.join()
    connection.disconnect()


# --- client-side caching -------------------------------------------------------------------------


def test_cache_hit_on_a_foreign_key_is_refused(world: World) -> None:
    """A hit is answered without packing, so it is judged where it is asked for."""
    server = {"port": world.cached.port, "protocol": 3}
    with redis.Redis(**server) as unguarded:
        unguarded.mset({"acme:1": "a", "globex:1": "secret"})
    client = guard(redis.Redis(cache_config=CacheConfig(), **server))
    with tenant_scope("globex"):
        assert [client.get("globex:1") for _ in range(2)] == [b"secret"] * 2
        assert client.get_cache().size == 1
    with tenant_scope("acme"):
        with pytest.raises(CrossTenantError, match="GET"):
            client.get("globex:1")
        connection = client.connection_pool.get_connection()
        with pytest.raises(CrossTenantError, match="GET"):
            connection.send_command("GET", "globex:1", keys=["globex:1"])
        client.connection_pool.release(connection)
        assert client.get("acme:1") == b"a"
    with pytest.raises(NoTenantError, match="GET"):
        client.get("globex:1")
    client.close()


def test_cache_hit_of_an_unguarded_copy_made_earlier_is_refused(world: World) -> None:
    """The connection judges, whoever asks it."""
    client = redis.Redis(cache_config=CacheConfig(), port=world.cached.port, protocol=3)
    client.set("globex:1", "secret")
    assert [client.get("globex:1") for _ in range(2)] == [b"secret"] * 2
    connection = client.connection_pool._available_connections[0]
    guard(client)
    with tenant_scope("acme"), pytest.raises(CrossTenantError, match="GET"):
        connection.send_command("GET", "globex:1", keys=["globex:1"])
    client.close()


# --- pub/sub that loses its connection -----------------------------------------------------------


def _drop(plain: redis.Redis) -> None:
    plain.client_kill_filter(_type="pubsub")


def test_pubsub_resubscribes_in_a_thread_with_no_tenant(world: World, plain: redis.Redis) -> None:
    """After a dropped connection it subscribes again as the tenant that it was made under."""
    client = guard(redis.Redis(port=world.single.port))
    seen: list[Any] = []
    arrived = threading.Event()

    def handler(message: Any) -> None:
        seen.append((message["data"], current_tenant_or_none()))
        arrived.set()

    pubsub = client.pubsub()
    with tenant_scope("acme"):
        pubsub.subscribe(**{"acme:ch": handler})
        pubsub.psubscribe(**{"acme:p*": handler})
    thread = pubsub.run_in_thread(sleep_time=0.01, exception_handler=lambda error, *_: seen.append(error))
    for text in ("before", "after"):
        services.wait_until(lambda: plain.pubsub_numsub("acme:ch")[0][1] == 1, "the subscription")
        arrived.clear()
        plain.publish("acme:ch", text)
        assert arrived.wait(10)
        _drop(plain)
        services.wait_until(lambda: plain.pubsub_numpat() == 1, "the new subscription")
    thread.stop()
    thread.join()
    client.close()
    assert [entry for entry in seen if not isinstance(entry, redis.ConnectionError)] == [
        (b"before", "acme"),
        (b"after", "acme"),
    ]


async def test_async_pubsub_resubscribes_in_a_task_with_no_tenant(world: World, plain: redis.Redis) -> None:
    """The same for asyncio."""
    client = guard(redis.asyncio.Redis(port=world.single.port))
    seen: asyncio.Queue[Any] = asyncio.Queue()

    async def handler(message: Any) -> None:
        seen.put_nowait((message["data"], current_tenant_or_none()))

    pubsub = client.pubsub()
    with tenant_scope("acme"):
        await pubsub.subscribe(**{"acme:ch": handler})
    task = asyncio.create_task(pubsub.run(poll_timeout=0.05, exception_handler=lambda error, _: None))
    for text in (b"before", b"after"):
        while plain.pubsub_numsub("acme:ch")[0][1] != 1:
            await asyncio.sleep(0.02)
        plain.publish("acme:ch", text)
        assert await asyncio.wait_for(seen.get(), 10) == (text, "acme")
        _drop(plain)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await pubsub.aclose()
    await client.aclose()


def test_keyspace_notifications_of_own_keys_arrive(world: World, plain: redis.Redis) -> None:
    """redis-py's helper subscribes to patterns, which are judged like any other."""
    plain.config_set("notify-keyspace-events", "KEA")
    client = guard(redis.Redis(port=world.single.port))
    notifications = client.keyspace_notifications()
    with tenant_scope("acme"):
        notifications.subscribe_keyspace("acme:*", db=0)
        client.set("acme:1", "a")
        found = None
        for _ in range(50):
            found = found or notifications.get_message(timeout=0.1)
        assert found is not None
        with pytest.raises(CrossTenantError, match="SUBSCRIBE"):
            notifications.subscribe_keyspace("*", db=0)
        with pytest.raises(CrossTenantError, match="SUBSCRIBE"):
            notifications.subscribe_keyevent("set", db=0)
    notifications.close()
    client.close()


# --- clusters ------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["cluster", "async cluster"])
async def test_refused_cluster_pipeline_writes_on_no_node(world: World, made: list[Any], path: str) -> None:
    """It is dispatched node by node, so it is judged before the first one."""
    plain, client = PATHS[path](world), guard(PATHS[path](world))
    made += [plain, client]
    names = [f"acme:w{n}" for n in range(30)]
    await settled(plain.delete(*names))
    pipe = client.pipeline()
    with tenant_scope("acme"):
        for name in names:
            pipe.set(name, 1)
    with pytest.raises(NoTenantError, match="EXEC"):
        await settled(pipe.execute())
    with tenant_scope("globex"), pytest.raises(CrossTenantError, match="EXEC"):
        await settled(pipe.execute())
    with tenant_scope("acme"):
        with pytest.raises(CrossTenantError, match="SET"):
            pipe.set("globex:1", 1)
        for method, name in (("delete", "DEL"), ("unlink", "UNLINK")):
            with pytest.raises(CrossTenantError, match=name):
                await settled(getattr(pipe, method)("globex:1"))
    assert await settled(plain.exists(*names)) == 0
    with tenant_scope("acme"):
        assert all(await settled(pipe.execute()))
    assert await settled(plain.exists(*names)) == 30


@pytest.mark.parametrize("path", ["cluster", "async cluster"])
async def test_refused_cluster_helper_writes_on_no_node(world: World, made: list[Any], path: str) -> None:
    """mset_nonatomic and its like go out slot by slot."""
    plain, client = PATHS[path](world), guard(PATHS[path](world))
    made += [plain, client]
    names = [f"acme:h{n}" for n in range(30)]
    await settled(plain.delete(*names))
    await settled(plain.set("globex:1", "secret"))
    with tenant_scope("acme"):
        with pytest.raises(CrossTenantError, match="MSET"):
            await settled(client.mset_nonatomic({**dict.fromkeys(names, 1), "globex:1": 1}))
        assert await settled(plain.exists(*names)) == 0
        assert all(await settled(client.mset_nonatomic(dict.fromkeys(names, 1))))
        assert await settled(client.mget_nonatomic(names)) == [b"1"] * 30
        for call in (client.delete, client.unlink, client.exists, client.touch, client.mget_nonatomic):
            with pytest.raises(CrossTenantError, match="refused"):
                await settled(
                    call(*(names, "globex:1") if call == client.mget_nonatomic else (*names, "globex:1"))
                )
    assert await settled(plain.exists(*names)) == 30
    assert await settled(plain.get("globex:1")) == b"secret"


@pytest.mark.parametrize("path", ["cluster", "async cluster"])
async def test_cluster_transaction_is_judged_at_the_call(world: World, made: list[Any], path: str) -> None:
    """The asyncio one queues in a helper thread with an empty context."""
    client = guard(PATHS[path](world))
    made.append(client)
    if path == "async cluster":
        await client.initialize()  # else redis-py does, in the helper thread's own loop
    with tenant_scope("acme"):
        pipe = client.pipeline(transaction=True)
        await settled(pipe.watch("acme:{t}1"))
        await settled(pipe.get("acme:{t}1"))
        pipe.multi()
        with pytest.raises(CrossTenantError, match="SET"):
            pipe.set("globex:{t}1", 1)
        pipe.set("acme:{t}1", 1)
        assert all(await settled(pipe.execute()))
        with pytest.raises(CrossTenantError, match="WATCH"):
            await settled(pipe.watch("globex:{t}1"))
        pipe.set("acme:{t}1", 2)
    with tenant_scope("globex"), pytest.raises(CrossTenantError, match="EXEC"):
        await settled(pipe.execute())
    await settled(pipe.reset())


async def test_sharded_subscription_that_moves_keeps_its_tenant(world: World, made: list[Any]) -> None:
    """Another node's pub/sub is made in a thread or task with no tenant."""
    sync, later = guard(SYNC["cluster"](world)), guard(ASYNC["async cluster"](world))
    made += [sync, later]
    await later.initialize()
    for client in (sync, later):
        pubsub = client.pubsub()
        with tenant_scope("acme"):
            await settled(pubsub.ssubscribe("acme:ch"))
        other = next(node for node in client.get_nodes() if node != client.get_node_from_key("acme:ch"))
        moved = pubsub._get_node_pubsub(other)
        assert moved._tenantry_owner == "acme"
        with tenant_scope("globex"), pytest.raises(CrossTenantError, match="pub/sub"):
            await settled(pubsub.get_sharded_message(timeout=0.1))
        await settled(pubsub.aclose() if hasattr(pubsub, "aclose") else pubsub.close())


# --- refusals leave nothing behind ---------------------------------------------------------------


async def test_refusals_under_cancellation_leave_connections_clean(world: World, plain: redis.Redis) -> None:
    """Whatever is cancelled when, the next answer is to the next question."""
    client = guard(redis.asyncio.Redis(port=world.single.port, max_connections=200))
    chance = random.Random(7)

    async def work(tenant: str, number: int) -> None:
        with tenant_scope(tenant):
            for step in range(20):
                key = f"{tenant}:{number}:{step}"
                await client.set(key, key)
                with pytest.raises(CrossTenantError, match="refused"):
                    await client.get(f"other{key}")
                pipe = client.pipeline(transaction=bool(step % 2))
                pipe.get(key)
                with pytest.raises(CrossTenantError, match="refused"):
                    pipe.get(f"other{key}")
                assert await pipe.execute() == [key.encode()]

    tasks = [asyncio.create_task(work(tenant, n)) for n in range(30) for tenant in ("acme", "globex")]
    for task in chance.sample(tasks, 30):
        await asyncio.sleep(0.001)
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert not [r for r in results if r is not None and not isinstance(r, asyncio.CancelledError)]
    with tenant_scope("acme"):
        for n in range(200):
            await client.set("acme:n", n)
            assert int(await client.get("acme:n")) == n
    await client.aclose()


def test_two_tenants_share_a_client_from_threads(world: World, plain: redis.Redis) -> None:
    """No thread ever reads the other tenant's value."""
    client = guard(redis.Redis(port=world.single.port))
    wrong: list[Any] = []

    def work(tenant: str, other: str) -> None:
        with tenant_scope(tenant):
            for n in range(300):
                client.set(f"{tenant}:{n % 7}", tenant)
                if client.get(f"{tenant}:{n % 7}") != tenant.encode():
                    wrong.append(n)
                try:
                    client.get(f"{other}:{n % 7}")
                    wrong.append("read")
                except TenancyError:
                    pass

    threads = [
        threading.Thread(target=work, args=pair) for pair in [("acme", "globex"), ("globex", "acme")] * 4
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    client.close()
    assert not wrong


# --- commands with a life of their own -----------------------------------------------------------


def test_functions_streams_and_scripts_work_under_their_tenant(world: World, plain: redis.Redis) -> None:
    """What is not a plain read or write, on a real server."""
    plain.function_load(
        "#!lua name=lib\nredis.register_function('f', function(k, a) return redis.call('GET', k[1]) end)"
    )
    client = guard(redis.Redis(port=world.single.port))
    with tenant_scope("acme"):
        client.set("acme:1", "a")
        assert client.fcall("f", 1, "acme:1") == b"a"
        assert client.eval("return redis.call('GET', KEYS[1])", 1, "acme:1") == b"a"
        assert client.eval("return 1", 0) == 1
        client.xadd("acme:s", {"f": "v"})
        client.xgroup_create("acme:s", "STREAMS", id="0")
        assert client.xreadgroup("STREAMS", "c", {"acme:s": ">"}, count=1)
        assert client.geoadd("acme:g", (1, 1, "m")) == 1
        assert client.georadius("acme:g", 1, 1, 10, store="acme:gs") == 1
        client.rpush("acme:l", 2, 1)
        assert client.sort("acme:l", get="#", store="acme:sorted") == 2
        for call in (
            lambda: client.fcall("f", 1, "globex:1"),
            lambda: client.eval("return 1", 1, "globex:1"),
            lambda: client.xreadgroup("g", "c", {"acme:s": ">", "globex:s": ">"}),
            lambda: client.georadius("acme:g", 1, 1, 10, store="globex:g"),
            lambda: client.execute_command(
                "GEORADIUS", "acme:g", 1, 1, 1, "m", "STORE", "acme:x", "STORE", "globex:y"
            ),
            lambda: client.sort("acme:l", store="globex:l"),
            lambda: client.sort("acme:l", by="weight_*"),
        ):
            with pytest.raises(CrossTenantError, match="refused"):
                call()
    assert not plain.keys("globex:*")
    client.close()


def test_another_encoding_is_judged_by_what_it_sends(world: World, plain: redis.Redis) -> None:
    """In UTF-16 no key starts with the prefix; hiredis' packer writes UTF-8 whatever the client says."""
    pool = redis.ConnectionPool(port=world.single.port, encoding="utf-16", command_packer=None)
    client = guard(redis.Redis(connection_pool=pool))
    python = redis.connection.PythonRespSerializer(
        6000, redis.connection.Encoder("utf-16", "strict", False).encode
    )
    wide = guard(
        redis.Redis(
            connection_pool=redis.ConnectionPool(
                port=world.single.port, encoding="utf-16", command_packer=python
            )
        )
    )
    later = guard(redis.asyncio.Redis(port=world.single.port, encoding="utf-16"))
    with tenant_scope("acme"):
        assert client.set("acme:1", "a")
        with pytest.raises(CrossTenantError, match="no tenant prefix"):
            wide.set("acme:1", "a")
        assert wide.set(b"acme:2", "a")
        with pytest.raises(CrossTenantError, match="no tenant prefix"):
            later.connection_pool.make_connection().pack_command("SET", "acme:1", "a")
    client.close()
    wide.close()
    assert plain.get("acme:1") == b"a"
    assert plain.get("acme:2") == "a".encode("utf-16")


class Token:
    """What redis-py asks of a token."""

    def try_get(self, name: str) -> str:
        return "default"

    def get_value(self) -> str:
        return "pw"


async def test_client_that_renews_its_token_authenticates_by_itself() -> None:
    """The renewal comes with no tenant; a user's AUTH stays refused."""
    with services.redis_server("--requirepass", "pw") as server:
        sync = guard(redis.Redis(port=server.port, credential_provider=Streaming()))
        later = guard(redis.asyncio.Redis(port=server.port, credential_provider=Streaming()))
        for client in (sync, later):
            assert await settled(client.ping())
            await settled(client.connection_pool.re_auth_callback(Token()))
            assert await settled(client.ping())
            with tenant_scope("acme"), pytest.raises(CrossTenantError, match="AUTH"):
                await settled(client.auth("pw"))
        sync.close()
        await later.aclose()
