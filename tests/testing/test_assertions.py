"""The checks that users run on their own functions: what proves isolation, and what proves nothing."""

from __future__ import annotations

import asyncio
import collections
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import trio

from tenantry import (
    InvalidTenantIdError,
    NoTenantError,
    bind_tenant,
    current_tenant,
    current_tenant_or_none,
    keys,
    tenant_scope,
    without_tenant,
)
from tenantry.context import unit_of_work
from tenantry.keys import shared_key
from tenantry.testing import assert_isolated, assert_no_tenant, assert_requires_tenant


@shared_key("assertions:{name}", reason="a test")
def flag(name: str) -> str:
    """String: a flag of everybody's."""


# --- assert_no_tenant ----------------------------------------------------------------------------


def test_assert_no_tenant_passes_in_every_state_without_one() -> None:
    """Never set, explicitly none and without_tenant are no tenant."""
    assert_no_tenant()
    with unit_of_work(None):
        assert_no_tenant()
    with tenant_scope("acme"), without_tenant(reason="a test"):
        assert_no_tenant()


def test_assert_no_tenant_names_the_one_that_is_active() -> None:
    """The message says which tenant leaked."""
    with (
        tenant_scope("acme"),
        pytest.raises(AssertionError, match="tenant 'acme' is active where none should be"),
    ):
        assert_no_tenant()


# --- assert_requires_tenant ----------------------------------------------------------------------


def test_assert_requires_tenant_passes_for_a_key_function() -> None:
    """The error comes back, to look at; the test's own tenant is kept out and active again."""
    with tenant_scope("acme"):
        assert assert_requires_tenant(keys.session, "t").wanted == "session"
        assert assert_requires_tenant(keys.memory_short, "a", user_id="u").wanted == "memory_short"
        assert current_tenant() == "acme"


def test_assert_requires_tenant_fails_for_what_runs_without() -> None:
    """A default tenant is what it is there to find."""

    def fallback() -> str:
        return current_tenant_or_none() or "public"

    with (
        tenant_scope("acme"),
        pytest.raises(AssertionError, match="fallback ran although no tenant is active"),
    ):
        assert_requires_tenant(fallback)


def test_assert_requires_tenant_lets_other_errors_through() -> None:
    """A broken call is not a refused one."""
    with pytest.raises(TypeError, match="missing"):
        assert_requires_tenant(keys.session)


def test_assert_requires_tenant_runs_generators() -> None:
    """A generator function raises at its first step, or never."""

    def strict() -> Iterator[str]:
        yield keys.session("t")

    def lax() -> Iterator[str]:
        yield "x"

    assert_requires_tenant(strict)
    with pytest.raises(AssertionError, match="lax ran"):
        assert_requires_tenant(lax)


async def strict_async() -> str:
    await asyncio.sleep(0)
    return current_tenant()


async def lax_async() -> str:
    await asyncio.sleep(0)
    return "x"


async def strict_steps() -> AsyncIterator[str]:
    await asyncio.sleep(0)
    yield current_tenant()


@pytest.mark.parametrize("function", [strict_async, strict_steps])
def test_assert_requires_tenant_runs_asynchronous_functions(function: Any) -> None:
    """In a synchronous test it is run at once; the result may be awaited or not."""
    with tenant_scope("acme"):
        outcome = assert_requires_tenant(function)
        assert asyncio.run(outcome).wanted == "current_tenant"
        assert current_tenant() == "acme"


def test_assert_requires_tenant_fails_for_a_lax_asynchronous_function() -> None:
    """Without being awaited, where there is no loop to await it in."""
    with pytest.raises(AssertionError, match="lax_async ran"):
        assert_requires_tenant(lax_async)


async def test_assert_requires_tenant_is_awaited_in_a_loop() -> None:
    """In an asynchronous test it is awaited; the loop's own tasks and objects work."""
    with tenant_scope("acme"):
        error = await assert_requires_tenant(strict_async)
        assert error.wanted == "current_tenant"
        assert current_tenant() == "acme"
        with pytest.raises(AssertionError, match="lax_async ran"):
            await assert_requires_tenant(lax_async)


