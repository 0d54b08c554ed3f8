"""Decorators, carried and detached callables and generators: every step inside, nothing outside."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import gc
import inspect
import logging
import sys
import threading
import types
from concurrent.futures import ThreadPoolExecutor

import pytest
import trio

from tenantry import (
    NoTenantError,
    TenantConflictError,
    add_scope_hook,
    carry_tenant,
    current_tenant_or_none,
    detached,
    tenant_scope,
    without_tenant,
)
from tenantry.context import unit_of_work


def active():
    return current_tenant_or_none()


def echo():
    """A generator that tells its tenant at each step, and at its end."""
    log = []
    try:
        received = yield active()
        while True:
            try:
                received = yield (received, active())
            except KeyError as error:
                received = error.args[0]
    finally:
        log.append(active())
        FINAL.append(active())


async def async_echo():
    try:
        received = yield active()
        while True:
            await asyncio.sleep(0)
            try:
                received = yield (received, active())
            except KeyError as error:
                received = error.args[0]
    finally:
        await asyncio.sleep(0)
        FINAL.append(active())


FINAL: list[object] = []


@pytest.fixture(autouse=True)
def _empty_final():
    FINAL.clear()


# --- functions ---------------------------------------------------------------------------------------


def test_decorated_function_runs_under_the_tenant():
    """Arguments, result and metadata are the function's own."""

    @tenant_scope("acme")
    def add(a, *, b=1):
        """Add."""
        return active(), a + b

    assert add(1, b=2) == ("acme", 3)
    assert active() is None
    assert (add.__name__, add.__doc__) == ("add", "Add.")


def test_decorated_coroutine_function_runs_under_the_tenant():
    """The scope is open while the body runs, not only while the coroutine is made."""

    @tenant_scope("acme")
    async def work():
        await asyncio.sleep(0)
        return active()

    assert inspect.iscoroutinefunction(work)
    assert asyncio.run(work()) == "acme"


def test_decorated_function_raises_the_conflict():
    """A decorator is a scope: another tenant is not switched by accident."""
    with tenant_scope("globex"):
        with pytest.raises(TenantConflictError, match="'acme'"):
            tenant_scope("acme")(active)()
        assert tenant_scope("acme", switch=True)(active)() == "acme"


def test_decorator_is_recursive_and_shared_by_threads():
    """One decorator object keeps no state of a call."""
    scope = tenant_scope("acme")

    @scope
    def depth(count):
        return active() if count == 0 else depth(count - 1)

    @scope
    def meet(barrier):
        barrier.wait()
        return active()

    assert depth(20) == "acme"
    barrier = threading.Barrier(50)
    with ThreadPoolExecutor(50) as pool:
        futures = [pool.submit(meet, barrier) for _ in range(50)]
        assert {future.result() for future in futures} == {"acme"}
        assert pool.submit(active).result() is None


def test_generator_based_coroutines_stay_awaitable():
    """They are generators by their flags, and are awaited."""

    @tenant_scope("acme")
    @types.coroutine
    def work():
        yield
        return active()

    async def main():
        return await work()

    assert asyncio.run(main()) == "acme"


class Worker:
    def __init__(self):
        self.seen = None

    @tenant_scope("acme")
    def method(self):
        return self, active()

    @staticmethod
    @tenant_scope("acme")
    def static():
        return active()

    @classmethod
    @tenant_scope("acme")
    def klass(cls):
        return cls, active()

    @tenant_scope("acme")
    async def coroutine(self):
        return self, active()

    @tenant_scope("acme")
    def steps(self):
        yield self, active()

    async def __call__(self):
        return active()


def test_decorated_methods_keep_their_self():
    """Methods of every kind."""
    worker = Worker()
    assert worker.method() == (worker, "acme")
    assert worker.static() == "acme"
    assert worker.klass() == (Worker, "acme")
    assert asyncio.run(worker.coroutine()) == (worker, "acme")
    assert next(worker.steps()) == (worker, "acme")


