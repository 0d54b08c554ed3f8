"""Checks of what an application promises of its own functions."""

from __future__ import annotations

import asyncio
import functools
import sys
from collections import Counter
from collections.abc import AsyncIterable, Awaitable, Coroutine, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from tenantry.context import current_tenant_or_none, detached, unit_of_work
from tenantry.errors import NoTenantError, shown
from tenantry.ids import TenantId, ensure_tenant_id
from tenantry.keys import owner_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

__all__ = ["assert_isolated", "assert_no_tenant", "assert_requires_tenant"]

_T = TypeVar("_T")


def assert_no_tenant() -> None:
    """Check that no tenant is active here.

    Raises:
        AssertionError: One is.
    """
    tenant_id = current_tenant_or_none()
    if tenant_id is not None:
        raise AssertionError(f"tenant {tenant_id!r} is active where none should be")


@overload
def assert_requires_tenant(  # type: ignore[overload-overlap]
    function: Callable[..., Awaitable[object]], /, *args: object, **kwargs: object
) -> Awaitable[NoTenantError]: ...
@overload
def assert_requires_tenant(  # type: ignore[overload-overlap]
    function: Callable[..., AsyncIterable[object]], /, *args: object, **kwargs: object
) -> Awaitable[NoTenantError]: ...
@overload
def assert_requires_tenant(
    function: Callable[..., object], /, *args: object, **kwargs: object
) -> NoTenantError: ...
def assert_requires_tenant(
    function: Callable[..., object], /, *args: object, **kwargs: object
) -> NoTenantError | Awaitable[NoTenantError]:
    """Check that ``function`` refuses to run where no tenant is active.

    Args:
        function: Any callable. Generators are run to their end. An asynchronous one is run here if no
            event loop is running, else by awaiting what is returned.
        args: Its arguments.
        kwargs: Its keyword arguments.

    Returns:
        The error that it raised, to look at its ``wanted``; for an asynchronous function an
        awaitable of it.

    Raises:
        AssertionError: It ran without raising ``NoTenantError``. Any other error of ``function``
            leaves as it is.
    """
    call = functools.partial(function, *args, **kwargs)
    try:
        result = detached(_exhausted)(call)
    except NoTenantError as error:
        return error
    if _is_pending(result):
        return _finished(_requires_tenant(call, result))
    raise _did_not_require(call)


async def _requires_tenant(call: functools.partial[object], pending: object) -> NoTenantError:
    try:
        await detached(_awaited)(pending)
    except NoTenantError as error:
        return error
    raise _did_not_require(call)


def _did_not_require(call: functools.partial[object]) -> AssertionError:
    return AssertionError(
        f"{_named(call)} ran although no tenant is active. Build its keys with key functions, or "
        "begin it with current_tenant(), which raises NoTenantError"
    )


@overload
def assert_isolated(  # type: ignore[overload-overlap]
    function: Callable[..., Awaitable[object]],
    /,
    *args: object,
    tenants: Sequence[object] = ...,
    **kwargs: object,
) -> Awaitable[None]: ...
@overload
def assert_isolated(  # type: ignore[overload-overlap]
    function: Callable[..., AsyncIterable[object]],
    /,
    *args: object,
    tenants: Sequence[object] = ...,
    **kwargs: object,
) -> Awaitable[None]: ...
@overload
def assert_isolated(
    function: Callable[..., object],
    /,
    *args: object,
    tenants: Sequence[object] = ...,
    **kwargs: object,
) -> None: ...
def assert_isolated(
    function: Callable[..., object],
    /,
    *args: object,
    tenants: Sequence[object] = ("acme", "globex"),
    **kwargs: object,
) -> Awaitable[None] | None:
    """Check that the same call never yields the same key under two tenants.

    ``function`` is called once per tenant, as a unit of work of that tenant. What it returns are
    keys: a ``str`` or ``bytes``, or any nesting of lists, tuples, sets, iterators and mappings of
    them. A mapping's own keys count where they differ from tenant to tenant, else they are labels
    and its values count.

    Args:
        function: Any callable, such as a key function, or a function that names a cache entry, a
            file or a lock. An asynchronous one is run here if no event loop is running, else by
            awaiting what is returned.
        args: Its arguments, the same for every tenant.
        tenants: At least two tenant ids.
        kwargs: Its keyword arguments.

    Returns:
        ``None``; for an asynchronous function an awaitable.

    Raises:
        AssertionError: Two tenants get one key; a tenant gets a key of another one; or the result
            is none at all, empty, or holds something else than keys, which would prove nothing.
        ValueError: ``tenants`` names fewer than two different tenants.
        InvalidTenantIdError: One of them cannot be a tenant id. Errors of ``function`` leave as
            they are.
    """
    ids = [ensure_tenant_id(tenant_id) for tenant_id in tenants]
    if len(set(ids)) < 2:
        raise ValueError("assert_isolated compares what at least two different tenants get")
    call = functools.partial(function, *args, **kwargs)
    results = {}
    for tenant_id in ids:
        with unit_of_work(tenant_id):
            results[tenant_id] = _exhausted(call)
    if any(_is_pending(result) for result in results.values()):
        return _finished(_isolated(call, results))
    _compare(call, results)
    return None