# --- assert_isolated -----------------------------------------------------------------------------


def test_assert_isolated_passes_for_key_functions() -> None:
    """With positional and keyword arguments, under whatever tenant the test has."""
    assert assert_isolated(keys.session, "t") is None
    with tenant_scope("initech"):
        assert_isolated(keys.memory_short, "a", user_id="u")
        assert current_tenant() == "initech"


def test_assert_isolated_calls_once_per_tenant_in_order() -> None:
    """Each call runs under its own tenant, in the order given."""
    seen: list[str] = []

    def function() -> str:
        seen.append(current_tenant())
        return keys.session("t")

    assert_isolated(function, tenants=("a", "b", "c"))
    assert seen == ["a", "b", "c"]


def test_assert_isolated_finds_a_key_without_tenant() -> None:
    """The key is named: it is the test's own data."""

    def bad(thread: str) -> str:
        current_tenant()
        return f"session:{thread}"

    with pytest.raises(
        AssertionError, match=r"bad yields b'session:t' under tenant 'acme' and under tenant 'globex'"
    ):
        assert_isolated(bad, "t")


def test_assert_isolated_finds_a_shared_key() -> None:
    """A key of nobody is not isolated."""
    with pytest.raises(AssertionError, match="yields b'%shared:assertions:x'"):
        assert_isolated(flag, "x")


def test_assert_isolated_finds_a_cached_key() -> None:
    """A memo that forgot the tenant gives the second one the first one's key."""
    memo: dict[str, str] = {}

    def cached(thread: str) -> str:
        return memo.setdefault(thread, keys.session(thread))

    with pytest.raises(AssertionError, match="under tenant 'acme' and under tenant 'globex'"):
        assert_isolated(cached, "t")


def test_assert_isolated_finds_the_third_tenant() -> None:
    """All pairs are compared, not neighbours alone."""
    pool = {"a": "x", "b": "y", "c": "x"}
    with pytest.raises(AssertionError, match="under tenant 'a' and under tenant 'c'"):
        assert_isolated(lambda: pool[current_tenant()], tenants=["a", "b", "c"])


def test_assert_isolated_finds_another_tenant_s_key() -> None:
    """Distinct, and still wrong: each tenant is given the other one's."""
    other = {"acme": "globex:x", "globex": "acme:x"}
    with pytest.raises(AssertionError, match="belongs to another tenant"):
        assert_isolated(lambda: other[current_tenant()])


def test_assert_isolated_compares_bytes_with_text() -> None:
    """Redis does not know the difference."""
    pool: dict[str, object] = {"acme": "same", "globex": b"same"}
    with pytest.raises(AssertionError, match="yields b'same'"):
        assert_isolated(lambda: pool[current_tenant()])


def test_assert_isolated_is_not_fooled_by_equality() -> None:
    """A text that claims to differ is compared as what it is."""

    class Liar(str):
        __slots__ = ()

        def __eq__(self, other: object) -> bool:
            return False

        def __hash__(self) -> int:
            return id(self)

        def encode(self, *args: Any, **kwargs: Any) -> bytes:
            return str(id(self)).encode()

    with pytest.raises(AssertionError, match="yields b'same'"):
        assert_isolated(lambda: Liar("same"))


@pytest.mark.parametrize(
    ("result", "what"),
    [
        (None, "yields nothing under"),
        ("", "yields str ''"),
        (b"", "yields bytes b''"),
        (7, "yields int 7"),
        (1.5, "yields float 1.5"),
        (True, "yields bool True"),
        ([], "yields list"),
        ((), "yields tuple"),
        (set(), "yields set"),
        ({}, "yields dict"),
        ([[], "x"], "yields list"),
        ({"label": None}, "yields nothing under"),
        ({"label": []}, "yields list"),
        (("key", 60), "yields int 60"),
        (object(), "yields object"),
        (iter(()), "yields"),
    ],
)
def test_assert_isolated_refuses_what_proves_nothing(result: object, what: str) -> None:
    """No result, an empty one, or one that is no key, is a failure and not a success."""

    def function() -> object:
        current_tenant()
        return result

    with pytest.raises(AssertionError, match=what):
        assert_isolated(function)


