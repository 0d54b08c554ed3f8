"""Refuse a plain ``with`` scope in the frame of a generator.

Each step of a generator may run in another context: what was entered in one step is then not active in
the next, and where the context is kept, the generator's consumer runs in the generator's tenant.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tenantry.errors import ScopeOrderError
from tenantry.steps import CO_ASYNC_GENERATOR, CO_GENERATOR, CO_ITERABLE_COROUTINE

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["GENERATOR", "get_frame", "refuse_generator_frame"]

get_frame = sys._getframe  # noqa: SLF001 - what inspect.currentframe() is, without importing inspect

GENERATOR = CO_GENERATOR | CO_ASYNC_GENERATOR

# Drivers that are known to run every step of a generator in one context.
_DRIVERS = frozenset({"contextlib", "_pytest", "pytest_asyncio"})
_ASYNC_DRIVERS = frozenset({"anyio"})
_PYTEST_PLUGIN = "tenantry.pytest_plugin"  # drives asynchronous fixtures in their runner's context

_DECORATED = "inner"  # what contextlib.ContextDecorator and AsyncContextDecorator make of a function

# What calls a function in a worker thread. Steps that come from there run each in a copy of the context.
# https://github.com/fastapi/fastapi/issues/953
_WORKERS = frozenset(
    {
        "anyio._backends._asyncio",
        "anyio._backends._trio",
        "asgiref.sync",
        "concurrent.futures.thread",
        "gevent.threadpool",
        "threading",
        "trio._threads",
    }
)


def refuse_generator_frame(frame: FrameType, scope: str) -> None:
    """Raise ``ScopeOrderError`` if the driver of a generator's ``frame`` may not keep the context."""
    flags = frame.f_code.co_flags
    if flags & CO_ITERABLE_COROUTINE or _is_driven_safely(frame, flags):
        return
    raise ScopeOrderError(
        f"`with {scope}(...)` in a function, where one context sees entry and exit "
        f"(decorate the generator with @{scope}(...), wrap it in carry_tenant(...), or, if its driver is "
        "known to keep the context, pass in_generator=True)",
        f"it in the frame of the generator {frame.f_code.co_name!r}, each step of which may run elsewhere",
    )


def _is_driven_safely(frame: FrameType, flags: int) -> bool:
    driver = frame.f_back
    package = _module(driver).partition(".")[0]
    if package in _ASYNC_DRIVERS or _module(driver) == _PYTEST_PLUGIN:
        return bool(flags & CO_ASYNC_GENERATOR)
    return package in _DRIVERS and not _is_called_by_worker(driver)


def _is_called_by_worker(frame: FrameType | None) -> bool:
    """Tell whether the call into contextlib that ``frame`` may belong to was made by a worker thread's loop.

    A context manager that is used as a decorator is left in the same call, whoever makes it.
    """
    caller = frame
    while caller is not None and _module(caller) == "contextlib":
        if caller.f_code.co_name == _DECORATED:
            return False
        caller = caller.f_back
    return _module(caller) in _WORKERS


def _module(frame: FrameType | None) -> str:
    """Return the name of the module that ``frame`` runs in; empty where there is none."""
    name = None if frame is None else frame.f_globals.get("__name__")
    return name if isinstance(name, str) else ""
