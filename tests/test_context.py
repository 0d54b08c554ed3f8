"""States, scopes, the imperative pair, hooks, and who inherits what."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import multiprocessing
import os
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext

import pytest

from tenantry import (
    InvalidTenantIdError,
    NoTenantError,
    ScopeOrderError,
    TenantConflictError,
    add_scope_hook,
    bind_tenant,
    carry_tenant,
    current_tenant,
    current_tenant_or_none,
    detached,
    reset_tenant,
    tenant_scope,
    without_tenant,
)
from tenantry import context as core
from tenantry.context import begin_unit, current_unit, end_unit, get_state, require_tenant, unit_of_work


def active():
    return current_tenant_or_none()


def in_thread(function):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


# --- states and reads ------------------------------------------------------------------------------


def test_current_tenant_without_one_raises():
    """Reading for a decision never gives None."""
    with pytest.raises(NoTenantError, match="current_tenant needs an active tenant") as caught:
        current_tenant()
    assert (caught.value.wanted, caught.value.state) == ("current_tenant", "never set")


@pytest.mark.parametrize(
    ("enter", "state"),
    [
        (lambda: unit_of_work(None), "explicitly none"),
        (lambda: without_tenant(reason="a test"), "without_tenant"),
    ],
)
def test_state_without_a_tenant_says_which_it_is(enter, state):
    """The three states without a tenant are told apart."""
    with enter():
        assert active() is None
        with pytest.raises(NoTenantError, match="thing needs") as caught:
            require_tenant("thing")
    assert caught.value.state == state


def test_scope_makes_tenant_active_and_restores():
    """Inside the block and not a moment longer."""
    with tenant_scope("acme") as tenant:
        assert tenant == current_tenant() == active() == require_tenant("x") == "acme"
    assert active() is None
    assert get_state().kind == "never set"


@pytest.mark.parametrize("value", [None, "", " ", b"acme", 1])
def test_scope_refuses_what_is_no_tenant(value):
    """There is no tenant that stands for none or for all."""
    with pytest.raises(InvalidTenantIdError, match="without_tenant"):
        tenant_scope(value)
    with pytest.raises(InvalidTenantIdError, match="is not a tenant id"):
        bind_tenant(value)


# --- nesting and order -----------------------------------------------------------------------------


def test_nesting_the_same_tenant_is_free():
    """A function may make sure of the tenant that is active already."""
    with tenant_scope("acme"):
        with tenant_scope("acme"):
            assert active() == "acme"
        assert active() == "acme"


def test_entering_another_tenant_is_a_conflict():
    """A tenant is never changed by accident, and the refusal disturbs nothing."""
    with tenant_scope("acme"):
        with pytest.raises(TenantConflictError, match="switch=True") as caught:
            tenant_scope("globex").__enter__()
        with pytest.raises(TenantConflictError, match="'globex'"):
            bind_tenant("globex")
        assert active() == "acme"
    assert (caught.value.active, caught.value.requested) == ("acme", "globex")


def test_switch_enters_another_tenant_and_comes_back():
    """Who says that the switch is meant gets it."""
    with tenant_scope("acme"):
        with tenant_scope("globex", switch=True):
            assert active() == "globex"
        assert active() == "acme"


def test_scope_restores_after_an_error():
    """An error of the body leaves as it is and leaves nothing behind."""
    with pytest.raises(ZeroDivisionError, match="division"), tenant_scope("acme"):
        1 / 0
    assert active() is None


@pytest.mark.parametrize("inner", ["globex", "acme"])
def test_scope_left_out_of_order_ends_with_no_tenant(inner):
    """The tenant of a scope that was left is never resurrected; the other exit is silent."""
    first, second = tenant_scope("acme"), tenant_scope(inner, switch=True)
    first.__enter__()
    second.__enter__()
    with pytest.raises(ScopeOrderError, match="reverse order"):
        first.__exit__(None, None, None)
    assert get_state().kind == "never set"
    second.__exit__(None, None, None)
    assert get_state().kind == "never set"


def test_scopes_around_and_between_a_mistake_are_silent():
    """One mistake is told once; what was entered before it is dead, what is entered after it lives."""
    outer, first, second, third = (tenant_scope(name, switch=True) for name in ("o", "a", "b", "c"))
    for scope in (outer, first, second, third):
        scope.__enter__()
    with pytest.raises(ScopeOrderError, match="'a'"):
        first.__exit__(None, None, None)
    with tenant_scope("new"):
        for dead in (third, second, outer):
            dead.__exit__(None, None, None)
            assert active() == "new"
    assert active() is None


def test_scope_left_twice_raises():
    """An exit without an entry is a mistake of its own."""
    scope = tenant_scope("acme")
    with scope:
        pass
    with pytest.raises(ScopeOrderError, match="never entered, or was left before"):
        scope.__exit__(None, None, None)


def test_scope_object_may_be_entered_again_inside_itself():
    """One scope object is re-entrant."""
    scope = tenant_scope("acme")
    with scope, scope:
        with scope:
            assert active() == "acme"
        assert active() == "acme"
    assert active() is None


def test_scope_object_entered_twice_and_left_out_of_order_raises():
    """The entry that is left is its last one, and another scope is open inside it."""
    scope, inner = tenant_scope("acme"), tenant_scope("globex", switch=True)
    for each in (scope, scope, inner):
        each.__enter__()
    with pytest.raises(ScopeOrderError, match="reverse order"):
        scope.__exit__(None, None, None)
    inner.__exit__(None, None, None)
    scope.__exit__(None, None, None)
    assert active() is None


def test_scope_object_shared_by_contexts_takes_back_the_entry_of_each():
    """The first to enter leaves first, and each exit takes its own entry."""
    scope = tenant_scope("acme")
    contexts = [contextvars.Context() for _ in range(3)]
    for context in contexts:
        context.run(scope.__enter__)
    for context in contexts:
        context.run(scope.__exit__, None, None, None)
        assert context.run(active) is None
    with pytest.raises(ScopeOrderError, match="never entered"):
        scope.__exit__(None, None, None)


def test_scope_object_ended_by_a_mistake_leaves_another_context_its_entry():
    """What is left here is the entry of here, though it is dead."""
    outer, scope, inner = tenant_scope("acme"), tenant_scope("acme"), tenant_scope("acme")
    for each in (outer, scope, inner):
        each.__enter__()
    with pytest.raises(ScopeOrderError):
        outer.__exit__(None, None, None)
    other = contextvars.Context()
    other.run(scope.__enter__)
    scope.__exit__(None, None, None)
    assert other.run(active) == "acme"
    other.run(scope.__exit__, None, None, None)
    assert other.run(active) is None
    for each in (outer, scope):
        with pytest.raises(ScopeOrderError, match="never entered"):
            each.__exit__(None, None, None)


def test_scope_object_shared_by_threads_keeps_them_apart():
    """Two threads inside one scope object leave in the order in which they came."""
    scope, barrier, seen = tenant_scope("acme"), threading.Barrier(2), []

    def work(leave_first):
        scope.__enter__()
        barrier.wait()
        if not leave_first:
            barrier.wait()
        scope.__exit__(None, None, None)
        seen.append(active())
        if leave_first:
            barrier.wait()

    threads = [threading.Thread(target=work, args=(first,)) for first in (True, False)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [None, None]


def test_scope_left_in_another_context_changes_nothing_and_is_silent():
    """A finaliser that runs elsewhere finds that place's own tenant untouched."""
    scope = tenant_scope("acme")
    contextvars.copy_context().run(scope.__enter__)
    with tenant_scope("globex"):
        scope.__exit__(None, None, None)
        assert active() == "globex"