def k(name: str = "t") -> str:
    return keys.session(name)


@pytest.mark.parametrize(
    "function",
    [
        lambda: k().encode(),
        lambda: bytearray(k().encode()),
        lambda: memoryview(k().encode()),
        lambda: [k("a"), k("b")],
        lambda: (k("a"), (k("b"), [k("c")])),
        lambda: {k("a"), k("b")},
        lambda: collections.deque([k("a")]),
        lambda: (k(name) for name in "ab"),
        lambda: map(k, "ab"),
        lambda: [(k(name) for name in "ab")],
        lambda: {"one": k("a"), "two": [k("b")]},
        lambda: {1: k("a"), None: k("b")},
        lambda: {k("a"): "value", k("b"): 7},
        lambda: {k("a"): None},
        lambda: collections.OrderedDict(a=k()),
        lambda: {"a": {k("b"): "same"}},
        lambda: {"a": 1, "b": 2} and {current_tenant() + "/": "x"},
        lambda: f"files/{current_tenant()}/x",
    ],
)
def test_assert_isolated_looks_into_results(function: Any) -> None:
    """Nested results, mappings by their labels and by their keys, lazy ones while their tenant is active."""
    assert_isolated(function)


@pytest.mark.parametrize(
    "function",
    [
        lambda: [k("a"), "same"],
        lambda: (k("a"), ("same",)),
        lambda: {k("a"), "same"},
        lambda: (name for name in [k("a"), "same"]),
        lambda: {"one": k("a"), "two": "same"},
        lambda: {"one": [k("a"), "same"]},
        lambda: {k("a"): 1, "label": "same"},
        lambda: {"label": {"same": "same"}},
        lambda: {1: "same"},
    ],
)
def test_assert_isolated_finds_one_bad_key_among_good_ones(function: Any) -> None:
    """A single key that two tenants share is enough, wherever it stands."""
    with pytest.raises(AssertionError, match="yields b'same' under tenant 'acme' and under"):
        assert_isolated(function)


def test_assert_isolated_restores_what_a_function_leaves() -> None:
    """A call that binds and does not reset hits neither the next call nor the test."""

    def leaving() -> str:
        bind_tenant(current_tenant())
        return keys.session("t")

    assert_isolated(leaving)
    assert_no_tenant()


def test_assert_isolated_lets_errors_through() -> None:
    """An error of the function is the test's to see, and nothing stays active."""

    def failing() -> str:
        raise ValueError("their own")

    with pytest.raises(ValueError, match="their own"):
        assert_isolated(failing)
    assert_no_tenant()


@pytest.mark.parametrize("tenants", [(), ("acme",), ("acme", "acme")])
def test_assert_isolated_wants_two_tenants(tenants: Any) -> None:
    """One tenant alone proves nothing."""
    with pytest.raises(ValueError, match="at least two different tenants"):
        assert_isolated(k, tenants=tenants)


def test_assert_isolated_wants_tenant_ids() -> None:
    """Ids are checked before anything is called."""
    with pytest.raises(InvalidTenantIdError, match="is not a tenant id"):
        assert_isolated(k, tenants=("acme", None))


async def good_async(name: str = "t") -> str:
    await asyncio.sleep(0)
    return keys.session(name)


async def good_steps() -> AsyncIterator[str]:
    for name in "ab":
        await asyncio.sleep(0)
        yield keys.session(name)


async def returns_steps() -> AsyncIterator[str]:
    return good_steps()


async def bad_async() -> str:
    await asyncio.sleep(0)
    return "same"


async def nothing_async() -> None:
    await asyncio.sleep(0)


ASYNCHRONOUS = [good_async, good_steps, returns_steps, lambda: good_async("x")]


