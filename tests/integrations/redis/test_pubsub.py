"""Pub/sub: it belongs to the tenant of its first subscription, also where nobody is active."""

from __future__ import annotations

import asyncio
import inspect
import threading
from functools import partial
from typing import Any

import pytest

pytest.importorskip("redis")
pytest.importorskip("fakeredis")

import fakeredis

from tenantry import NoTenantError, current_tenant_or_none, tenant_scope
from tenantry.errors import CrossTenantError, UnknownCommandError
from tenantry.integrations.redis import guard


async def settled(result: Any) -> Any:
    """The result of a sync or asyncio call."""
    return await result if inspect.isawaitable(result) else result


@pytest.fixture(params=["sync", "asyncio"])
def pair(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    """A guarded client and a plain one on the same server."""
    server = fakeredis.FakeServer()
    kind = fakeredis.FakeRedis if request.param == "sync" else fakeredis.FakeAsyncRedis
    return guard(kind(server=server)), kind(server=server)


async def message(pubsub: Any) -> Any:
    """The next message that is no confirmation."""
    for _ in range(50):
        found = await settled(pubsub.get_message(ignore_subscribe_messages=True, timeout=0.1))
        if found is not None:
            return found["data"]
    return None


@pytest.mark.parametrize(
    ("method", "channel"),
    [
        ("subscribe", "globex:ch"),
        ("subscribe", "ch"),
        ("psubscribe", "*"),
        ("psubscribe", "__keyspace@0__:*"),
        ("psubscribe", "__keyevent@0__:*"),
        ("ssubscribe", "globex:ch"),
        ("unsubscribe", "globex:ch"),
    ],
)
async def test_foreign_channels_are_refused(pair: tuple[Any, Any], method: str, channel: str) -> None:
    """Channels and patterns are judged like keys."""
    pubsub = pair[0].pubsub()
    # redis-py before 8 has no SSUBSCRIBE on the asyncio side.
    ask = getattr(pubsub, method, partial(pubsub.execute_command, method.upper()))
    with tenant_scope("acme"), pytest.raises(CrossTenantError, match="argument 1"):
        await settled(ask(channel))
    await settled(pubsub.aclose() if hasattr(pubsub, "aclose") else pubsub.close())


async def test_publishing_to_a_foreign_channel_is_refused(pair: tuple[Any, Any]) -> None:
    """So is what is published."""
    client, _ = pair
    with tenant_scope("acme"), pytest.raises(CrossTenantError, match="PUBLISH, argument 1"):
        await settled(client.publish("globex:ch", "x"))


async def test_own_channels_patterns_and_keyspace_notifications_pass(pair: tuple[Any, Any]) -> None:
    """Everything that starts literally with the prefix."""
    client, plain = pair
    pubsub = client.pubsub()
    with tenant_scope("acme"):
        await settled(pubsub.subscribe("acme:ch"))
        await settled(pubsub.psubscribe("acme:p*", "__keyspace@0__:acme:*"))
        await settled(plain.publish("acme:ch", "one"))
        assert await message(pubsub) == b"one"
        await settled(plain.publish("acme:p1", "two"))
        assert await message(pubsub) == b"two"
        await settled(pubsub.unsubscribe())
    await settled(pubsub.aclose() if hasattr(pubsub, "aclose") else pubsub.close())


async def test_pubsub_reads_and_subscribes_for_its_tenant_when_none_is_active(pair: tuple[Any, Any]) -> None:
    """A reader has no context of its own."""
    client, plain = pair
    pubsub = client.pubsub()
    with pytest.raises(NoTenantError, match="SUBSCRIBE"):
        await settled(pubsub.subscribe("acme:ch"))
    with tenant_scope("acme"):
        await settled(pubsub.subscribe("acme:ch"))
    await settled(pubsub.subscribe("acme:ch2"))
    with pytest.raises(CrossTenantError, match="SUBSCRIBE"):
        await settled(pubsub.subscribe("globex:ch"))
    await settled(plain.publish("acme:ch2", "x"))
    assert await message(pubsub) == b"x"
    await settled(pubsub.aclose() if hasattr(pubsub, "aclose") else pubsub.close())


async def test_pubsub_refuses_another_tenant_and_drops_no_message(pair: tuple[Any, Any]) -> None:
    """The refusal comes before anything is read."""
    client, plain = pair
    pubsub = client.pubsub()
    with tenant_scope("acme"):
        await settled(pubsub.subscribe("acme:ch"))
    await settled(plain.publish("acme:ch", "kept"))
    with tenant_scope("globex"):
        for _ in range(3):
            with pytest.raises(CrossTenantError, match="pub/sub belongs to another tenant"):
                await settled(pubsub.get_message(timeout=0.1))
            with pytest.raises(CrossTenantError, match="pub/sub"):
                await settled(pubsub.parse_response())
            with pytest.raises(CrossTenantError, match="pub/sub"):
                await settled(pubsub.subscribe("globex:ch"))
    assert await message(pubsub) == b"kept"
    await settled(pubsub.aclose() if hasattr(pubsub, "aclose") else pubsub.close())


async def test_closed_pubsub_is_free_again(pair: tuple[Any, Any]) -> None:
    """After close() the next subscription is a first one."""
    client, _ = pair
    pubsub = client.pubsub()
    for tenant in ("acme", "globex"):
        with tenant_scope(tenant):
            await settled(pubsub.subscribe(f"{tenant}:ch"))
        await settled(pubsub.aclose() if hasattr(pubsub, "aclose") else pubsub.close())
        assert not client.connection_pool._in_use_connections
        assert not pubsub.subscribed


async def test_pubsub_that_has_not_subscribed_belongs_to_nobody(pair: tuple[Any, Any]) -> None:
    """A PING is no subscription; whoever comes first may have it."""
    pubsub = pair[0].pubsub()
    with tenant_scope("acme"):
        await settled(pubsub.ping())
    with tenant_scope("globex"):
        await settled(pubsub.subscribe("globex:ch"))
    with tenant_scope("acme"), pytest.raises(CrossTenantError, match="pub/sub"):
        await settled(pubsub.subscribe("acme:ch"))
    with tenant_scope("acme"), pytest.raises(CrossTenantError, match="pub/sub"):
        await settled(pubsub.execute_command("nope x", "y"))
    await settled(pubsub.aclose() if hasattr(pubsub, "aclose") else pubsub.close())


async def test_pubsub_of_before_the_guard_runs_its_handlers_where_it_is_read() -> None:
    """It remembers nobody, so there is nobody to run them for but whoever reads."""
    for kind in (fakeredis.FakeRedis, fakeredis.FakeAsyncRedis):
        server = fakeredis.FakeServer()
        client, plain = kind(server=server), kind(server=server)
        seen: list[str | None] = []
        pubsub = client.pubsub(ignore_subscribe_messages=True)
        await settled(pubsub.subscribe(ch=lambda _, seen=seen: seen.append(current_tenant_or_none())))
        guard(client)
        await settled(plain.publish("ch", "x"))
        with tenant_scope("acme"):
            for _ in range(50):
                await settled(pubsub.get_message(timeout=0.1))
                if seen:
                    break
        assert seen == ["acme"]
        await settled(pubsub.aclose() if hasattr(pubsub, "aclose") else pubsub.close())


async def test_asyncio_pubsub_of_another_tenant_does_not_connect() -> None:
    """Connecting subscribes again, for whom it belongs to."""
    client = guard(fakeredis.FakeAsyncRedis())
    pubsub = client.pubsub()
    with tenant_scope("acme"):
        await pubsub.subscribe("acme:ch")
    with tenant_scope("globex"), pytest.raises(CrossTenantError, match="pub/sub"):
        await pubsub.connect()
    await pubsub.connect()
    await pubsub.aclose()


def test_handlers_run_in_the_tenant_of_the_subscription() -> None:
    """In a thread of redis-py's, which has an empty context, too."""
    server = fakeredis.FakeServer()
    client, plain = guard(fakeredis.FakeRedis(server=server)), fakeredis.FakeRedis(server=server)
    seen, done = [], threading.Event()

    def handler(message: Any) -> None:
        seen.append((current_tenant_or_none(), client.get("acme:1")))
        done.set()

    plain.set("acme:1", "a")
    pubsub = client.pubsub()
    with tenant_scope("acme"):
        pubsub.subscribe(**{"acme:ch": handler})
    thread = pubsub.run_in_thread(sleep_time=0.01)
    plain.publish("acme:ch", "x")
    assert done.wait(10)
    thread.stop()
    thread.join()
    assert seen == [("acme", b"a")]


async def test_async_handlers_run_in_the_tenant_of_the_subscription() -> None:
    """In a task that was started with no tenant."""
    server = fakeredis.FakeServer()
    client, plain = guard(fakeredis.FakeAsyncRedis(server=server)), fakeredis.FakeAsyncRedis(server=server)
    seen = asyncio.get_running_loop().create_future()

    async def handler(message: Any) -> None:
        seen.set_result(current_tenant_or_none())

    pubsub = client.pubsub()
    with tenant_scope("acme"):
        await pubsub.subscribe(**{"acme:ch": handler})
    task = asyncio.create_task(pubsub.run(poll_timeout=0.05))
    await plain.publish("acme:ch", "x")
    assert await asyncio.wait_for(seen, 10) == "acme"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await pubsub.aclose()


async def test_listen_runs_handlers_in_the_tenant_of_the_subscription() -> None:
    """Also where whoever listens has another tenant by then, or none."""
    for kind in (fakeredis.FakeRedis, fakeredis.FakeAsyncRedis):
        server = fakeredis.FakeServer()
        client, plain = guard(kind(server=server)), kind(server=server)
        seen: list[str | None] = []
        pubsub = client.pubsub(ignore_subscribe_messages=True)
        with tenant_scope("acme"):
            await settled(
                pubsub.subscribe(
                    "acme:end", **{"acme:ch": lambda _, seen=seen: seen.append(current_tenant_or_none())}
                )
            )
        await settled(plain.publish("acme:ch", "x"))
        await settled(plain.publish("acme:end", "x"))
        if kind is fakeredis.FakeRedis:
            assert next(pubsub.listen())["channel"] == b"acme:end"
        else:
            assert (await anext(pubsub.listen()))["channel"] == b"acme:end"
        assert seen == ["acme"]
        await settled(pubsub.aclose() if hasattr(pubsub, "aclose") else pubsub.close())


async def test_pubsub_that_is_asked_for_nothing_refuses(pair: tuple[Any, Any]) -> None:
    """A command without a name is one that nobody knows."""
    pubsub = pair[0].pubsub()
    with tenant_scope("acme"), pytest.raises(UnknownCommandError, match="without a name"):
        await settled(pubsub.execute_command())
    await settled(pubsub.aclose() if hasattr(pubsub, "aclose") else pubsub.close())


def test_listen_checks_each_step() -> None:
    """A generator that is handed to another tenant raises, and keeps what it would have yielded."""
    server = fakeredis.FakeServer()
    client, plain = guard(fakeredis.FakeRedis(server=server)), fakeredis.FakeRedis(server=server)
    pubsub = client.pubsub(ignore_subscribe_messages=True)
    with tenant_scope("acme"):
        pubsub.subscribe("acme:ch")
    plain.publish("acme:ch", "x")
    with tenant_scope("globex"), pytest.raises(CrossTenantError, match="pub/sub"):
        next(pubsub.listen())
    assert next(pubsub.listen())["data"] == b"x"
    pubsub.close()
