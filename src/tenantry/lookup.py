"""From a tenant id to the application's record of it, remembered for a while."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as WaitTimeout
from contextvars import copy_context
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tenantry.ids import TenantId, ensure_tenant_id
from tenantry.web.problem import refusal
from tenantry.web.steps import Steps, awaited, needs_await, run_to_end, running_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

__all__ = ["Lookup"]

_POLL: Final = 1.0  # seconds between two looks at whether the event loop that leads a flight is still there


class _Outcome(NamedTuple):
    """How a flight ended: a record, ``None`` for an unknown tenant, or the error of the function."""

    record: Any = None
    error: BaseException | None = None


_ABANDONED: Final = _Outcome(error=RuntimeError("whoever led this lookup went away"))


class _Flight:
    """One call of the function under way, for everybody who asks meanwhile."""

    __slots__ = ("led_here", "loop", "outcome", "started", "task", "tenant_id")

    def __init__(self, tenant_id: TenantId, started: float) -> None:
        self.tenant_id = tenant_id
        self.started = started
        self.outcome: Future[_Outcome] = Future()
        self.led_here = threading.get_ident()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.task: asyncio.Task[None] | None = None

    def lead(self, loop: asyncio.AbstractEventLoop, steps: Coroutine[Any, Any, None]) -> None:
        """Let a task of this event loop lead, whatever becomes of the caller."""
        self.loop = loop
        self.task = loop.create_task(steps)

    def is_stranded(self) -> bool:
        """Tell whether the event loop that leads stands still: it may never go on, and is not waited for."""
        return self.loop is not None and not self.loop.is_running()

    def is_mine(self) -> bool:
        """Tell whether waiting here would wait for what this thread itself has to finish."""
        if self.loop is not None:
            return running_loop() is self.loop
        return self.led_here == threading.get_ident()


class Lookup:
    """The application's record of a tenant, from a function, remembered for ``ttl`` seconds.

    Args:
        fn: ``fn(tenant_id)`` → the record, or ``None`` if there is no such tenant; synchronous or not.
            Any other result is a record, false ones included. On ASGI edges a synchronous function runs
            in a thread.
        ttl: Seconds for which a record is remembered; 0 remembers nothing.
        negative_ttl: Seconds for which it is remembered that there is no such tenant.
        maxsize: How many records, and how many unknown ids, are remembered at most; the oldest go first.
        active: ``active(record)`` → whether the tenant may be served; synchronous or not. Default: all may.
        clock: A clock in seconds that does not go backwards.

    Raises:
        TypeError: ``fn``, ``active`` or ``clock`` is not callable, or a number is no number.
        ValueError: A number is out of range.

    One object may be shared by edges, threads and event loops. Of those who ask for the same tenant at
    once, one calls the function and all get its answer; one that is cancelled takes nobody along.
    Failures are not remembered, and a record that has expired is not served.
    """

    def __init__(
        self,
        fn: Callable[[TenantId], Any],
        *,
        ttl: float = 60.0,
        negative_ttl: float = 5.0,
        maxsize: int = 10_000,
        active: Callable[[Any], Any] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        for name, value in (("fn", fn), ("active", active), ("clock", clock)):
            if not callable(value) and not (name == "active" and value is None):
                raise TypeError(f"Lookup: {name} has to be callable, not {type(value).__name__}")
        self._fn = fn
        self._ttl = _seconds("ttl", ttl)
        self._negative_ttl = _seconds("negative_ttl", negative_ttl)
        self._maxsize = _size(maxsize)
        self._active = active
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[TenantId, tuple[float, Any]] = {}
        self._unknown: dict[TenantId, tuple[float, Any]] = {}
        self._flights: dict[TenantId, _Flight] = {}

    def __repr__(self) -> str:
        return f"Lookup({getattr(self._fn, '__qualname__', type(self._fn).__name__)})"

    def get(self, tenant_id: str) -> Any:
        """Return the record of a tenant, or ``None`` if there is no such tenant.

        Raises:
            InvalidTenantIdError: ``tenant_id`` cannot be one.
            ResolutionError: 503, the function failed; its error is the cause.

        Blocks the thread. An asynchronous function is run to its end.
        """
        return self._get(ensure_tenant_id(tenant_id), run_to_end)

    async def aget(self, tenant_id: str) -> Any:
        """Return the record of a tenant, or ``None``, as :meth:`get` does, without blocking the event loop.

        Raises:
            InvalidTenantIdError: ``tenant_id`` cannot be one.
            ResolutionError: 503, the function failed; its error is the cause.
        """
        wanted = ensure_tenant_id(tenant_id)
        if running_loop() is None:
            return await self._get_in_trio(wanted)
        while True:
            found = self._remembered(wanted)
            if found is not None:
                return found[1]
            flight, leads = self._board(wanted)
            if leads:
                flight.lead(asyncio.get_running_loop(), self._alead(flight))
            outcome = await self._afollow(flight)
            if outcome is not _ABANDONED or leads:
                return _answer(outcome)

    def invalidate(self, tenant_id: str | None = None) -> None:
        """Forget the record of a tenant, or of all.

        Args:
            tenant_id: Which; ``None`` means all.

        Raises:
            InvalidTenantIdError: ``tenant_id`` cannot be one.

        Who asks from now on gets an answer that was begun from now on. Answers that are under way still
        go to those who wait for them, and are not remembered. Thread-safe.
        """
        wanted = None if tenant_id is None else ensure_tenant_id(tenant_id)
        with self._lock:
            held: tuple[dict[TenantId, Any], ...] = (self._known, self._unknown, self._flights)
            for each in held:
                if wanted is None:
                    each.clear()
                else:
                    each.pop(wanted, None)

    def check(self, tenant_id: TenantId, *, asynchronous: bool) -> Steps[tuple[bool, bool]]:
        """Return whether the tenant is known, and whether it is active; for edges.

        Raises:
            ResolutionError: 503.
        """
        found = self._remembered(tenant_id)
        if found is not None:
            record = found[1]
        elif asynchronous:
            record = yield self.aget(tenant_id)
        else:
            record = self.get(tenant_id)
        if record is None:
            return False, False
        return True, (self._active is None or (yield from self._is_active(record)))

    def _is_active(self, record: Any) -> Steps[bool]:
        try:
            answer = self._active(record)  # type: ignore[misc]
            if needs_await(answer):
                answer = yield answer
            return bool(answer)
        except Exception as error:  # whatever it is, the tenant is not known to be active
            raise _unavailable() from error

    def _get(self, tenant_id: TenantId, finish: Callable[[Any], Any]) -> Any:
        while True:
            found = self._remembered(tenant_id)
            if found is not None:
                return found[1]
            flight, leads = self._board(tenant_id)
            outcome = self._lead(flight, finish) if leads else self._follow(flight)
            if outcome is not _ABANDONED:
                return _answer(outcome)

    async def _get_in_trio(self, tenant_id: TenantId) -> Any:
        """Wait in a thread, which a cancelled request leaves behind to finish the flight."""
        trio = sys.modules.get("trio")
        if trio is None:
            raise RuntimeError("Lookup.aget runs on asyncio or trio")

        def finish(awaitable: Any) -> Any:
            return trio.from_thread.run(awaited, awaitable)

        return await trio.to_thread.run_sync(self._get, tenant_id, finish, abandon_on_cancel=True)

    def _remembered(self, tenant_id: TenantId) -> tuple[float, Any] | None:
        entry = self._known.get(tenant_id) or self._unknown.get(tenant_id)
        if entry is None or self._clock() >= entry[0]:
            return None
        return entry

    def _board(self, tenant_id: TenantId) -> tuple[_Flight, bool]:
        """Return the flight to this tenant, and whether the caller has to lead it."""
        started = self._clock()
        with self._lock:
            flight = self._flights.get(tenant_id)
            if flight is not None and not flight.is_stranded():
                return flight, False
            flight = self._flights[tenant_id] = _Flight(tenant_id, started)
            return flight, True

    def _land(self, flight: _Flight, outcome: _Outcome) -> None:
        with self._lock:
            if self._flights.get(flight.tenant_id) is flight:
                del self._flights[flight.tenant_id]
                if outcome.error is None:
                    self._remember(flight, outcome.record)
        flight.outcome.set_result(outcome)

    def _remember(self, flight: _Flight, record: Any) -> None:
        self._known.pop(flight.tenant_id, None)
        self._unknown.pop(flight.tenant_id, None)
        held, ttl = (self._unknown, self._negative_ttl) if record is None else (self._known, self._ttl)
        # Counted from when the function was asked: what it read may have changed since.
        held[flight.tenant_id] = (flight.started + ttl, record)
        while len(held) > self._maxsize:
            del held[next(iter(held))]

    def _lead(self, flight: _Flight, finish: Callable[[Any], Any]) -> _Outcome:
        outcome = _ABANDONED
        try:
            outcome = self._called(flight.tenant_id)
            if needs_await(outcome.record):
                outcome = _finished(finish, outcome.record)
        finally:
            self._land(flight, outcome)
        return outcome

    async def _alead(self, flight: _Flight) -> None:
        outcome = _ABANDONED
        try:
            outcome = await self._acalled(flight.tenant_id)
        finally:
            self._land(flight, outcome)

    def _called(self, tenant_id: TenantId) -> _Outcome:
        try:
            return _Outcome(self._fn(tenant_id))
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - told to all who wait, as 503
            return _Outcome(error=error)

    async def _acalled(self, tenant_id: TenantId) -> _Outcome:
        if _is_asynchronous(self._fn):
            outcome = self._called(tenant_id)
        else:
            loop, context = asyncio.get_running_loop(), copy_context()
            outcome = await loop.run_in_executor(None, context.run, self._called, tenant_id)
        if not needs_await(outcome.record):
            return outcome
        try:
            return _Outcome(await outcome.record)
        except Exception as error:  # noqa: BLE001 - told to all who wait, as 503
            return _Outcome(error=error)

    def _follow(self, flight: _Flight) -> _Outcome:
        if flight.is_mine():
            return _Outcome(error=RuntimeError("the lookup asks for the tenant that it is looking up"))
        while True:
            try:
                return flight.outcome.result(_POLL)
            except WaitTimeout:
                if flight.is_stranded():
                    return _ABANDONED

    async def _afollow(self, flight: _Flight) -> _Outcome:
        outcome = asyncio.wrap_future(flight.outcome)
        while True:
            done, _ = await asyncio.wait({outcome}, timeout=_POLL)
            if done:
                return outcome.result()
            if flight.is_stranded():
                return _ABANDONED


def _finished(finish: Callable[[Any], Any], awaitable: Any) -> _Outcome:
    try:
        return _Outcome(finish(awaitable))
    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - told to all who wait, as 503
        return _Outcome(error=error)


def _is_asynchronous(fn: Any) -> bool:
    return iscoroutinefunction(fn) or iscoroutinefunction(getattr(fn, "__call__", None))


def _answer(outcome: _Outcome) -> Any:
    if outcome.error is not None:
        raise _unavailable() from outcome.error
    return outcome.record


def _unavailable() -> Exception:
    return refusal(503, "The tenant cannot be looked up right now.", ("lookup",))


def _seconds(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"Lookup: {name} is a number of seconds, not {type(value).__name__}")
    if not value >= 0:
        raise ValueError(f"Lookup: {name} is a number of seconds, 0 or more, not {value}")
    return value


def _size(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"Lookup: maxsize is an int, not {type(value).__name__}")
    if value < 1:
        raise ValueError(f"Lookup: maxsize is 1 or more, not {value}")
    return value