def test_scope_left_in_a_copy_of_its_own_context_is_silent():
    """A copy that has the very state of the entry is another context all the same."""
    scope = tenant_scope("acme")

    def leave():
        scope.__exit__(None, None, None)
        return active()

    def enter():
        scope.__enter__()
        return contextvars.copy_context().run(leave), active()

    assert contextvars.copy_context().run(enter) == ("acme", "acme")


def test_async_scope_is_a_scope():
    """The async form is the same scope."""

    async def main():
        async with tenant_scope("acme") as tenant:
            assert tenant == active() == "acme"
            async with without_tenant(reason="a test"):
                assert active() is None
            with pytest.raises(TenantConflictError, match="globex"):
                async with tenant_scope("globex"):
                    pass
        return active()

    assert asyncio.run(main()) is None


def test_concurrent_tasks_that_leave_first_in_first_out_stay_apart():
    """Interleaved tasks, the first to enter the first to leave, each see only their own tenant."""

    async def work(name, gate, done):
        async with tenant_scope(name):
            done.set()
            await gate.wait()
            assert active() == name
        return active()

    async def main():
        gates = [asyncio.Event() for _ in range(20)]
        tasks = []
        for number, gate in enumerate(gates):
            entered = asyncio.Event()
            tasks.append(asyncio.create_task(work(f"t{number}", gate, entered)))
            await entered.wait()
        for gate, task in zip(gates, tasks, strict=True):
            gate.set()
            assert await task is None
        return active()

    assert asyncio.run(main()) is None