@pytest.mark.parametrize(
    "target", [Worker, 5, None, property(active)], ids=["class", "int", "None", "property"]
)
def test_decorator_refuses_what_is_no_function(target):
    """A class would be bound while it is made and never again."""
    with pytest.raises(TypeError, match="decorates functions"):
        tenant_scope("acme")(target)


async def coroutine_function():
    await asyncio.sleep(0)
    return active()


def plain_wrapper():
    return coroutine_function()


@pytest.mark.parametrize(
    "target",
    [
        coroutine_function,
        plain_wrapper,
        functools.partial(coroutine_function),
        functools.partial(plain_wrapper),
        Worker(),
        staticmethod(coroutine_function),
        lambda: asyncio.sleep(0, None) and coroutine_function() if False else coroutine_function(),
    ],
    ids=["function", "wrapper", "partial", "partial of wrapper", "callable object", "staticmethod", "lambda"],
)
@pytest.mark.parametrize("carry", [True, False], ids=["carry", "decorator"])
def test_coroutines_of_every_kind_of_callable_are_held(target, carry):
    """What a plain callable returns has yet to run; it runs under the tenant all the same."""
    with tenant_scope("acme"):
        bound = carry_tenant(target) if carry else tenant_scope("acme")(target)

    async def main():
        assert await bound() == "acme"
        return active()

    assert asyncio.run(main()) is None


class AsyncCalled:
    async def __call__(self):
        return active()

    async def method(self):
        return active()


@pytest.mark.parametrize(
    "target",
    [
        functools.partial(coroutine_function),
        functools.partial(functools.partial(AsyncCalled().method)),
        AsyncCalled(),
        functools.partial(AsyncCalled()),
        AsyncCalled().method,
    ],
    ids=[
        "partial",
        "partial of partial of method",
        "callable object",
        "partial of callable object",
        "method",
    ],
)
def test_coroutine_callables_are_seen_as_such_through_what_wraps_them(target):
    """A host calls what is not one in a thread."""
    assert inspect.iscoroutinefunction(tenant_scope("acme")(target))
    with tenant_scope("acme"):
        assert inspect.iscoroutinefunction(carry_tenant(target))


def test_classes_are_refused_by_the_decorator():
    """It would hold the making of an object, and none of its methods."""
    with pytest.raises(TypeError, match="functions and other callables, not type"):
        tenant_scope("acme")(Called)


def test_carried_callables_of_every_kind():
    """Methods, partials, builtins and callable objects."""
    with tenant_scope("acme"):
        carried = [carry_tenant(f) for f in (active, functools.partial(active), Worker.static, Called())]
        sized = carry_tenant(len)
    assert [call() for call in carried] == ["acme"] * 4
    assert sized("abc") == 3


class Called:
    flavour = "plain"

    def __call__(self):
        return active()


@pytest.mark.parametrize("target", [None, 3, "text"])
def test_carry_and_detached_refuse_what_cannot_run(target):
    """The message says what can."""
    with tenant_scope("acme"), pytest.raises(TypeError, match="a coroutine or a generator was expected"):
        carry_tenant(target)
    with pytest.raises(TypeError, match="a coroutine or a generator was expected"):
        detached(target)


def test_without_tenant_decorates_and_logs_each_call(caplog):
    """A decorated platform job runs with no tenant and says so each time."""
    job = without_tenant(reason="nightly")(active)
    with caplog.at_level(logging.INFO, logger="tenantry"), tenant_scope("acme"):
        assert job() is None
        assert job() is None
        assert active() == "acme"
    assert caplog.text.count("nightly") == 2


