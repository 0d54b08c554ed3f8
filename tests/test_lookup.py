"""The lookup: what it remembers, what it shares, and what it does when it fails."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import trio

from tenantry import InvalidTenantIdError, ResolutionError
from tenantry.lookup import Lookup


class Clock:
    """A clock that stands still until it is told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Counting:
    """A function that counts its calls."""

    def __init__(self, records: dict[str, Any]) -> None:
        self.records = records
        self.calls: list[str] = []

    def __call__(self, tenant_id: str) -> Any:
        self.calls.append(tenant_id)
        return self.records.get(tenant_id)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for another thread to get where it has to be."""
    for _ in range(10_000):
        if condition():
            return
        time.sleep(0.001)
    raise AssertionError("it never happened")


# --- what is remembered --------------------------------------------------------------------------


def test_record_is_remembered_for_ttl(clock: Clock) -> None:
    """The function is asked again when the time has passed, not before."""
    find = Counting({"acme": "record"})
    lookup = Lookup(find, ttl=60, clock=clock)
    assert lookup.get("acme") == "record"
    clock.now += 59.9
    assert lookup.get("acme") == "record"
    assert find.calls == ["acme"]
    clock.now += 0.1
    assert lookup.get("acme") == "record"
    assert find.calls == ["acme", "acme"]


@pytest.mark.parametrize("record", ["record", None])
async def test_remembered_answer_is_given_on_the_loop_too(clock: Clock, record: object) -> None:
    """``aget`` asks no more often than ``get``, and both remember for each other."""
    find = Counting({} if record is None else {"acme": record})
    lookup = Lookup(find, ttl=60, negative_ttl=60, clock=clock)
    for _ in range(2):
        assert await lookup.aget("acme") == record
        assert lookup.get("acme") == record
    assert find.calls == ["acme"]
    clock.now += 60
    assert await lookup.aget("acme") == record
    assert find.calls == ["acme", "acme"]


def test_unknown_is_remembered_for_negative_ttl(clock: Clock) -> None:
    """That there is no such tenant is remembered for less time, and found to have changed."""
    find = Counting({})
    lookup = Lookup(find, ttl=60, negative_ttl=5, clock=clock)
    assert lookup.get("acme") is None
    find.records["acme"] = 1
    clock.now += 4.9
    assert lookup.get("acme") is None
    clock.now += 0.1
    assert lookup.get("acme") == 1
    clock.now += 30
    assert lookup.get("acme") == 1
    assert find.calls == ["acme", "acme"]


def test_known_tenant_may_become_unknown(clock: Clock) -> None:
    """A record that has expired is not served when the tenant is gone, and the other way round."""
    find = Counting({"acme": 1})
    lookup = Lookup(find, ttl=10, negative_ttl=20, clock=clock)
    assert lookup.get("acme") == 1
    del find.records["acme"]
    clock.now += 10
    assert lookup.get("acme") is None
    clock.now += 10
    assert lookup.get("acme") is None
    assert find.calls == ["acme"] * 2
    find.records["acme"] = 2
    clock.now += 10
    assert lookup.get("acme") == 2
    assert lookup.get("acme") == 2
    assert find.calls == ["acme"] * 3


@pytest.mark.parametrize("record", [0, False, "", [], {}, 0.0])
def test_false_record_is_a_record(record: object) -> None:
    """Only ``None`` is unknown."""
    find = Counting({"acme": record})
    lookup = Lookup(find)
    assert lookup.get("acme") == record
    assert lookup.get("acme") is not None
    assert find.calls == ["acme"]


def test_zero_ttl_remembers_nothing() -> None:
    """Every request asks."""
    find = Counting({"acme": 1})
    lookup = Lookup(find, ttl=0, negative_ttl=0)
    for tenant in ("acme", "acme", "nobody", "nobody"):
        lookup.get(tenant)
    assert find.calls == ["acme", "acme", "nobody", "nobody"]


def test_age_counts_from_the_question(clock: Clock) -> None:
    """What a slow function read may have changed while it ran."""

    def find(tenant_id: str) -> int:
        clock.now += 8
        return 1

    calls = Counting({})
    lookup = Lookup(lambda tenant_id: (calls(tenant_id), find(tenant_id)), ttl=10, clock=clock)
    lookup.get("acme")
    clock.now += 2
    lookup.get("acme")
    assert len(calls.calls) == 2


def test_oldest_goes_first(clock: Clock) -> None:
    """At most ``maxsize`` records are remembered; unknown ids do not push them out."""
    find = Counting({"a": 1, "b": 1, "c": 1})
    lookup = Lookup(find, maxsize=2, clock=clock)
    for tenant in ("a", "b", "c", "x", "y", "z"):
        lookup.get(tenant)
    find.calls.clear()
    for tenant in ("b", "c", "a"):
        lookup.get(tenant)
    assert find.calls == ["a"]


def test_age_counts_from_the_last_answer(clock: Clock) -> None:
    """A record that was asked for anew is not the oldest, and one that has changed sides takes no room."""
    find = Counting({"a": 1, "b": 1, "c": 1})
    lookup = Lookup(find, ttl=10, negative_ttl=10, maxsize=2, clock=clock)

    def look(*tenants: str) -> list[str]:
        find.calls.clear()
        for tenant in tenants:
            lookup.get(tenant)
        return find.calls

    look("a", "b")
    clock.now += 10
    assert look("b", "a", "c") == ["b", "a", "c"]
    assert look("a", "c", "b") == ["b"]
    look("y", "x")
    clock.now += 10
    find.records["x"] = 1
    assert look("y", "x", "z", "y") == ["y", "x", "z"]


def test_memory_is_bounded() -> None:
    """A hundred thousand unknown ids leave no more behind than ``maxsize``."""
    lookup = Lookup(lambda tenant_id: None, maxsize=100)
    lookup.get("warm")
    tracemalloc.start()
    try:
        for number in range(20_000):
            lookup.get(f"tenant-{number}")
        current, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The ids themselves are remembered elsewhere, up to a bound of their own.
    assert current < 2_000_000


def test_failure_is_not_remembered_and_nothing_stale_is_served(clock: Clock) -> None:
    """An expired record does not come back because the function fails."""
    find = Counting({"acme": 1})
    broken: list[BaseException] = []

    def fn(tenant_id: str) -> Any:
        if broken:
            raise broken[0]
        return find(tenant_id)

    lookup = Lookup(fn, ttl=10, clock=clock)
    assert lookup.get("acme") == 1
    broken.append(OSError("no database"))
    clock.now += 10
    for _ in range(2):
        with pytest.raises(ResolutionError, match="503") as caught:
            lookup.get("acme")
        assert caught.value.status == 503
        assert caught.value.__cause__ is broken[0]
    broken.clear()
    assert lookup.get("acme") == 1


@pytest.mark.parametrize("error", [StopIteration, StopAsyncIteration, KeyError, RecursionError])
def test_any_exception_is_503(error: type[BaseException]) -> None:
    """Also those that mean something to generators and futures, from both kinds of function."""

    def fn(tenant_id: str) -> Any:
        raise error

    async def afn(tenant_id: str) -> Any:
        raise error

    for function in (fn, afn):
        lookup = Lookup(function)
        with pytest.raises(ResolutionError, match="503"):
            lookup.get("acme")
        with pytest.raises(ResolutionError, match="503"):
            asyncio.run(lookup.aget("acme"))


def test_cancellation_by_the_function_itself_is_503() -> None:
    """A function that raises ``CancelledError`` of its own neither hangs nor is retried for ever."""

    async def fn(tenant_id: str) -> Any:
        raise asyncio.CancelledError

    lookup = Lookup(fn)
    with pytest.raises(ResolutionError, match="503"):
        lookup.get("acme")
    with pytest.raises(ResolutionError, match="503"):
        asyncio.run(lookup.aget("acme"))


# --- invalidate ----------------------------------------------------------------------------------


def test_invalidate_forgets_one_or_all() -> None:
    """The next request asks again, at once."""
    find = Counting({"a": 1, "b": 1})
    lookup = Lookup(find)

    def look() -> list[str]:
        find.calls.clear()
        for tenant in ("a", "b", "x"):
            lookup.get(tenant)
        return find.calls

    look()
    lookup.invalidate("a")
    assert look() == ["a"]
    lookup.invalidate("x")
    assert look() == ["x"]
    lookup.invalidate()
    assert look() == ["a", "b", "x"]


def test_invalidate_refuses_what_is_no_id() -> None:
    """A mistake would else leave the record in place, in silence."""
    with pytest.raises(InvalidTenantIdError, match="grammar"):
        Lookup(len).invalidate("a:b")
    with pytest.raises(InvalidTenantIdError, match="grammar"):
        Lookup(len).get("a:b")


def test_invalidate_detaches_a_flight() -> None:
    """What was begun before is given to those who wait, and is not remembered; who asks later asks anew."""
    started, release = threading.Event(), threading.Event()
    answers = iter(["old", "new"])

    def fn(tenant_id: str) -> str:
        answer = next(answers)
        if answer == "old":
            started.set()
            assert release.wait(10)
        return answer

    lookup = Lookup(fn)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(lookup.get, "acme")
        assert started.wait(10)
        lookup.invalidate("acme")
        assert pool.submit(lookup.get, "acme").result(10) == "new"
        release.set()
        assert first.result(10) == "old"
    assert lookup.get("acme") == "new"


def test_detached_flight_does_not_end_the_next_one() -> None:
    """When the old flight lands, the new one is still the one to join."""
    gates = [threading.Event(), threading.Event()]
    calls: list[int] = []

    def fn(tenant_id: str) -> int:
        number = len(calls)
        calls.append(number)
        assert gates[number].wait(10)
        return number

    lookup = Lookup(fn)
    with ThreadPoolExecutor(3) as pool:
        old = pool.submit(lookup.get, "acme")
        wait_until(lambda: len(calls) == 1)
        lookup.invalidate()
        new = pool.submit(lookup.get, "acme")
        wait_until(lambda: len(calls) == 2)
        gates[0].set()
        assert old.result(10) == 0
        follower = pool.submit(lookup.get, "acme")
        gates[1].set()
        assert (new.result(10), follower.result(10)) == (1, 1)
    assert calls == [0, 1]


# --- single flight -------------------------------------------------------------------------------


def test_one_flight_for_threads_and_event_loops() -> None:
    """Threads and two event loops that ask for one tenant at once share one call."""
    release = threading.Event()
    calls: list[str] = []

    def fn(tenant_id: str) -> str:
        calls.append(tenant_id)
        assert release.wait(10)
        return f"record of {tenant_id}"

    lookup = Lookup(fn)

    async def many() -> list[Any]:
        return await asyncio.gather(*(lookup.aget("acme") for _ in range(20)))

    with ThreadPoolExecutor(8) as pool:
        threads = [pool.submit(lookup.get, "acme") for _ in range(4)]
        loops = [pool.submit(asyncio.run, many()) for _ in range(2)]
        wait_until(lambda: bool(calls))
        release.set()
        results = [each.result(10) for each in threads]
        for each in loops:
            results += each.result(10)
    assert results == ["record of acme"] * 44
    assert calls == ["acme"]


def test_flights_of_different_tenants_do_not_wait_for_each_other() -> None:
    """A slow tenant holds up nobody else."""
    release = threading.Event()

    def fn(tenant_id: str) -> str:
        if tenant_id == "slow":
            assert release.wait(10)
        return tenant_id

    lookup = Lookup(fn)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(lookup.get, "slow")
        assert lookup.get("fast") == "fast"
        release.set()
        assert slow.result(10) == "slow"


def test_failure_goes_to_all_who_wait() -> None:
    """One call, one failure for all; the next request tries again."""
    release = threading.Event()
    calls: list[str] = []

    def fn(tenant_id: str) -> str:
        calls.append(tenant_id)
        assert release.wait(10)
        if len(calls) == 1:
            raise OSError("no database")
        return "record"

    lookup = Lookup(fn)

    async def several() -> list[Any]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(failure()) for _ in range(3)]
            await asyncio.to_thread(wait_until, lambda: bool(calls))
            release.set()
        return [task.result() for task in tasks]

    async def failure() -> int:
        with pytest.raises(ResolutionError, match="503") as caught:
            await lookup.aget("acme")
        return caught.value.status

    assert asyncio.run(several()) == [503] * 3
    assert lookup.get("acme") == "record"
    assert len(calls) == 2


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_cancelled_leader_takes_nobody_along(kind: str) -> None:
    """The client of the request that asked first goes away; the others get the answer of the same call."""
    calls: list[str] = []
    release = threading.Event()

    def fn(tenant_id: str) -> str:
        calls.append(tenant_id)
        assert release.wait(10)
        return "record"

    async def afn(tenant_id: str) -> str:
        calls.append(tenant_id)
        while not release.is_set():
            await asyncio.sleep(0.001)
        return "record"

    lookup = Lookup(afn if kind == "async" else fn)

    async def main() -> list[Any]:
        leader = asyncio.create_task(lookup.aget("acme"))
        while not calls:
            await asyncio.sleep(0.001)
        followers = [asyncio.create_task(lookup.aget("acme")) for _ in range(3)]
        await asyncio.sleep(0)
        followers[0].cancel()
        leader.cancel()
        results = await asyncio.gather(leader, followers[0], return_exceptions=True)
        assert all(isinstance(each, asyncio.CancelledError) for each in results)
        release.set()
        return [await each for each in followers[1:]]

    assert asyncio.run(main()) == ["record"] * 2
    assert calls == ["acme"]
    assert lookup.get("acme") == "record"


def test_end_of_the_leading_loop_takes_nobody_along() -> None:
    """The event loop that leads ends in the middle; a thread that waits leads a flight of its own."""
    calls: list[str] = []
    follow, done = threading.Event(), threading.Event()

    async def fn(tenant_id: str) -> str:
        calls.append(tenant_id)
        if len(calls) == 1:
            follow.set()
            await asyncio.Event().wait()
        return "record"

    lookup = Lookup(fn)

    async def led() -> None:
        task = asyncio.create_task(lookup.aget("acme"))
        await asyncio.to_thread(done.wait, 10)
        task.cancel()

    with ThreadPoolExecutor(2) as pool:
        loop = pool.submit(asyncio.run, led())
        assert follow.wait(10)
        follower = pool.submit(lookup.get, "acme")
        done.set()
        loop.result(10)
        assert follower.result(10) == "record"
    assert calls == ["acme", "acme"]


def test_loop_that_is_closed_without_an_end_takes_nobody_along() -> None:
    """A loop that is stopped and closed with the flight in it is noticed by those who wait."""
    calls: list[str] = []

    async def fn(tenant_id: str) -> str:
        calls.append(tenant_id)
        if len(calls) == 1:
            await asyncio.Event().wait()
        return "record"

    lookup = Lookup(fn)
    loop = asyncio.new_event_loop()
    task = loop.create_task(lookup.aget("acme"))
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    for _ in range(5):
        loop.run_until_complete(asyncio.sleep(0))
    assert calls == ["acme"]
    flight = lookup._flights["acme"]  # type: ignore[index]
    assert flight.task is not None
    flight.task._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.close()
    assert lookup.get("acme") == "record"
    del task, flight


@pytest.mark.timeout(20)
def test_loop_that_stands_still_takes_nobody_along() -> None:
    """A loop that was stopped in the middle and may go on later is not waited for."""
    calls: list[str] = []
    release: list[asyncio.Event] = []

    async def fn(tenant_id: str) -> str:
        calls.append(tenant_id)
        if len(calls) == 1:
            release.append(asyncio.Event())
            await release[0].wait()
            return "old"
        return "record"

    lookup = Lookup(fn)
    loop = asyncio.new_event_loop()
    leader = loop.create_task(lookup.aget("acme"))
    while not release:
        loop.run_until_complete(asyncio.sleep(0))
    assert lookup.get("acme") == "record"
    release[0].set()
    assert loop.run_until_complete(leader) == "old"
    assert lookup.get("acme") == "record"
    loop.close()
    assert calls == ["acme", "acme"]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["thread", "loop"])
def test_loop_that_stops_while_others_wait_takes_nobody_along(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits looks now and then whether the loop that leads still runs, and leads then."""
    monkeypatch.setattr("tenantry.lookup._POLL", 0.001)
    calls: list[str] = []
    main, boarded = threading.get_ident(), threading.Event()

    def clock() -> float:
        if threading.get_ident() != main:
            boarded.set()
        return 0.0

    async def fn(tenant_id: str) -> str:
        calls.append(tenant_id)
        if len(calls) == 1:
            await asyncio.Event().wait()
        return "record"

    lookup = Lookup(fn, clock=clock)
    loop = asyncio.new_event_loop()
    leader = loop.create_task(lookup.aget("acme"))

    async def until_followed(pool: ThreadPoolExecutor) -> Any:
        while not calls:
            await asyncio.sleep(0)
        if kind == "loop":
            follower = pool.submit(lambda: asyncio.run(lookup.aget("acme")))
        else:
            follower = pool.submit(lookup.get, "acme")
        await asyncio.to_thread(boarded.wait, 10)
        for _ in range(100):
            await asyncio.sleep(0)
        return follower

    with ThreadPoolExecutor(1) as pool:
        follower = loop.run_until_complete(until_followed(pool))
        assert follower.result(10) == "record"
    assert calls == ["acme", "acme"]
    leader.cancel()
    loop.run_until_complete(asyncio.wait({leader}))
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