def test_chain_of_contexts_keeps_no_history_alive():
    """Of a long chain in which each link enters a tenant and starts the next, the last link alone lives."""

    class Unit:
        pass

    refs = []

    def link(number):
        unit = Unit()
        refs.append(weakref.ref(unit))
        unit_of_work(f"t{number}", unit=unit).__enter__()
        tenant_scope(f"u{number}", switch=True).__enter__()
        return contextvars.copy_context()

    context = contextvars.Context()
    for number in range(50):
        context = context.run(link, number)
    gc.collect()
    assert [index for index, ref in enumerate(refs) if ref() is not None] == [49]


# --- the imperative pair -----------------------------------------------------------------------------


def test_bind_and_reset_are_a_scope_in_two_calls():
    """For hosts that call one function before and one after."""
    token = bind_tenant("acme")
    assert active() == "acme"
    reset_tenant(token)
    assert get_state().kind == "never set"


def test_reset_of_a_used_token_disturbs_nothing():
    """The second reset is told, and the tenant of now stays."""
    token = bind_tenant("acme")
    reset_tenant(token)
    with tenant_scope("globex"):
        with pytest.raises(ScopeOrderError, match="already taken"):
            reset_tenant(token)
        assert active() == "globex"


def test_reset_in_another_context_changes_nothing_there():
    """A token works where it was made, and still does after the mistake."""
    token = bind_tenant("acme")

    def elsewhere():
        with pytest.raises(ScopeOrderError, match="another context"):
            reset_tenant(token)
        return active()

    assert contextvars.copy_context().run(elsewhere) == "acme"
    assert in_thread(elsewhere) is None
    reset_tenant(token)
    assert active() is None


def test_reset_inside_a_later_scope_ends_with_no_tenant():
    """Out of order is out of order, by whichever door."""
    token = bind_tenant("acme")
    with tenant_scope("globex", switch=True):
        with pytest.raises(ScopeOrderError, match="reverse order"):
            reset_tenant(token)
        assert active() is None


def test_reset_of_a_token_that_a_mistake_has_ended_is_silent():
    """The mistake was told once already."""
    scope = tenant_scope("acme")
    scope.__enter__()
    token = bind_tenant("acme")
    with pytest.raises(ScopeOrderError, match="reverse order"):
        scope.__exit__(None, None, None)
    reset_tenant(token)
    assert active() is None


def test_reset_takes_tokens_of_bind_only():
    """Something else is refused by name of its type."""
    with pytest.raises(TypeError, match="not NoneType"):
        reset_tenant(None)


# --- without_tenant ------------------------------------------------------------------------------------


def test_without_tenant_logs_its_reason(caplog):
    """A deliberate region can be found in the log."""
    with caplog.at_level(logging.INFO, logger="tenantry"), without_tenant(reason="nightly clean-up"):
        pass
    assert "nightly clean-up" in caplog.text


def test_asynchronous_without_tenant_logs_its_reason_too(caplog):
    """Both forms are one."""

    async def main():
        with caplog.at_level(logging.INFO, logger="tenantry"):
            async with without_tenant(reason="the nightly report"):
                pass

    asyncio.run(main())
    assert "the nightly report" in caplog.text


def test_without_tenant_lets_tenants_in_without_switch_and_restores():
    """A platform job works through its tenants one by one."""
    with tenant_scope("acme"):
        with without_tenant(reason="a test"):
            for name in ("globex", "initech"):
                with tenant_scope(name):
                    assert active() == name
            assert active() is None
        assert active() == "acme"


@pytest.mark.parametrize("reason", ["", " ", "\n\t"])
def test_without_tenant_refuses_a_blank_reason(reason):
    """A blank reason is none."""
    with pytest.raises(ValueError, match="why does this belong to no tenant"):
        without_tenant(reason=reason)


def test_without_tenant_refuses_a_missing_reason():
    """The reason is a required keyword, and it is a text."""
    with pytest.raises(TypeError, match="reason"):
        without_tenant()
    with pytest.raises(TypeError, match="takes a text, not NoneType"):
        without_tenant(reason=None)


def test_without_tenant_left_out_of_order_raises():
    """It is a scope like the other one."""
    region, scope = without_tenant(reason="a test"), tenant_scope("acme")
    region.__enter__()
    scope.__enter__()
    with pytest.raises(ScopeOrderError, match="the scope of without_tenant"):
        region.__exit__(None, None, None)
    scope.__exit__(None, None, None)
    assert active() is None


# --- threads, processes, carried and detached -------------------------------------------------------------


