"""Running: a task's whole life in its pool process, thread or greenlet, each in a context of its own.

Celery keeps the tracer of a task in ``__trace__`` and calls whatever it finds there. A data descriptor in
that place runs the tracer, whoever built it and whatever is wrapped around it, in a copy of the context, so
that nothing is left for the next task. The body is bound once more inside it, so that nothing that it leaves
open reaches its own later phases.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from functools import partial, wraps
from typing import Any, Final

from billiard.einfo import ExceptionInfo
from celery import states
from celery.app.task import Context, Task
from celery.app.trace import TraceInfo, trace_ok_t

from tenantry.context import begin_unit, current_unit, end_unit
from tenantry.errors import MissingTenantHeaderError, PropagationError
from tenantry.ids import TenantId
from tenantry.integrations.celery.edge import RunningTask, UnboundError, edge_of, in_unit, nested_headers
from tenantry.integrations.celery.message import parsed
from tenantry.integrations.celery.needs import NONE, REQUIRED, needs_of_message, no_tenant, tenancy_of
from tenantry.propagation import HEADER

_BODY: Final = "_tenantry_body"


class Traced:
    """In the place of ``Task.__trace__``: what is called runs bound, on the apps that are installed."""

    def __get__(self, task: Any, owner: Any = None) -> Any:
        tracer = None if task is None else vars(task).get("__trace__")
        if tracer is None or edge_of(task._app) is None:
            return tracer
        return partial(_trace, task, tracer)

    def __set__(self, task: Any, tracer: Any) -> None:
        vars(task)["__trace__"] = tracer


def _trace(task: Any, tracer: Any, uuid: str, args: Any, kwargs: Any, request: Any = None) -> Any:
    try:
        running = _from_request(task, uuid, args, kwargs, request or {})
        return in_unit(running, tracer, uuid, args, kwargs, request)
    except (PropagationError, ValueError) as error:
        return _failed(task, uuid, request, error)
    except UnboundError as error:
        return _failed(task, uuid, request, error.__cause__)


def _from_request(task: Any, task_id: Any, args: Any, kwargs: Any, request: Mapping[str, Any]) -> RunningTask:
    """Read the header again. The worker's parent process has checked its signature; a pipe lies between."""
    tenant_id = _tenant_of(request)
    needs = needs_of_message(task._app, task, args, kwargs)
    if tenant_id is None and needs == REQUIRED:
        raise MissingTenantHeaderError(f"message of task {task.name}")
    return RunningTask(str(task_id), task.name, tenant_id, bound=needs != NONE, follows=request)


def _tenant_of(request: Mapping[str, Any]) -> TenantId | None:
    if HEADER in request:
        return parsed(request[HEADER]).tenant_id
    nested = nested_headers(request)
    return None if nested is None else parsed(nested[HEADER]).tenant_id


def _failed(task: Any, uuid: str, request: Any, error: BaseException) -> Any:
    """Fail a message whose tenant cannot be made active, or that no guard has judged."""
    try:
        raise error
    except type(error):
        info = ExceptionInfo()
    context = Context(request or {})
    task.backend.mark_as_failure(uuid, error, request=context, call_errbacks=False)
    return trace_ok_t(info, TraceInfo(states.FAILURE, error), 0.0, None)


# --- the body ------------------------------------------------------------------------------------


def bind_bodies(task_class: Any) -> None:
    """Wrap what runs as the body of ``task_class``: its ``run``, and its own ``__call__`` if it has one."""
    if inspect.getattr_static(task_class, "run") is not inspect.getattr_static(Task, "run"):
        _wrap(task_class, "run")
    if inspect.getattr_static(task_class, "__call__") is not inspect.getattr_static(Task, "__call__"):
        _wrap(task_class, "__call__")


def unbind_bodies(task_class: Any) -> None:
    """Take :func:`bind_bodies` back."""
    for name in ("run", "__call__"):
        mark = getattr(_plain(vars(task_class).get(name)), _BODY, None)
        if mark is not None and mark[0] is task_class:
            if mark[2]:
                setattr(task_class, name, mark[1])
            else:
                delattr(task_class, name)


def _wrap(task_class: Any, name: str) -> None:
    raw = inspect.getattr_static(task_class, name)
    mark = getattr(_plain(raw), _BODY, None)
    if mark is not None:
        if mark[0] is task_class:
            return
        raw = mark[1]
    bound: Any
    if isinstance(raw, staticmethod):
        bound = staticmethod(_body(raw.__func__, task_class))
    elif isinstance(raw, classmethod):
        bound = classmethod(_body(raw.__func__, task_class))
    elif inspect.isfunction(raw):
        bound = _body(raw, task_class)
    else:
        # Called through the class as it is: a partial, or an object with __call__.
        bound = staticmethod(_body(getattr(task_class, name), task_class))
    setattr(_plain(bound), _BODY, (task_class, raw, name in vars(task_class)))
    setattr(task_class, name, bound)


def _plain(attribute: Any) -> Any:
    return attribute.__func__ if isinstance(attribute, (staticmethod, classmethod)) else attribute


def _body(function: Callable[..., Any], task_class: Any) -> Callable[..., Any]:
    @wraps(function, updated=())
    def body(*args: Any, **kwargs: Any) -> Any:
        unit = current_unit()
        if type(unit) is not RunningTask or unit.in_body:
            return function(*args, **kwargs)
        task = args[0] if args and isinstance(args[0], task_class) else task_class
        begun = begin_unit(_tenant_for(unit, task), unit.entering_body(), part=True)
        try:
            return function(*args, **kwargs)
        finally:
            end_unit(begun, sys.exception())

    return body


def _tenant_for(running: RunningTask, task: Any) -> TenantId | None:
    """Return the tenant of a body: the running task's own, or that of an errback which is called in its place.

    Raises:
        NoTenantError: The errback needs a tenant and the failed task has none.
    """
    if task.name == running.name:
        return running.active
    needs = tenancy_of(task)
    if needs == REQUIRED and running.tenant_id is None:
        raise no_tenant(task.name)
    return None if needs == NONE else running.tenant_id