class Poll(float):
    """A time to wait between two looks that is over at once, and counts the looks."""

    looks = 0

    def __gt__(self, other: object) -> bool:
        self.looks += 1
        return False


def test_who_waits_for_long_still_gets_the_answer_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it looks, and whoever invalidates meanwhile: the function is called once."""
    poll = Poll()
    monkeypatch.setattr("tenantry.lookup._POLL", poll)
    release = threading.Event()
    calls: list[str] = []

    def fn(tenant_id: str) -> str:
        calls.append(tenant_id)
        assert release.wait(10)
        return "record"

    lookup = Lookup(fn)
    with ThreadPoolExecutor(2) as pool:
        leader = pool.submit(lookup.get, "acme")
        wait_until(lambda: bool(calls))
        follower = pool.submit(lookup.get, "acme")
        wait_until(lambda: poll.looks > 0)
        lookup.invalidate()
        looks = poll.looks
        wait_until(lambda: poll.looks > looks + 2 or len(calls) > 1)
        release.set()
        assert (leader.result(10), follower.result(10)) == ("record", "record")
    assert calls == ["acme"]


async def test_requests_on_a_loop_that_wait_for_long_still_get_the_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The one that asked first and those that joined it."""
    monkeypatch.setattr("tenantry.lookup._POLL", 0)
    release = asyncio.Event()
    calls: list[str] = []

    async def fn(tenant_id: str) -> str:
        calls.append(tenant_id)
        await release.wait()
        return "record"

    lookup = Lookup(fn)
    tasks = [asyncio.create_task(lookup.aget("acme")) for _ in range(2)]
    for _ in range(20):
        await asyncio.sleep(0)
    lookup.invalidate()
    for _ in range(20):
        await asyncio.sleep(0)
    release.set()
    assert await asyncio.gather(*tasks) == ["record"] * 2
    assert calls == ["acme"]


