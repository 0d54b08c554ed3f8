"""Running, in the worker's parent process: what it does for a task between the broker and the pool.

The pool, the timer and the event loop call a request back in contexts that belong to nobody, so the request
remembers whose it is and enters that again in each of its public methods.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from functools import cache, wraps
from typing import Any, Final

from celery.utils.imports import symbol_by_name

from tenantry.context import current_unit, unit_of_work
from tenantry.integrations.celery.edge import RunningTask, running_task
from tenantry.propagation import HEADER, format_header

_CALLED_FROM_ANYWHERE: Final = (
    "execute_using_pool", "execute", "maybe_expire", "terminate", "cancel", "revoked",
    "on_accepted", "on_timeout", "on_success", "on_retry", "on_failure",
)  # fmt: skip


@contextmanager
def tenant_requests(task: Any) -> Iterator[None]:
    """While a strategy is built, let ``task`` name a request class that remembers its tenant."""
    own = vars(task).get("Request")
    task.Request = _remembering(symbol_by_name(task.Request))
    try:
        yield
    finally:
        if own is None:
            del task.Request
        else:
            task.Request = own


@cache
def _remembering(base: Any) -> Any:
    if "_tenantry_running" in vars(base):
        return base

    class Request(base):  # type: ignore[misc]
        _tenantry_running: RunningTask | None = None

        def __init_subclass__(cls, **options: Any) -> None:
            super().__init_subclass__(**options)
            _bind(cls, vars(cls))

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            running = self._tenantry_running = running_task()
            if running is not None and running.tenant_id is not None:
                # Protocol 1 has it elsewhere; the pool process reads it here.
                self._request_dict.setdefault(HEADER, format_header(running.tenant_id))

    _bind(Request, {name: getattr(base, name) for name in _CALLED_FROM_ANYWHERE})
    Request.__name__, Request.__qualname__, Request.__module__ = (
        base.__name__,
        base.__qualname__,
        base.__module__,
    )
    return Request


def _bind(cls: Any, namespace: Any) -> None:
    for name in _CALLED_FROM_ANYWHERE:
        if name in namespace:
            setattr(cls, name, _entering(namespace[name]))


def _entering(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def enter(self: Any, *args: Any, **options: Any) -> Any:
        running = self._tenantry_running
        if running is None or current_unit() is running:
            return method(self, *args, **options)
        return copy_context().run(in_unit, running, method, self, *args, **options)

    return enter


def in_unit(running: RunningTask, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Call ``function`` for a task, under the tenant that its phases see."""
    with unit_of_work(running.active, unit=running):
        return function(*args, **options)