@pytest.mark.parametrize("function", ASYNCHRONOUS)
def test_assert_isolated_runs_asynchronous_functions(function: Any) -> None:
    """In a synchronous test at once, whether its result is awaited or not."""
    with tenant_scope("initech"):
        assert_isolated(function)
        asyncio.run(assert_isolated(function))
        assert current_tenant() == "initech"


@pytest.mark.parametrize("function", ASYNCHRONOUS)
async def test_assert_isolated_is_awaited_in_a_loop(function: Any) -> None:
    """In an asynchronous test by awaiting."""
    with tenant_scope("initech"):
        await assert_isolated(function)
        assert current_tenant() == "initech"


def test_assert_isolated_is_awaited_in_trio() -> None:
    """Not on asyncio alone."""

    async def function() -> str:
        await trio.lowlevel.checkpoint()
        return keys.session("t")

    async def test() -> None:
        await assert_isolated(function)
        with pytest.raises(AssertionError, match="yields b'same'"):
            await assert_isolated(bad)

    async def bad() -> str:
        await trio.lowlevel.checkpoint()
        return "same"

    trio.run(test)


@pytest.mark.parametrize(
    ("function", "match"), [(bad_async, "yields b'same'"), (nothing_async, "yields nothing")]
)
def test_assert_isolated_fails_for_bad_asynchronous_functions(function: Any, match: str) -> None:
    """Without being awaited, where there is no loop to await it in."""
    with pytest.raises(AssertionError, match=match):
        assert_isolated(function)


async def test_assert_isolated_fails_for_bad_asynchronous_functions_in_a_loop() -> None:
    """And by awaiting where there is."""
    with pytest.raises(AssertionError, match="yields b'same'"):
        await assert_isolated(bad_async)
    assert_no_tenant()


async def test_assert_isolated_of_a_synchronous_function_needs_no_await() -> None:
    """A running loop does not make a synchronous function asynchronous."""
    with pytest.raises(AssertionError, match="yields b'same'"):
        assert_isolated(lambda: "same")


async def test_assert_isolated_takes_functions_that_are_asynchronous_for_some_tenants_only() -> None:
    """One of them has its answer at hand, say."""

    async def fetched() -> str:
        return keys.session("t")

    at_hand = iter([False, True])
    await assert_isolated(lambda: keys.session("t") if next(at_hand) else fetched())
    at_hand = iter([True, False])
    with pytest.raises(AssertionError, match="yields b'same'"):
        await assert_isolated(lambda: "same" if next(at_hand) else bad_async())


async def test_assert_isolated_keeps_concurrent_work_apart() -> None:
    """While it waits, other tasks of the loop see their own tenant."""

    async def other() -> list[str]:
        with tenant_scope("initech"):
            return [(await asyncio.sleep(0), current_tenant())[1] for _ in range(10)]

    task = asyncio.create_task(other())
    await assert_isolated(good_async)
    assert set(await task) == {"initech"}
    assert_no_tenant()


def test_assert_isolated_gives_a_coroutine_that_is_over() -> None:
    """Whatever is done to coroutines may be done to it: tasks, cancelling, closing, waiting with a limit."""

    async def test() -> None:
        await asyncio.wait_for(outcome, 10)
        task = asyncio.ensure_future(outcome)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    outcome: Any = assert_isolated(good_async)
    asyncio.run(test())
    outcome.close()
    with pytest.raises(ValueError, match="thrown"):
        outcome.throw(ValueError("thrown"))


def test_assert_isolated_leaves_the_current_event_loop_alone() -> None:
    """A synchronous test that has a loop of its own keeps it."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        assert_isolated(good_async)
        assert asyncio.get_event_loop() is loop
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def test_no_tenant_error_leaves_assert_isolated() -> None:
    """A function that runs its work where the tenant does not reach is told by its own error."""
    import threading

    def function() -> str:
        found: list[Any] = []

        def work() -> None:
            try:
                found.append(keys.session("t"))
            except NoTenantError as error:
                found.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        if isinstance(found[0], NoTenantError):
            raise found[0]
        return found[0]

    with pytest.raises(NoTenantError, match="session needs an active tenant"):
        assert_isolated(function)