def test_without_tenant_logs_calls_of_asynchronous_functions_and_generators(caplog):
    """When the call is made, or with the first step."""

    async def main():
        assert await nightly(coroutine_function)() is None
        assert [step async for step in nightly(async_twice)()] == [None, None]

    async def async_twice():
        yield active()
        yield active()

    def twice():
        yield active()
        yield active()

    nightly = without_tenant(reason="nightly")
    with caplog.at_level(logging.INFO, logger="tenantry"):
        asyncio.run(main())
        assert caplog.text.count("nightly") == 2
        assert list(nightly(twice)()) == [None, None]
        assert caplog.text.count("nightly") == 3
        assert nightly(staticmethod(active)).__func__() is None
    assert caplog.text.count("nightly") == 4


def test_decorator_keeps_the_attributes_of_a_function_and_not_those_of_an_object():
    """Tasks and endpoints are marked by them; the state of a callable object is its own affair."""

    def function():
        """Do."""

    function.marked = True
    called = Called()
    called.marked = True
    assert tenant_scope("acme")(function).marked is True
    assert not hasattr(tenant_scope("acme")(called), "marked")


# --- generators ---------------------------------------------------------------------------------------


def bind_decorator(function):
    return tenant_scope("acme")(function)


def bind_carry(function):
    with tenant_scope("acme"):
        return carry_tenant(function)


def bind_object(function):
    def make():
        with tenant_scope("acme"):
            return carry_tenant(function())

    return make


BINDERS = pytest.mark.parametrize("bind", [bind_decorator, bind_carry, bind_object])


@BINDERS
def test_generator_holds_its_tenant_per_step(bind):
    """The consumer never sees it: send, throw and close go through."""
    steps = bind(echo)()
    assert inspect.isgenerator(steps)
    assert next(steps) == "acme"
    assert active() is None
    assert steps.send(1) == (1, "acme")
    assert steps.throw(KeyError(2)) == (2, "acme")
    assert steps.send(3) == (3, "acme")
    assert active() is None
    steps.close()
    assert FINAL == ["acme"]
    assert active() is None


@BINDERS
def test_async_generator_holds_its_tenant_per_step(bind):
    """The same for the asynchronous protocol."""

    async def main():
        steps = bind(async_echo)()
        assert inspect.isasyncgen(steps)
        assert await anext(steps) == "acme"
        assert active() is None
        assert await steps.asend(1) == (1, "acme")
        assert await steps.athrow(KeyError(2)) == (2, "acme")
        assert await steps.asend(3) == (3, "acme")
        assert active() is None
        await steps.aclose()
        return active()

    assert asyncio.run(main()) is None
    assert FINAL == ["acme"]


def test_generator_returns_and_raises_through_the_wrapper():
    """Return values and errors are the generator's own."""

    @tenant_scope("acme")
    def steps():
        yield 1
        return active()

    def collect():
        return (yield from steps())

    outer = collect()
    assert next(outer) == 1
    with pytest.raises(StopIteration) as stop:
        next(outer)
    assert stop.value.value == "acme"

    @tenant_scope("acme")
    def fails():
        yield 1
        raise LookupError(active())

    with pytest.raises(LookupError, match="acme"):
        list(fails())


def test_async_generator_ends_and_raises_through_the_wrapper():
    """Ends and errors are the generator's own."""

    @tenant_scope("acme")
    async def steps():
        yield active()

    @tenant_scope("acme")
    async def fails():
        yield 1
        raise LookupError(active())

    async def main():
        assert [item async for item in steps()] == ["acme"]
        with pytest.raises(LookupError, match="acme"):
            async for _ in fails():
                pass

    asyncio.run(main())


def test_generator_function_stays_one():
    """Hosts ask by inspection what kind of thing a fixture or an endpoint is."""
    assert inspect.isgeneratorfunction(tenant_scope("acme")(echo))
    assert inspect.isasyncgenfunction(tenant_scope("acme")(async_echo))


