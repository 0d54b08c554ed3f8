"""What the roles of this edge share: an application's options, and the task that runs here."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from contextvars import copy_context
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from tenantry.context import begin_unit, current_unit, end_unit
from tenantry.ids import TenantId
from tenantry.propagation import HEADER

_log = logging.getLogger("tenantry.celery")
_ATTRIBUTE: Final = "_tenantry_edge"

#: What follows a task, by the names that a message gives it.
FOLLOWING: Final = ("callbacks", "errbacks", "chain", "chord")


@dataclass(frozen=True, slots=True)
class Edge:
    """The options of one application. Picklable: spawned pool processes receive them with the app."""

    secret_keys: tuple[bytes, ...] | None = field(repr=False)
    accept_unsigned_until: datetime | None
    quarantine: str
    quarantine_alarm: int


def edge_of(app: Any) -> Edge | None:
    """Return the options that ``app``, or what stands for it, was installed with, or ``None``."""
    try:
        found: Edge | None = vars(app).get(_ATTRIBUTE)
    except TypeError:  # no application at all
        return None
    return found


def remember(app: Any, edge: Edge) -> None:
    """Make ``edge`` the options of ``app``."""
    setattr(app, _ATTRIBUTE, edge)


def forget(app: Any) -> None:
    """Make ``app`` one that was never installed."""
    vars(app).pop(_ATTRIBUTE, None)


def real(app: Any) -> Any:
    """Return the application behind a proxy such as ``celery.current_app``."""
    unwrap = getattr(type(app), "_get_current_object", None)
    return app if unwrap is None else app._get_current_object()


class RunningTask:
    """The task that this context works for, in a pool process or in the worker's parent process. Not changed.

    Attributes:
        task_id: Its id. A message with the same id is this task again: retried, replaced, sent anew.
        name: Its registered name.
        tenant_id: The tenant of its message, which its continuations inherit; ``None`` if it has none.
        bound: Whether its phases see that tenant; those of a ``tenancy="none"`` task do not.
        follows: What holds the message's callbacks, errbacks, chain and chord.
        in_body: Whether user code of a body runs, rather than what comes before and after it.
    """

    # Written out: one is made several times for every task, and a dataclass costs four times as much.
    __slots__ = ("bound", "follows", "in_body", "name", "task_id", "tenant_id")

    def __init__(
        self,
        task_id: str,
        name: str,
        tenant_id: TenantId | None,
        *,
        follows: Mapping[str, Any],
        bound: bool = True,
        in_body: bool = False,
    ) -> None:
        self.task_id = task_id
        self.name = name
        self.tenant_id = tenant_id
        self.bound = bound
        self.follows = follows
        self.in_body = in_body

    @property
    def active(self) -> TenantId | None:
        """The tenant that its phases see."""
        return self.tenant_id if self.bound else None

    def unbound(self) -> RunningTask:
        """Return the same task, with phases that see no tenant."""
        return RunningTask(self.task_id, self.name, self.tenant_id, bound=False, follows=self.follows)

    def entering_body(self) -> RunningTask:
        """Return the same task, inside a body."""
        return RunningTask(
            self.task_id, self.name, self.tenant_id, bound=self.bound, follows=self.follows, in_body=True
        )


def running_task() -> RunningTask | None:
    """Return the task that runs in this context, or ``None``."""
    unit = current_unit()
    return unit if isinstance(unit, RunningTask) else None


def nested_headers(headers: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the inner ``headers`` dict, where one names a tenant.

    Tracing tools write one, since it hides custom headers from ``task.request.headers`` otherwise
    (https://github.com/celery/celery/issues/4875).
    """
    nested = headers.get("headers")
    return nested if isinstance(nested, Mapping) and HEADER in nested else None


def in_unit(running: RunningTask, function: Callable[..., Any], /, *args: Any, **options: Any) -> Any:
    """Call ``function`` for a task, in a copy of the context and under the tenant that the task's phases see.

    Raises:
        UnboundError: A scope hook failed, so the tenant is not active and ``function`` was not called.
    """
    context = copy_context()
    try:
        begun = context.run(begin_unit, running.active, running)
    except Exception as error:
        raise UnboundError from error
    try:
        return context.run(function, *args, **options)
    finally:
        context.run(_end, begun)


class UnboundError(Exception):
    """A scope hook failed to enter; its error is the cause."""

    __cause__: BaseException


def _end(begun: Any) -> None:
    try:
        end_unit(begun, sys.exception())
    except Exception:  # noqa: BLE001 - the task has ended, and nobody above can do anything about it
        _log.exception("a scope hook failed while a task was left")