def test_lookup_that_asks_for_itself_is_an_error() -> None:
    """It would wait for ever for what it has to finish."""
    lookup: Lookup = Lookup(lambda tenant_id: lookup.get(tenant_id))
    with pytest.raises(ResolutionError, match="503") as caught:
        lookup.get("acme")
    assert isinstance(caught.value.__cause__, ResolutionError)
    assert "looking up" in str(caught.value.__cause__.__cause__)


async def test_waiting_on_the_loop_that_has_to_finish_is_an_error() -> None:
    """A synchronous call on the thread of the loop that leads would block it for ever."""
    release = asyncio.Event()

    async def fn(tenant_id: str) -> str:
        await release.wait()
        return "record"

    lookup = Lookup(fn)
    leader = asyncio.create_task(lookup.aget("acme"))
    await asyncio.sleep(0)
    with pytest.raises(ResolutionError, match="503"):
        lookup.get("acme")
    release.set()
    assert await leader == "record"


class Interrupt(BaseException):
    """What is no ``Exception``."""


class InterruptedOnce:
    """A function whose first call is interrupted once it is released."""

    def __init__(self) -> None:
        self.started, self.release = threading.Event(), threading.Event()
        self.calls: list[str] = []

    def __call__(self, tenant_id: str) -> str:
        self.calls.append(tenant_id)
        if len(self.calls) == 1:
            self.started.set()
            assert self.release.wait(10)
            raise Interrupt
        return "record"