def test_threads_and_executors_inherit_nothing():
    """What runs in a bare thread has no tenant; asyncio.to_thread and tasks inherit."""

    async def main():
        with tenant_scope("acme"):
            loop = asyncio.get_running_loop()
            return (
                await loop.run_in_executor(None, active),
                await loop.run_in_executor(None, carry_tenant(active)),
                await asyncio.to_thread(active),
                await asyncio.create_task(asyncio.to_thread(active)),
            )

    assert asyncio.run(main()) == (None, "acme", "acme", "acme")
    with tenant_scope("acme"):
        assert in_thread(active) is None


def test_carried_call_leaves_the_pool_thread_clean():
    """Even if its body left a scope open, and whatever the thread had before."""

    def leaves_open():
        tenant_scope("globex", switch=True).__enter__()
        return active()

    with ThreadPoolExecutor(1) as pool:
        with tenant_scope("acme"):
            carried = carry_tenant(leaves_open)
        assert pool.submit(carried).result() == "globex"
        assert pool.submit(active).result() is None
        pool.submit(bind_tenant, "initech").result()
        assert pool.submit(carry_for("acme", active)).result() == "acme"
        assert pool.submit(active).result() == "initech"


def carry_for(tenant, function):
    with tenant_scope(tenant):
        return carry_tenant(function)


def test_scope_left_open_in_a_carried_call_and_left_later_is_silent():
    """It ended with its unit of work."""
    scope = tenant_scope("acme")
    carry_for("acme", scope.__enter__)()
    with tenant_scope("globex"):
        scope.__exit__(None, None, None)
        assert active() == "globex"


def test_carry_without_a_tenant_raises_at_the_call():
    """Where it is carried from, not where it runs much later."""
    with pytest.raises(NoTenantError, match="carry_tenant needs"):
        carry_tenant(active)


def test_carried_tenant_wins_where_it_runs_and_restores():
    """A carried call begins a unit of work."""
    carried = carry_for("acme", active)
    with tenant_scope("globex"):
        assert carried() == "acme"
        assert active() == "globex"


def test_detached_call_sees_no_tenant_and_restores():
    """What is started by a request does not belong to it."""
    with tenant_scope("acme"):
        assert detached(active)() is None
        assert active() == "acme"


def test_detached_coroutine_is_a_task_of_no_tenant():
    """A lazily created consumer outlives the first request without its tenant."""

    async def state():
        await asyncio.sleep(0)
        return get_state().kind

    async def main():
        with tenant_scope("acme"):
            task = asyncio.create_task(detached(state()))
            inline = await detached(state)()
            assert active() == "acme"
        return await task, inline

    assert asyncio.run(main()) == ("never set", "never set")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_forked_child_starts_clean_and_unwinds_in_silence():
    """A child has no tenant, and leaving the parent's blocks raises nothing there."""
    reader, writer = os.pipe()
    child = None
    try:
        with tenant_scope("acme"), tenant_scope("acme"):
            child = os.fork()
            if child == 0:
                inside = get_state().kind
    finally:
        if child == 0:
            os.write(writer, f"{inside}/{get_state().kind}".encode())
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as answers:
        assert answers.read() == "never set/never set"
    assert active() is None


def report_state(queue):
    queue.put(get_state().kind)


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_process_of_either_start_method_is_clean(method):
    """Multiprocessing inherits no tenant."""
    context = multiprocessing.get_context(method)
    queue = context.SimpleQueue()
    with tenant_scope("acme"):
        process = context.Process(target=report_state, args=(queue,))
        process.start()
    process.join()
    assert queue.get() == "never set"


# --- units of work -----------------------------------------------------------------------------------------


def test_unit_of_work_overwrites_and_restores_exactly():
    """Edges never trust what a server hands them."""
    with tenant_scope("stale"):
        with unit_of_work("acme"):
            assert active() == "acme"
            tenant_scope("globex", switch=True).__enter__()
        assert active() == "stale"
        with unit_of_work(None):
            assert get_state().kind == "explicitly none"
        assert active() == "stale"


@pytest.mark.parametrize("hooked", [False, True])
@pytest.mark.parametrize("switch", [False, True])
def test_scope_left_inside_a_unit_of_work_does_not_come_back(hook, hooked, switch):
    """The unit that runs is left alone, in silence; what it restores is no tenant whose scope is over."""
    if hooked:
        hook(lambda tenant_id: nullcontext())
    outer, inner = tenant_scope("acme"), tenant_scope("globex", switch=True)
    outer.__enter__()
    if switch:
        inner.__enter__()
    with unit_of_work("initech"):
        outer.__exit__(None, None, None)
        assert active() == "initech"
    if switch:
        assert active() == "globex"
        inner.__exit__(None, None, None)
    assert get_state().kind == "never set"