@pytest.mark.parametrize("bind", [bind_decorator, bind_carry])
def test_generator_steps_in_copied_contexts_hold_the_tenant(bind):
    """A server that runs each step in a copy of a context changes nothing for it."""
    steps = bind(echo)()
    with unit_of_work("globex" if bind is bind_carry else None):
        first = contextvars.copy_context().run(next, steps)
        second = contextvars.copy_context().run(steps.send, 5)
        contextvars.copy_context().run(steps.close)
    assert (first, second) == ("acme", (5, "acme"))
    assert FINAL == ["acme"]


def test_step_of_a_decorated_generator_under_another_tenant_raises_and_closes_it():
    """A decorator is a scope at each step; the generator is finalised under its own tenant."""
    steps = tenant_scope("acme")(echo)()
    next(steps)
    with tenant_scope("globex"):
        with pytest.raises(TenantConflictError, match="'acme'"):
            next(steps)
        assert active() == "globex"
    assert FINAL == ["acme"]


def test_finaliser_of_a_dropped_generator_runs_under_its_tenant_in_silence():
    """Whoever drops the last reference keeps their own tenant."""
    steps = tenant_scope("acme")(echo)()
    next(steps)
    with tenant_scope("globex"):
        del steps
        gc.collect()
        assert active() == "globex"
    assert FINAL == ["acme"]


def test_broken_off_async_for_leaves_the_caller_unchanged():
    """`break` out of an async generator that holds a scope: no leak, no noise in the loop's handler."""
    noise = []

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: noise.append(context))
        with tenant_scope("globex"):
            async for _ in carried():
                break
            assert active() == "globex"
            gc.collect()
            for _ in range(5):
                await asyncio.sleep(0)
            assert active() == "globex"

    carried = bind_carry(async_echo)
    asyncio.run(main())
    assert noise == []
    assert FINAL == ["acme"]


def test_detached_generators_run_with_no_tenant():
    """Started by a request, and not the request's."""

    async def main():
        steps = detached(async_echo)()
        assert await anext(steps) is None
        assert active() == "acme"
        await steps.aclose()

    with tenant_scope("acme"):
        steps = detached(echo())
        assert next(steps) is None
        assert active() == "acme"
        steps.close()
        asyncio.run(main())
    assert FINAL == [None, None]


def test_without_tenant_decorates_generators():
    """Each step runs with no tenant, its consumer with its own."""
    steps = without_tenant(reason="a test")(echo)()
    with tenant_scope("acme"):
        assert next(steps) is None
        assert active() == "acme"
        steps.close()
    assert FINAL == [None]


def test_carry_is_checked_where_it_is_called_for_generators_too():
    """No tenant, no carrying."""
    with pytest.raises(NoTenantError, match="carry_tenant"):
        carry_tenant(echo)


@pytest.mark.parametrize("decorator", [tenant_scope("acme"), detached], ids=["scope", "detached"])
def test_static_and_class_methods_stay_what_they_are_under_a_decorator(decorator):
    """The descriptor decides what is passed: a plain function in its place would be handed the instance."""
    expected = decorator(active)()

    class Service:
        @decorator
        @staticmethod
        def static(value):
            return value, active()

        @decorator
        @classmethod
        def klass(cls, value):
            return cls, value, active()

    assert Service.static(1) == Service().static(1) == (1, expected)
    assert Service.klass(1) == Service().klass(1) == (Service, 1, expected)


def test_carried_generator_that_has_begun_is_ended_under_the_tenant():
    """It is as far as the generator that it carries, so that closing it at once runs the finaliser."""
    seen = []

    def steps():
        try:
            seen.append((yield 1))
            yield 2
        finally:
            seen.append(active())

    def carried():
        begun = steps()
        next(begun)
        with tenant_scope("acme"):
            return carry_tenant(begun)

    carried().close()
    assert carried().send("sent") == 2
    with pytest.raises(KeyError, match="thrown"):
        carried().throw(KeyError("thrown"))
    assert seen == ["acme", "sent", "acme", "acme"]


