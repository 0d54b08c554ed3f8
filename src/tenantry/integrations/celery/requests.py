"""Running, in the worker's parent process: what it does for a task between the broker and the pool.

The pool, the timer and the event loop call a request back in contexts that belong to nobody, so the request
remembers whose it is and enters that again in each of its public methods.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from typing import Any, Final

from celery.utils.imports import symbol_by_name

from tenantry.context import current_unit
from tenantry.integrations.celery.edge import RunningTask, UnboundError, in_unit, running_task
from tenantry.propagation import HEADER

_log = logging.getLogger("tenantry.celery")

#: What may call user code: a task's own hooks, receivers of signals, errbacks that are called where they are.
_REACHES_USER_CODE: Final = (
    "execute",
    "on_timeout",
    "on_retry",
    "on_failure",
    "_announce_revoked",
    "_announce_cancelled",
)
#: What calls none by itself, and is bound where a class of the user's own replaces it.
_MAY_BE_REPLACED: Final = (
    "execute_using_pool", "maybe_expire", "terminate", "cancel", "revoked", "on_accepted", "on_success",
)  # fmt: skip
_CELERYS_OWN: Final = "celery.worker.request"


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
                # Protocol 1 has it elsewhere. The pool process reads it here; its signature has been checked.
                self._request_dict[HEADER] = f"v1;{running.tenant_id}"

    _bind(Request, {name: getattr(base, name) for name in (*_REACHES_USER_CODE, *_MAY_BE_REPLACED)})
    Request.__name__, Request.__qualname__, Request.__module__ = (
        base.__name__,
        base.__qualname__,
        base.__module__,
    )
    return Request


def _bind(cls: Any, namespace: Any) -> None:
    for name in _REACHES_USER_CODE:
        if name in namespace:
            setattr(cls, name, _entering(namespace[name]))
    for name in _MAY_BE_REPLACED:
        # Not Celery's own: each of them runs once for every task, and costs as much as all the rest.
        if name in namespace and getattr(namespace[name], "__module__", None) != _CELERYS_OWN:
            setattr(cls, name, _entering(namespace[name]))


def _entering(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def enter(self: Any, *args: Any, **options: Any) -> Any:
        running = self._tenantry_running
        if running is None or current_unit() is running:
            return method(self, *args, **options)
        try:
            return in_unit(running, method, self, *args, **options)
        except UnboundError:
            # The broker has to be answered all the same; without the tenant user code fails closed.
            _log.exception("a scope hook failed; the worker goes on for task %s without its tenant", self.id)
            return in_unit(running.unbound(), method, self, *args, **options)

    return enter