@pytest.mark.parametrize("run", [detached, carry_tenant])
def test_scope_left_by_a_detached_or_carried_call_does_not_come_back(run):
    """An ``ExitStack`` that a callback closes."""
    token = bind_tenant("acme")
    run(lambda: reset_tenant(token))()
    assert get_state().kind == "never set"


def test_unit_begun_and_ended_by_hand_is_a_unit_of_work(hook):
    """For the edge that counts every call: hooks fire, and ending it elsewhere or twice changes nothing."""
    log = []
    hook(Recorder(log, "a"))
    with tenant_scope("stale"):
        begun = begin_unit("acme")
        assert active() == "acme"
        tenant_scope("globex", switch=True).__enter__()
        contextvars.copy_context().run(end_unit, begun)
        assert active() == "globex"
        end_unit(begun, KeyError("x"))
        assert active() == "stale"
        end_unit(begun)
        assert active() == "stale"
    assert log.count("+a:acme:acme") == 1
    assert "-a:acme:globex:KeyError('x')" in log


def test_unit_begun_and_ended_by_hand_without_hooks():
    """The short way there is: no tenant either, something left open inside, ended elsewhere and twice."""
    with tenant_scope("stale"):
        begun = begin_unit(None)
        assert get_state().kind == "explicitly none"
        end_unit(begun)
        assert active() == "stale"
        begun = begin_unit("acme")
        tenant_scope("globex", switch=True).__enter__()
        contextvars.copy_context().run(end_unit, begun)
        assert active() == "globex"
        end_unit(begun)
        end_unit(begun)
        assert active() == "stale"
    scope = tenant_scope("acme")
    scope.__enter__()
    begun = begin_unit("globex")
    scope.__exit__(None, None, None)
    assert active() == "globex"
    end_unit(begun)
    assert get_state().kind == "never set"


def test_unit_of_work_left_in_another_context_is_silent():
    """A response that is closed elsewhere changes nothing there."""
    unit = unit_of_work("acme")
    contextvars.copy_context().run(unit.__enter__)
    unit.__exit__(None, None, None)
    assert active() is None


def test_unit_of_work_refuses_what_is_no_tenant():
    """None is none; everything else is checked."""
    with pytest.raises(InvalidTenantIdError, match="''"):
        unit_of_work("")


def test_unit_is_inherited_by_nested_scopes_only():
    """What an edge leaves for itself is there in its scopes, and not in detached work."""
    mark = object()
    with unit_of_work("acme", unit=mark):
        with tenant_scope("globex", switch=True), without_tenant(reason="a test"):
            assert current_unit() is mark
        assert detached(current_unit)() is None
        assert tenant_scope("acme")(current_unit)() is mark
    assert current_unit() is None


def test_one_scope_object_in_many_threads_leaves_each_its_own():
    """Whichever thread entered last, nobody leaves what another one entered."""
    scope, leaked = tenant_scope("acme"), []

    def work():
        for _ in range(1000):
            with scope:
                time.sleep(0)
            leaked.extend(filter(None, [active()]))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            for future in [pool.submit(work) for _ in range(8)]:
                future.result()
    finally:
        sys.setswitchinterval(interval)
    assert leaked == []


@pytest.mark.parametrize("switch", [False, True])
def test_one_scope_object_left_out_of_order_leaves_other_threads_alone(switch):
    """The mistake is told where it was made, and the tenant of the other thread ends where it was entered."""
    scope, entered, left = tenant_scope("acme"), threading.Event(), threading.Event()

    def other():
        with scope:
            entered.set()
            assert left.wait(10)
            seen = active()
        return seen, active()

    def work():
        scope.__enter__()
        inner = tenant_scope("globex", switch=True) if switch else tenant_scope("acme")
        inner.__enter__()
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(other)
            assert entered.wait(10)
            with pytest.raises(ScopeOrderError, match="innermost"):
                scope.__exit__(None, None, None)
            assert active() is None
            left.set()
            assert future.result() == ("acme", None)
        inner.__exit__(None, None, None)
        return active()

    assert contextvars.Context().run(work) is None


# --- hooks ------------------------------------------------------------------------------------------------


@pytest.fixture
def hook():
    """Add scope hooks for one test."""
    removers = []

    def add(factory):
        removers.append(add_scope_hook(factory))
        return removers[-1]

    yield add
    for remove in removers:
        remove()