def test_carried_async_generator_that_has_begun_is_ended_under_the_tenant():
    """Closing it at once runs the finaliser, as closing what it carries would."""
    seen = []

    async def steps():
        try:
            seen.append((yield 1))
            yield 2
        finally:
            await asyncio.sleep(0)
            seen.append(active())

    async def carried():
        begun = steps()
        await anext(begun)
        with tenant_scope("acme"):
            return carry_tenant(begun)

    async def main():
        await (await carried()).aclose()
        assert await (await carried()).asend("sent") == 2
        gc.collect()
        for _ in range(3):
            await asyncio.sleep(0)

    asyncio.run(main())
    assert seen == ["acme", "sent", "acme"]


def test_detached_coroutine_that_never_begins_warns_of_nothing():
    """A task that is cancelled before its first step ends the coroutine inside as well."""

    async def work():
        raise AssertionError("it was cancelled before it began")

    async def main():
        task = asyncio.create_task(detached(work()))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    gc.collect()


def test_results_of_plain_functions_stay_the_callers():
    """Dropping what a decorated function returned ends nothing that somebody else still uses."""

    def steps():
        yield active()

    async def work():
        return active()

    generator, coroutine = steps(), work()
    tenant_scope("acme")(lambda: generator)()
    with pytest.warns(RuntimeWarning, match="never awaited"):
        tenant_scope("acme")(lambda: coroutine)()
    assert list(generator) == [None]
    assert asyncio.run(coroutine) is None


def test_asynchronous_results_of_plain_functions_stay_the_callers():
    """Also those that have begun."""

    async def main():
        steps = async_echo()
        await anext(steps)
        tenant_scope("acme")(lambda: steps)()
        gc.collect()
        for _ in range(5):
            await asyncio.sleep(0)
        assert await steps.asend(1) == (1, None)
        await steps.aclose()

    asyncio.run(main())
    assert FINAL == [None]


@BINDERS
@pytest.mark.parametrize("run", [asyncio.run, trio.run], ids=["asyncio", "trio"])
def test_async_generator_that_is_left_behind_is_ended_under_its_tenant(bind, run):
    """The loop ends what was begun in it, wherever it was made, and the one inside by its end."""
    bound = bind(tenant_of_the_end)()

    async def main():
        assert await anext(bound) == "acme"

    run(main) if run is trio.run else run(main())
    assert FINAL == ["acme"]


@pytest.mark.parametrize("collecting", ["globex", None])
def test_async_generator_in_a_cycle_is_ended_under_its_tenant_whoever_collects_it(collecting):
    """A collection may begin anywhere, in another tenant's request for one."""

    async def steps(holder):
        try:
            yield active()
            yield holder
        finally:
            FINAL.append(active())
            await asyncio.sleep(0)
            FINAL.append(active())

    async def main():
        holder = []
        bound = tenant_scope("acme")(steps)(holder)
        holder.append(bound)
        await anext(bound)
        del bound, holder
        with unit_of_work(collecting):
            gc.collect()
            seen = list(FINAL)
        for _ in range(5):
            await asyncio.sleep(0)
        return seen

    assert asyncio.run(main()) == []
    assert FINAL == ["acme", "acme"]


@BINDERS
@pytest.mark.parametrize("collecting", ["globex", None])
def test_async_generator_that_no_loop_knows_leaves_nothing_entered_where_it_is_dropped(
    bind, collecting, monkeypatch
):
    """The interpreter closes it, and drops it where it has to wait."""
    ignored = []
    monkeypatch.setattr(sys, "unraisablehook", lambda what: ignored.append(str(what.exc_value)))

    async def steps():
        try:
            yield active()
        finally:
            FINAL.append(active())
            try:
                await asyncio.sleep(0)
            finally:
                FINAL.append(active())

    loop = asyncio.new_event_loop()
    bound = bind(steps)()
    assert loop.run_until_complete(anext(bound)) == "acme"
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
    with unit_of_work(collecting):
        del bound
        assert active() == collecting
    assert ignored == ["async generator ignored GeneratorExit"]
    assert FINAL == ["acme", "acme"]