def test_interrupted_leader_takes_nobody_along() -> None:
    """What is no ``Exception`` leaves through the thread that led; who waited leads next."""
    fn = InterruptedOnce()
    lookup = Lookup(fn)
    with ThreadPoolExecutor(2) as pool:
        leader = pool.submit(lookup.get, "acme")
        assert fn.started.wait(10)
        follower = pool.submit(lookup.get, "acme")
        fn.release.set()
        with pytest.raises(Interrupt):
            leader.result(10)
        assert follower.result(10) == "record"


async def test_interrupted_leader_leaves_the_loops_that_wait_to_lead() -> None:
    """A request on an event loop that waited for a thread asks by itself then."""
    fn = InterruptedOnce()
    lookup = Lookup(fn)
    with ThreadPoolExecutor(1) as pool:
        leader = pool.submit(lookup.get, "acme")
        assert await asyncio.to_thread(fn.started.wait, 10)
        follower = asyncio.create_task(lookup.aget("acme"))
        await asyncio.sleep(0)
        fn.release.set()
        with pytest.raises(Interrupt):
            await asyncio.wrap_future(leader)
        assert await follower == "record"
    assert fn.calls == ["acme", "acme"]


@pytest.mark.timeout(20)
def test_loop_that_has_moved_to_another_thread_still_leads() -> None:
    """A synchronous call there would wait for its own thread all the same."""
    release: list[asyncio.Event] = []

    async def fn(tenant_id: str) -> str:
        release.append(asyncio.Event())
        await release[0].wait()
        return "record"

    lookup = Lookup(fn)
    loop = asyncio.new_event_loop()
    leader = loop.create_task(lookup.aget("acme"))
    while not release:
        loop.run_until_complete(asyncio.sleep(0))

    async def ask() -> str:
        with pytest.raises(ResolutionError, match="503"):
            lookup.get("acme")
        release[0].set()
        answer: str = await leader
        return answer

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(loop.run_until_complete, ask()).result(15) == "record"
    loop.close()