class Recorder:
    """A hook that writes down what happens, and fails where it is told to."""

    def __init__(self, log, name, fail_enter=None, fail_exit=None, swallow=False):
        self.log, self.name, self.fail_enter, self.fail_exit, self.swallow = (
            log,
            name,
            fail_enter,
            fail_exit,
            swallow,
        )

    def __call__(self, tenant):
        recorder = self

        class Manager:
            def __enter__(self):
                if recorder.fail_enter:
                    raise recorder.fail_enter
                recorder.log.append(f"+{recorder.name}:{tenant}:{active()}")

            def __exit__(self, kind, error, trace):
                recorder.log.append(f"-{recorder.name}:{tenant}:{active()}:{error!r}")
                if recorder.fail_exit:
                    raise recorder.fail_exit
                return recorder.swallow

        return Manager()


def test_hooks_run_in_order_with_the_tenant_active(hook):
    """Entered in order, left in reverse, each under the tenant."""
    log = []
    hook(Recorder(log, "a"))
    hook(Recorder(log, "b"))
    with tenant_scope("acme"):
        log.append("body")
    assert log == ["+a:acme:acme", "+b:acme:acme", "body", "-b:acme:acme:None", "-a:acme:acme:None"]


@pytest.mark.parametrize(
    "run",
    [
        lambda: reset_tenant(bind_tenant("acme")),
        lambda: unit_of_work("acme").__enter__() or None,
        lambda: carry_for("acme", active)(),
        lambda: tenant_scope("acme")(active)(),
    ],
    ids=["bind", "unit", "carry", "decorator"],
)
def test_hooks_fire_wherever_a_tenant_becomes_active(hook, run):
    """No door goes past the hooks."""
    log = []
    hook(Recorder(log, "a"))
    contextvars.copy_context().run(run)
    assert "+a:acme:acme" in log


def test_hooks_fire_for_a_carried_call_where_its_tenant_is_not_active(hook):
    """Where it is, they are entered already."""
    log = []
    carried = carry_for("acme", active)
    hook(Recorder(log, "a"))
    with tenant_scope("acme"):
        log.clear()
        assert carried() == "acme"
        assert log == []
    log.clear()
    assert carried() == "acme"
    assert log == ["+a:acme:acme", "-a:acme:acme:None"]


def test_hooks_stay_entered_for_a_part_of_a_unit(hook):
    """A whole unit of the same tenant has its own."""
    log = []
    hook(Recorder(log, "a"))
    begun = begin_unit("acme")
    log.clear()
    end_unit(begin_unit("acme", part=True))
    assert log == []
    end_unit(begin_unit("acme"))
    assert log == ["+a:acme:acme", "-a:acme:acme:None"]
    log.clear()
    end_unit(begin_unit("globex", part=True))
    assert log == ["+a:globex:globex", "-a:globex:globex:None"]
    log.clear()
    end_unit(begun)
    assert log == ["-a:acme:acme:None"]


def test_without_hooks_nothing_of_them_runs(monkeypatch):
    """A scope pays for hooks only if there are any."""

    def refuse(*arguments, **options):
        raise AssertionError("there are no hooks")

    for name in ("_enter_hooks", "_leave_hooks", "_take_back_hooked"):
        monkeypatch.setattr(core, name, refuse)
    monkeypatch.setattr(core._Scope, "_choose", refuse)  # that is for mistakes
    with unit_of_work("acme"), without_tenant(reason="a test"), tenant_scope("globex"):
        pass
    monkeypatch.setattr(core, "_replace", refuse)
    with tenant_scope("acme"), tenant_scope("globex", switch=True):
        pass
    monkeypatch.setattr(core, "_take_back", refuse)
    end_unit(begin_unit("acme"))
    assert active() is None


def test_nesting_the_same_tenant_fires_nothing_and_a_switch_keeps_the_outer_hooks(hook):
    """A tenant that is active already does not become active."""
    log = []
    hook(Recorder(log, "a"))
    with tenant_scope("acme"):
        with tenant_scope("acme"):
            carry_tenant(active)()
        with tenant_scope("globex", switch=True):
            pass
    assert [entry.split(":")[:2] for entry in log] == [
        ["+a", "acme"],
        ["+a", "globex"],
        ["-a", "globex"],
        ["-a", "acme"],
    ]


def test_without_tenant_fires_nothing(hook):
    """There is no tenant to tell about."""
    log = []
    hook(Recorder(log, "a"))
    with without_tenant(reason="a test"), unit_of_work(None):
        pass
    assert log == []


