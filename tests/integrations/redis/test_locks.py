"""Locks: they remember their tenant, and a refusal leaves them releasable."""

from __future__ import annotations

import inspect
import threading
from typing import Any

import pytest

pytest.importorskip("redis")
pytest.importorskip("fakeredis")
pytest.importorskip("lupa")

import fakeredis
import redis.asyncio.lock
import redis.lock

from tenantry import NoTenantError, carry_tenant, tenant_scope, without_tenant
from tenantry.errors import CrossTenantError
from tenantry.integrations.redis import guard
from tenantry.keys import shared_key


@shared_key("lock-tests:{name}", reason="a lock of the whole platform")
def platform_lock(name: str) -> str:
    """Lock: one job at a time, for all tenants."""


async def settled(result: Any) -> Any:
    """The result of a sync or asyncio call."""
    return await result if inspect.isawaitable(result) else result


@pytest.fixture(params=["sync", "asyncio"])
def pair(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    """A guarded client and a plain one on the same server."""
    server = fakeredis.FakeServer()
    kind = fakeredis.FakeRedis if request.param == "sync" else fakeredis.FakeAsyncRedis
    return guard(kind(server=server)), kind(server=server)


async def test_lock_acts_for_its_tenant_when_none_is_active(pair: tuple[Any, Any]) -> None:
    """Made and acquired under a tenant, it is released by whoever cleans up."""
    client, plain = pair
    with tenant_scope("acme"):
        lock = client.lock("acme:lock", timeout=10)
        assert await settled(lock.acquire())
    assert await settled(lock.owned())
    assert await settled(lock.locked())
    assert await settled(lock.extend(5))
    assert await settled(lock.reacquire())
    await settled(lock.release())
    assert await settled(plain.get("acme:lock")) is None


async def test_lock_made_under_a_tenant_is_acquired_for_it(pair: tuple[Any, Any]) -> None:
    """By whoever has no tenant; another one is told whose lock it is, not whose key."""
    client, plain = pair
    with tenant_scope("acme"):
        lock = client.lock("acme:lock")
    with tenant_scope("globex"), pytest.raises(CrossTenantError, match="lock belongs to another tenant"):
        await settled(lock.acquire())
    assert await settled(lock.acquire())
    assert await settled(plain.get("acme:lock"))
    await settled(lock.release())


async def test_lock_made_under_none_becomes_that_of_acquire(pair: tuple[Any, Any]) -> None:
    """Locks made at import belong to the first tenant that gets them."""
    client, _ = pair
    lock = client.lock("acme:lock")
    with pytest.raises(NoTenantError, match="SET"):
        await settled(lock.acquire())
    with tenant_scope("acme"):
        assert await settled(lock.acquire())
    await settled(lock.release())


@pytest.mark.parametrize("method", ["release", "extend", "reacquire", "owned", "locked", "acquire"])
async def test_lock_refuses_another_tenant_and_stays_releasable(pair: tuple[Any, Any], method: str) -> None:
    """redis-py clears the token before it sends; the refusal comes before that."""
    client, plain = pair
    with tenant_scope("acme"):
        lock = client.lock("acme:lock", timeout=10)
        assert await settled(lock.acquire())
    with tenant_scope("globex"), pytest.raises(CrossTenantError, match="lock belongs to another tenant"):
        await settled(getattr(lock, method)(*([5] if method == "extend" else [])))
    assert await settled(plain.get("acme:lock")) is not None
    with tenant_scope("acme"):
        assert await settled(lock.owned())
        await settled(lock.release())
    assert await settled(plain.get("acme:lock")) is None


async def test_locks_of_two_tenants_work_side_by_side(pair: tuple[Any, Any]) -> None:
    """The lock scripts are kept on the class, so the first tenant must not own them."""
    client, _ = pair
    for kind in (redis.lock.Lock, redis.asyncio.lock.Lock):
        kind.lua_release = kind.lua_extend = kind.lua_reacquire = None
    with tenant_scope("acme"):
        first = client.lock("acme:lock")
        assert await settled(first.acquire())
    with tenant_scope("globex"):
        second = client.lock("globex:lock")
        assert await settled(second.acquire())
        await settled(second.release())
    with tenant_scope("acme"):
        await settled(first.release())


async def test_lock_of_an_unguarded_client_is_left_alone(pair: tuple[Any, Any]) -> None:
    """The wrapped methods go straight through."""
    _, plain = pair
    lock = plain.lock("globex:lock")
    with tenant_scope("acme"):
        assert await settled(lock.acquire())
    with tenant_scope("initech"):
        await settled(lock.release())


async def test_foreign_lock_is_refused(pair: tuple[Any, Any]) -> None:
    """The name is a key like any other."""
    client, plain = pair
    with tenant_scope("acme"), pytest.raises(CrossTenantError, match="SET, argument 1"):
        await settled(client.lock("globex:lock").acquire())
    assert await settled(plain.get("globex:lock")) is None


async def test_shared_lock_belongs_to_nobody(pair: tuple[Any, Any]) -> None:
    """A lock on a shared key is taken and given back in any state."""
    client, _ = pair
    with tenant_scope("acme"):
        lock = client.lock(platform_lock("a"))
        assert await settled(lock.acquire())
    with tenant_scope("globex"):
        assert await settled(lock.owned())
    with without_tenant(reason="test"):
        await settled(lock.release())
        assert await settled(lock.acquire())
    await settled(lock.release())


@pytest.mark.parametrize("kind", ["by hand", "subclass"])
def test_lock_that_was_not_made_by_the_client_remembers_too(kind: str) -> None:
    """Lock(client, …) and classes of one's own are redis-py's Lock."""

    class OwnLock(redis.lock.Lock):
        def release(self) -> None:
            super().release()

    client = guard(fakeredis.FakeRedis())
    with tenant_scope("acme"):
        if kind == "by hand":
            lock = redis.lock.Lock(client, "acme:lock")
        else:
            lock = client.lock("acme:lock", lock_class=OwnLock)
        assert lock.acquire()
    with tenant_scope("globex"), pytest.raises(CrossTenantError, match="lock"):
        lock.release()
    lock.release()


def test_lock_made_before_the_guard_is_releasable_after_a_refusal() -> None:
    """It remembers nothing, so the key decides, still before the token is forgotten."""
    client = fakeredis.FakeRedis()
    lock = client.lock("acme:lock")
    assert lock.acquire()
    guard(client)
    with tenant_scope("globex"), pytest.raises(CrossTenantError, match="EVALSHA"):
        lock.release()
    with pytest.raises(NoTenantError, match="EVALSHA"):
        lock.release()
    with tenant_scope("acme"):
        lock.release()


def test_lock_is_released_from_another_thread() -> None:
    """With the tenant carried, or with none: the lock knows its own."""
    client = guard(fakeredis.FakeRedis())
    for carried in (True, False):
        with tenant_scope("acme"):
            lock = client.lock("acme:lock", thread_local=False)
            assert lock.acquire()
            thread = threading.Thread(target=carry_tenant(lock.release) if carried else lock.release)
            thread.start()
            thread.join()
            assert not lock.locked()


def test_lock_as_a_context_manager_works() -> None:
    """With lock: … goes through the same methods."""
    client = guard(fakeredis.FakeRedis())
    with tenant_scope("acme"), client.lock("acme:lock") as lock:
        assert lock.owned()
    assert not lock.locked()


async def test_async_lock_as_a_context_manager_works() -> None:
    """Async with lock: … likewise."""
    client = guard(fakeredis.FakeAsyncRedis())
    with tenant_scope("acme"):
        async with client.lock("acme:lock") as lock:
            assert await lock.owned()
        assert not await lock.locked()


def test_locks_are_wrapped_once_however_many_clients_are_guarded() -> None:
    """Else each client of a process would make every lock a little slower."""
    kinds = (redis.lock.Lock, redis.asyncio.lock.Lock)
    guard(fakeredis.FakeRedis())
    wrapped = [kind.__dict__[name] for kind in kinds for name in ("__init__", "acquire", "register_scripts")]
    guard(fakeredis.FakeRedis())
    assert wrapped == [
        kind.__dict__[name] for kind in kinds for name in ("__init__", "acquire", "register_scripts")
    ]
    assert all(inspect.unwrap(function).__module__.startswith("redis.") for function in wrapped)


async def test_lock_that_was_not_got_belongs_to_nobody_yet(pair: tuple[Any, Any]) -> None:
    """Made under no tenant, it becomes that of the one who gets it, not of one who tried."""
    client, plain = pair
    await settled(plain.set("acme:lock", "taken"))
    lock = client.lock("acme:lock", blocking=False)
    with tenant_scope("acme"):
        assert not await settled(lock.acquire())
        assert await settled(lock.locked())
    with pytest.raises(NoTenantError, match="SET"):
        await settled(lock.acquire())
    with tenant_scope("globex"), pytest.raises(CrossTenantError, match="SET, argument 1"):
        await settled(lock.acquire())