async def test_asynchronous_function_needs_no_thread() -> None:
    """It is called on the loop, whatever kind of callable it is."""

    class Find:
        async def __call__(self, tenant_id: str) -> int:
            return 1

    async def fn(tenant_id: str) -> int:
        return 1

    pool = ThreadPoolExecutor(1)
    asyncio.get_running_loop().set_default_executor(pool)
    pool.shutdown()
    assert await Lookup(fn).aget("acme") == 1
    assert await Lookup(Find()).aget("acme") == 1


def test_synchronous_function_does_not_block_the_loop() -> None:
    """It runs in a thread; an asynchronous one runs on the loop."""
    threads: list[int] = []

    def fn(tenant_id: str) -> int:
        threads.append(threading.get_ident())
        return 1

    async def afn(tenant_id: str) -> int:
        return fn(tenant_id)

    asyncio.run(Lookup(fn).aget("acme"))
    asyncio.run(Lookup(afn).aget("acme"))
    assert threads[0] != threading.get_ident()
    assert threads[1] == threading.get_ident()


# --- construction --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"ttl": -1}, ValueError),
        ({"ttl": float("nan")}, ValueError),
        ({"ttl": "60"}, TypeError),
        ({"ttl": None}, TypeError),
        ({"ttl": True}, TypeError),
        ({"negative_ttl": -0.1}, ValueError),
        ({"maxsize": 0}, ValueError),
        ({"maxsize": 1.5}, TypeError),
        ({"maxsize": None}, TypeError),
        ({"maxsize": True}, TypeError),
        ({"active": "yes"}, TypeError),
        ({"clock": None}, TypeError),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], error: type[Exception]) -> None:
    """A mistake shows when the lookup is made."""
    with pytest.raises(error, match="Lookup"):
        Lookup(len, **options)