@BINDERS
def test_async_generator_is_cancelled_while_it_ends(bind):
    """What is thrown where its finaliser waits arrives there, under its tenant."""

    async def steps():
        try:
            yield
        finally:
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                FINAL.append(active())
                await asyncio.sleep(0)
                FINAL.append(active())
                raise

    bound = bind(steps)()
    with pytest.raises(StopIteration):
        anext(bound).send(None)
    ending = bound.aclose()
    assert ending.send(None) is None
    assert ending.throw(asyncio.CancelledError()) is None
    assert active() is None
    with pytest.raises(asyncio.CancelledError):
        ending.send(None)
    assert FINAL == ["acme", "acme"]


@pytest.mark.parametrize("bind", [lambda function: function, bind_decorator, bind_carry, bind_object])
def test_async_generator_that_is_told_to_exit_says_so(bind):
    """As without a scope around it."""

    async def main():
        bound = bind(tenant_of_the_end)()
        await anext(bound)
        with pytest.raises(GeneratorExit):
            await bound.athrow(GeneratorExit)

    asyncio.run(main())


def test_event_loop_sees_one_async_generator_begin():
    """It closes what it has seen, side by side."""
    seen = []

    async def main():
        first, finalizer = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(lambda steps: (seen.append(steps), first(steps)), finalizer)
        bound, other = tenant_scope("acme")(tenant_of_the_end)(), tenant_of_the_end()
        assert [await anext(bound), await anext(other)] == ["acme", None]
        assert seen == [bound, other]

    asyncio.run(main())
    assert sorted(FINAL, key=str) == [None, "acme"]


async def tenant_of_the_end():
    try:
        yield active()
    finally:
        FINAL.append(active())


@BINDERS
@pytest.mark.parametrize("is_asynchronous", [False, True])
def test_generator_whose_scope_cannot_be_entered_again_is_ended_under_its_tenant(bind, is_asynchronous):
    """Before the error arrives."""
    refused = []

    @contextlib.contextmanager
    def hook(tenant_id):
        if refused:
            raise refused.pop()
        yield

    def steps():
        try:
            yield active()
        finally:
            FINAL.append(active())

    async def main():
        bound = bind(tenant_of_the_end)()
        assert await anext(bound) == "acme"
        refused.append(OSError("no connection"))
        with pytest.raises(OSError, match="no connection"):
            await anext(bound)
        assert FINAL == ["acme"]

    def main_sync():
        bound = bind(steps)()
        assert next(bound) == "acme"
        refused.append(OSError("no connection"))
        with pytest.raises(OSError, match="no connection"):
            next(bound)
        assert FINAL == ["acme"]

    remove = add_scope_hook(hook)
    try:
        asyncio.run(main()) if is_asynchronous else main_sync()
    finally:
        remove()


@pytest.mark.parametrize("is_asynchronous", [False, True])
def test_finished_generator_is_not_entered_once_more(is_asynchronous):
    """Each step fires the hooks of its tenant once, and the end none."""
    entered = []

    @contextlib.contextmanager
    def hook(tenant_id):
        entered.append(tenant_id)
        yield

    def two():
        yield 1
        yield 2

    async def async_two():
        yield 1
        yield 2

    async def main():
        return [step async for step in tenant_scope("acme")(async_two)()]

    remove = add_scope_hook(hook)
    try:
        steps = asyncio.run(main()) if is_asynchronous else list(tenant_scope("acme")(two)())
    finally:
        remove()
    assert steps == [1, 2]
    assert entered == ["acme"] * 3


def test_bound_objects_keep_their_names():
    """A task is shown by the name of its coroutine."""

    async def work():
        return None

    def steps():
        yield

    async def items():
        yield

    for target in (work(), steps(), items()):
        bound = detached(target)
        assert bound.__name__ == target.__name__
        assert bound.__qualname__ == target.__qualname__
        if bound.__name__ == "work":
            bound.close()
