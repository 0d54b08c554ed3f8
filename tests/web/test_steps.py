"""How one decision is run for hosts of both kinds."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from tenantry.web.steps import advance, needs_await, run_to_end


def in_fork(work: Callable[[], object]) -> None:
    """Run it in a child, since what it patches cannot be undone."""

    def worked() -> None:
        warnings.simplefilter("ignore")
        # Both look at every object for locks to patch, and wake lazy ones of Django with that.
        gc.freeze()
        work()

    child = multiprocessing.get_context("fork").Process(target=worked)
    child.start()
    child.join(60)
    child.kill()
    assert child.exitcode == 0


def import_gevent() -> Any:
    from gevent import monkey

    return monkey


def import_eventlet() -> Any:
    import eventlet

    return eventlet


def patched_gevent() -> None:
    import_gevent().patch_all()


def patched_eventlet() -> None:
    import_eventlet().monkey_patch()


async def slowly(value: int) -> int:
    for _ in range(3):
        await asyncio.sleep(0.001)
    return value


@pytest.mark.parametrize("patch", [patched_gevent, patched_eventlet])
def test_greenlets_take_turns(patch: Callable[[], None]) -> None:
    """They share a thread, which has one running event loop."""

    def work() -> None:
        patch()
        results: list[int] = []
        threads = [
            threading.Thread(target=lambda n: results.append(run_to_end(slowly(n))), args=(number,))
            for number in range(5)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(results) == [0, 1, 2, 3, 4]

    in_fork(work)


@pytest.mark.parametrize("imported", [import_gevent, import_eventlet])
def test_greenlets_that_patch_nothing_change_nothing(imported: Callable[[], Any]) -> None:
    """A thread whose loop runs lets another one await, where such a library is only imported."""

    def work() -> None:
        imported()

        async def main() -> int:
            return run_to_end(slowly(7))

        assert asyncio.run(main()) == 7

    in_fork(work)


def test_promise_is_kept_in_the_thread_that_asks() -> None:
    """What the application holds per thread is there; a thread whose loop runs lets another one do it."""

    async def where() -> threading.Thread:
        await asyncio.sleep(0)
        return threading.current_thread()

    async def main() -> threading.Thread:
        return run_to_end(where())

    assert run_to_end(where()) is threading.current_thread()
    other = asyncio.run(main())
    assert other is not threading.current_thread()
    assert other.daemon  # an interrupted process does not wait for it


@pytest.mark.timeout(20)
def test_broken_promise_raises_where_it_was_to_be_kept() -> None:
    """In the thread that asks, whichever thread it was awaited in."""

    async def broken() -> None:
        await asyncio.sleep(0)
        raise KeyError("broken")

    async def main() -> None:
        run_to_end(broken())

    with pytest.raises(KeyError, match="broken"):
        run_to_end(broken())
    with pytest.raises(KeyError, match="broken"):
        asyncio.run(main())


@pytest.mark.parametrize("value", [None, True, "text", 7, object(), asyncio.sleep, len])
def test_result_is_told_from_its_promise(value: object) -> None:
    """A function that would make one is none."""
    assert not needs_await(value)


async def test_promise_is_told_whatever_made_it() -> None:
    """A coroutine, a future, and an object with an await of its own."""

    class Own:
        def __await__(self) -> Any:
            yield

    coroutine, future = slowly(1), asyncio.get_running_loop().create_future()
    assert needs_await(coroutine)
    assert needs_await(future)
    assert needs_await(Own())
    coroutine.close()


async def test_steps_get_what_they_wait_for() -> None:
    """A result at its place, an error where the promise was given."""

    async def failing() -> None:
        raise KeyError("later")

    def steps(*awaitables: Any) -> Any:
        results = []
        for awaitable in awaitables:
            try:
                results.append((yield awaitable))
            except KeyError as error:
                results.append(error.args)
        return results

    assert advance(steps()) == []
    rest: Any = advance(steps(slowly(1), failing(), slowly(2)))
    assert await rest == [1, ("later",), 2]