def test_function_has_to_be_callable() -> None:
    """A mapping is no function; its ``get`` is."""
    with pytest.raises(TypeError, match="fn has to be callable"):
        Lookup({"acme": 1})  # type: ignore[arg-type]


def test_repr_tells_the_function() -> None:
    """And no record."""
    assert repr(Lookup(Clock.__call__)) == "Lookup(Clock.__call__)"


# --- trio ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_lookup_on_trio(kind: str) -> None:
    """ASGI servers run on trio too: one flight for all, which a cancelled leader does not take along."""
    calls: list[str] = []
    release = threading.Event()

    def fn(tenant_id: str) -> str:
        calls.append(tenant_id)
        assert release.wait(10)
        return "record"

    async def afn(tenant_id: str) -> str:
        calls.append(tenant_id)
        while not release.is_set():
            await trio.sleep(0.001)
        return "record"

    lookup = Lookup(afn if kind == "async" else fn)
    results: list[str] = []

    async def ask() -> None:
        results.append(await lookup.aget("acme"))

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            with trio.move_on_after(0.05):
                await lookup.aget("acme")
            nursery.start_soon(ask)
            nursery.start_soon(ask)
            release.set()

    trio.run(main)
    assert results == ["record"] * 2
    assert calls == ["acme"]


def test_aget_without_an_event_loop_says_where_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """On neither of the two."""
    monkeypatch.delitem(sys.modules, "trio")
    with pytest.raises(RuntimeError, match="asyncio or trio"):
        Lookup(len).aget("acme").send(None)


def test_one_record_is_enough_to_remember() -> None:
    """The least ``maxsize`` there is."""
    find = Counting({"acme": 1})
    lookup = Lookup(find, maxsize=1)
    assert (lookup.get("acme"), lookup.get("acme"), find.calls) == (1, 1, ["acme"])