def test_hook_that_fails_to_enter_means_the_scope_is_not_entered(hook):
    """The hooks before it are left in reverse order and told why."""
    log = []
    hook(Recorder(log, "a"))
    hook(Recorder(log, "b"))
    hook(Recorder(log, "c", fail_enter=RuntimeError("c")))
    with unit_of_work(None):
        with pytest.raises(RuntimeError, match="c"):
            tenant_scope("acme").__enter__()
        assert get_state().kind == "explicitly none"
    assert [entry.split(":")[0] for entry in log] == ["+a", "+b", "-b", "-a"]
    assert "RuntimeError" in log[-1]


def test_hook_that_fails_while_another_is_unwound_leaves_too(hook):
    """The later error leaves, caused by the first."""
    hook(Recorder([], "a", fail_exit=ValueError("a")))
    hook(Recorder([], "b", fail_enter=RuntimeError("b")))
    with pytest.raises(ValueError, match="a") as caught:
        tenant_scope("acme").__enter__()
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert active() is None


def test_all_hooks_run_on_exit_then_the_error_leaves(hook):
    """A failing exit keeps neither the other hooks nor the tenant."""
    log = []
    hook(Recorder(log, "a", fail_exit=ValueError("a")))
    hook(Recorder(log, "b"))
    hook(Recorder(log, "c", fail_exit=RuntimeError("c")))
    scope = tenant_scope("acme")
    scope.__enter__()
    with pytest.raises(ValueError, match="a") as caught:
        scope.__exit__(None, None, None)
    assert isinstance(caught.value.__context__, RuntimeError)
    assert [entry[:2] for entry in log] == ["+a", "+b", "+c", "-c", "-b", "-a"]
    assert active() is None


def test_hook_cannot_swallow_the_error_of_a_body(hook):
    """What a hook's exit returns is ignored, and it is told the error."""
    log = []
    hook(Recorder(log, "a", swallow=True))
    with pytest.raises(KeyError, match="x"), tenant_scope("acme"):
        raise KeyError("x")
    assert log[-1] == "-a:acme:acme:KeyError('x')"


def test_hook_is_left_as_a_with_block_leaves_it(hook):
    """Three times None without an error; kind, error and trace with one."""
    seen = []

    class Manager:
        def __enter__(self):
            return self

        def __exit__(self, *details):
            seen.append(details)

    hook(lambda tenant: Manager())
    with tenant_scope("acme"):
        pass
    with pytest.raises(KeyError, match="x"), tenant_scope("acme"):
        raise KeyError("x")
    assert seen[0] == (None, None, None)
    assert (seen[1][0], type(seen[1][1])) == (KeyError, KeyError)
    assert seen[1][2] is seen[1][1].__traceback__


def test_hook_that_fails_keeps_the_context_of_its_error(hook):
    """What it has failed of itself is not covered by another hook's failure."""

    class Manager:
        def __enter__(self):
            return self

        def __exit__(self, *details):
            try:
                raise LookupError("own")
            except LookupError:
                raise ValueError("hook")

    hook(lambda tenant: Manager())
    hook(Recorder([], "b", fail_exit=RuntimeError("b")))
    scope = tenant_scope("acme")
    scope.__enter__()
    with pytest.raises(ValueError, match="hook") as caught:
        scope.__exit__(None, None, None)
    assert isinstance(caught.value.__context__, LookupError)


@pytest.mark.parametrize("same", [False, True], ids=["two errors", "one error twice"])
def test_errors_of_all_hooks_and_of_the_body_leave_together(hook, same):
    """Each is a context of the one after it, and an object that is raised twice makes no circle."""
    first = RuntimeError("c")
    hook(Recorder([], "a", fail_exit=first if same else ValueError("a")))
    hook(Recorder([], "b"))
    hook(Recorder([], "c", fail_exit=first))
    with pytest.raises((ValueError, RuntimeError)) as caught, tenant_scope("acme"):
        raise KeyError("body")
    chain, error = [], caught.value
    while error is not None:
        chain.append(type(error))
        error = error.__context__
    assert chain == [*([] if same else [ValueError]), RuntimeError, KeyError]


def test_errors_of_hooks_are_chained_where_the_body_s_is_not_being_handled(hook):
    """Somebody hands the error over, as an ``ExitStack`` does."""
    hook(Recorder([], "a", fail_exit=ValueError("a")))
    hook(Recorder([], "b", fail_exit=RuntimeError("b")))
    scope, error = tenant_scope("acme"), KeyError("body")
    scope.__enter__()
    with pytest.raises(ValueError, match="a") as caught:
        scope.__exit__(KeyError, error, None)
    assert isinstance(caught.value.__context__, RuntimeError)