async def _isolated(call: functools.partial[object], results: dict[TenantId, object]) -> None:
    for tenant_id, result in results.items():
        if _is_pending(result):
            with unit_of_work(tenant_id):
                results[tenant_id] = await _awaited(result)
    _compare(call, results)


# An entry is what stands at one place of a result: the labels on the way to it, and the value.
_Entry = tuple[tuple[object, ...], object]


def _compare(call: functools.partial[object], results: Mapping[TenantId, object]) -> None:
    entries = {tenant_id: cast("list[_Entry]", result) for tenant_id, result in results.items()}
    times = Counter(
        label for found in entries.values() for label in {label for labels, _ in found for label in labels}
    )
    owners: dict[bytes, TenantId] = {}
    for tenant_id, found in entries.items():
        for key in {_key_of(call, tenant_id, entry, times) for entry in found}:
            owner = owners.setdefault(key, tenant_id)
            if owner != tenant_id:
                raise AssertionError(
                    f"{_named(call)} yields {shown(key)} under tenant {owner!r} and under tenant "
                    f"{tenant_id!r}. Build the key with a key function, which begins it with the "
                    "active tenant"
                )
            if owner_of(key) in entries.keys() - {tenant_id}:
                raise AssertionError(
                    f"{_named(call)} yields {shown(key)} under tenant {tenant_id!r}: that key "
                    "belongs to another tenant"
                )


def _key_of(
    call: functools.partial[object], tenant_id: TenantId, entry: _Entry, times: Counter[object]
) -> bytes:
    labels, value = entry
    for label in labels:
        if times[label] == 1 and (key := _as_bytes(label)):
            return key
    key = _as_bytes(value)
    if key:
        return key
    what = "nothing" if value is None else f"{type(value).__name__} {shown(value)}"
    raise AssertionError(
        f"{_named(call)} yields {what} under tenant {tenant_id!r}, which is no key, so nothing is "
        "proven. Pass a function that returns the keys it uses"
    )


def _as_bytes(value: object) -> bytes | None:
    """Return a key as Redis compares it, or ``None`` for what is none."""
    if isinstance(value, str):
        return str.encode(value, "utf-8", "surrogatepass")
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    return None


def _entries(value: object, labels: tuple[object, ...] = ()) -> Iterator[_Entry]:
    if _as_bytes(value) is not None or not isinstance(value, Iterable):
        yield labels, value
        return
    empty = True
    if isinstance(value, Mapping):
        for label, item in value.items():
            empty = False
            yield from _entries(item, (*labels, label))
    else:
        for item in value:
            empty = False
            yield from _entries(item, labels)
    if empty:
        yield labels, value


def _exhausted(call: Callable[[], object]) -> object:
    """Call, and run what was returned to its end, while the caller's tenant is active."""
    result = call()
    return result if _is_pending(result) else list(_entries(result))


async def _awaited(pending: object) -> object:
    if isinstance(pending, AsyncIterable):
        return list(_entries([item async for item in pending]))
    result = await cast("Awaitable[object]", pending)
    if isinstance(result, AsyncIterable):
        result = [item async for item in result]
    return list(_entries(result))


def _is_pending(result: object) -> bool:
    return isinstance(result, (Awaitable, AsyncIterable))


def _named(call: functools.partial[object]) -> str:
    return str(getattr(call.func, "__qualname__", None) or shown(call.func))


# --- asynchronous functions in synchronous tests -------------------------------------------------


def _finished(pending: Coroutine[Any, Any, _T]) -> Awaitable[_T]:
    """Run ``pending`` now, unless an event loop is running, which then has to await it."""
    if _in_event_loop():
        return pending
    # With a factory the runner leaves alone which loop is this thread's current one.
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        return _Outcome(runner.run(pending))


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        trio = sys.modules.get("trio")
        return trio is not None and bool(trio.lowlevel.in_trio_run())
    return True


class _Outcome(Coroutine[Any, Any, _T]):
    """A coroutine that is over: it may be awaited or not, and ``asyncio.run`` takes it, too."""

    def __init__(self, value: _T) -> None:
        self._value = value

    def __await__(self) -> Generator[Any, Any, _T]:
        yield from ()
        return self._value

    def send(self, _value: object) -> Any:
        raise StopIteration(self._value)

    def throw(self, kind: Any, value: Any = None, trace: Any = None) -> Any:
        raise kind if value is None else value

    def close(self) -> None:
        return None
