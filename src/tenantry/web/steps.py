"""One decision for synchronous and asynchronous hosts.

A decision is a generator that *yields* what has to be awaited and gets the result back. It knows no
event loop: :func:`advance` runs it as far as it goes without one, and an asynchronous edge awaits the
rest, a synchronous one runs it to its end.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Awaitable, Coroutine, Generator
from concurrent.futures import Future
from contextvars import copy_context
from functools import cache
from inspect import isawaitable
from typing import Any, TypeAlias, TypeGuard, TypeVar

__all__ = ["Steps", "advance", "awaited", "needs_await", "run_to_end", "running_loop"]

T = TypeVar("T")
Steps: TypeAlias = Generator[Awaitable[Any], Any, T]

_PLAIN = frozenset({str, bool, type(None)})


def needs_await(value: object) -> TypeGuard[Awaitable[Any]]:
    """Tell a result from the promise of one, whatever made it: a coroutine is never taken for a value."""
    return type(value) not in _PLAIN and isawaitable(value)


def advance(steps: Steps[T]) -> T | Coroutine[Any, Any, T]:
    """Run ``steps`` until they end or need an event loop; return their result or the rest of them."""
    try:
        awaitable = next(steps)
    except StopIteration as end:
        result: T = end.value
        return result
    return _finish(steps, awaitable)


async def _finish(steps: Steps[T], awaitable: Awaitable[Any]) -> T:
    try:
        while True:
            try:
                value = await awaitable
            except Exception as error:  # noqa: BLE001 - handed to the steps, which decide
                awaitable = steps.throw(error)
            else:
                awaitable = steps.send(value)
    except StopIteration as end:
        result: T = end.value
        return result


def _greenlets(module: str, function: str, part: str) -> bool:
    patcher = sys.modules.get(module)
    return patcher is not None and bool(getattr(patcher, function)(part))


def _threads_are_greenlets() -> bool:
    return _greenlets("gevent.monkey", "is_module_patched", "threading") or _greenlets(
        "eventlet.patcher", "is_monkey_patched", "thread"
    )


@cache
def _turns() -> threading.Lock:
    """Return the lock by which greenlets take turns; made when first needed, after the patching."""
    return threading.Lock()


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop that runs in this thread, or ``None``."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def run_to_end(awaitable: Awaitable[T]) -> T:
    """Run an awaitable to its end for a synchronous caller, on an event loop of its own.

    Where this thread runs a loop already, another thread does it, since loops do not nest.

    Cost: about 0.1 ms for the loop.
    """
    if _threads_are_greenlets():
        # Greenlets of one thread share its "running loop", so one of them at a time may have it.
        with _turns():
            return _run(awaitable)
    if running_loop() is None:
        return _run(awaitable)
    return _run_in_thread(awaitable)


def _run(awaitable: Awaitable[T]) -> T:
    # A loop factory keeps the runner from replacing the event loop that this thread may have set.
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        return runner.run(awaited(awaitable))


async def awaited(awaitable: Awaitable[T]) -> T:
    """Await an awaitable, for those who take a coroutine only."""
    return await awaitable


def _run_in_thread(awaitable: Awaitable[T]) -> T:
    outcome: Future[T] = Future()
    context = copy_context()

    def work() -> None:
        try:
            outcome.set_result(context.run(_run, awaitable))
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            outcome.set_exception(error)

    thread = threading.Thread(target=work, name="tenantry-await", daemon=True)
    thread.start()
    return outcome.result()