def test_hook_that_leaves_a_scope_open_is_a_mistake_in_the_order(hook):
    """It would be the tenant of whatever comes next."""

    class Manager:
        def __enter__(self):
            return self

        def __exit__(self, *details):
            bind_tenant("acme")

    hook(lambda tenant: Manager())
    scope = tenant_scope("acme")
    scope.__enter__()
    with pytest.raises(ScopeOrderError, match="still open"):
        scope.__exit__(None, None, None)
    assert get_state().kind == "never set"


def test_hooks_of_a_scope_object_left_elsewhere_are_left_one_entry_at_a_time(hook, caplog):
    """The entries of other contexts keep theirs."""
    log = []
    hook(Recorder(log, "a"))
    scope = tenant_scope("acme")
    for context in (contextvars.Context(), contextvars.Context()):
        context.run(scope.__enter__)
    for left in (1, 2):
        scope.__exit__(None, None, None)
        assert len([line for line in log if line.startswith("-a")]) == left
    assert caplog.text == ""


def test_hook_that_fails_while_its_scope_is_left_out_of_order_is_logged(hook, caplog):
    """The mistake is what is raised."""
    hook(Recorder([], "a", fail_exit=ValueError("a")))
    outer = tenant_scope("acme")
    outer.__enter__()
    tenant_scope("acme").__enter__()
    with pytest.raises(ScopeOrderError):
        outer.__exit__(None, None, None)
    assert "left out of order or elsewhere" in caplog.text


def test_hook_of_a_scope_left_elsewhere_is_left_in_silence(hook, caplog):
    """A finaliser raises no noise; the hook's error goes to the log."""
    log = []
    hook(Recorder(log, "a", fail_exit=ValueError("a")))
    scope = tenant_scope("acme")
    contextvars.copy_context().run(scope.__enter__)
    with unit_of_work(None):
        scope.__exit__(None, None, None)
        assert get_state().kind == "explicitly none"
    assert log[-1] == "-a:acme:None:None"
    assert "left out of order or elsewhere" in caplog.text


def test_hook_of_a_scope_left_out_of_order_is_left(hook):
    """The order error leaves, and every hook was left once."""
    log = []
    hook(Recorder(log, "a"))
    first, second = tenant_scope("acme"), tenant_scope("globex", switch=True)
    first.__enter__()
    second.__enter__()
    with pytest.raises(ScopeOrderError, match="reverse order"):
        first.__exit__(None, None, None)
    second.__exit__(None, None, None)
    assert sorted(entry[:7] for entry in log if entry[0] == "-") == ["-a:acme", "-a:glob"]
    assert active() is None


def test_removed_hook_runs_no_more_and_removing_twice_is_fine(hook):
    """The remove function removes its own registration only."""
    log = []
    remove = hook(Recorder(log, "a"))
    hook(Recorder(log, "b"))
    remove()
    remove()
    with tenant_scope("acme"):
        pass
    assert [entry[:2] for entry in log] == ["+b", "-b"]


def test_hook_removed_inside_a_scope_is_still_left(hook):
    """Scopes that are open keep their hooks."""
    log = []
    remove = hook(Recorder(log, "a"))
    with tenant_scope("acme"):
        remove()
    assert [entry[0] for entry in log] == ["+", "-"]


def test_hook_may_hold_a_scope_of_its_own(hook):
    """What a hook has entered is left before the order is judged."""

    @contextmanager
    def inner(tenant):
        with tenant_scope(tenant), without_tenant(reason="a hook's own"):
            yield

    hook(inner)
    with tenant_scope("acme"):
        pass
    assert get_state().kind == "never set"


def test_hooks_of_a_bound_tenant_wait_for_its_own_context(hook):
    """A reset elsewhere changes nothing: the hooks are left once, where they belong."""
    log = []
    hook(Recorder(log, "a"))
    token = bind_tenant("acme")

    def elsewhere():
        with pytest.raises(ScopeOrderError, match="another context"):
            reset_tenant(token)

    contextvars.copy_context().run(elsewhere)
    assert [entry[:2] for entry in log] == ["+a"]
    reset_tenant(token)
    with pytest.raises(ScopeOrderError, match="already taken"):
        reset_tenant(token)
    assert log == ["+a:acme:acme", "-a:acme:acme:None"]


def test_hook_has_to_be_callable():
    """A context manager is no factory of context managers."""
    with pytest.raises(TypeError, match="takes the tenant id"):
        add_scope_hook(None)


def test_hook_made_by_contextlib_works(hook):
    """The usual way to write one."""
    log = []

    @contextmanager
    def tag(tenant):
        log.append(tenant)
        yield
        log.append("left")

    hook(tag)
    with tenant_scope("acme"):
        pass
    assert log == ["acme", "left"]
