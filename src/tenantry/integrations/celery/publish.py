"""Leaving: the tenant is written where a task message leaves this process, or nothing leaves.

``app.send_task`` as an attribute of the application is the one point that every path passes, whatever the
base class of the task, with the task's id in reach. Canvases are checked whole before their first message,
since a group sends its first member, and a chord its unlock, before the others are looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import Any, Final

from kombu.utils.uuid import uuid

from tenantry.context import current_tenant_or_none, current_unit, unit_of_work
from tenantry.ids import TenantId
from tenantry.integrations.celery.edge import (
    FOLLOWING,
    Edge,
    RunningTask,
    UnboundError,
    edge_of,
    in_unit,
    nested_headers,
    running_task,
)
from tenantry.integrations.celery.needs import NONE, Canvas, many, needs_of_message
from tenantry.propagation import HEADER, format_header

_POSITIONAL: Final = (
    "producer", "connection", "router", "result_cls", "expires", "publisher", "link", "link_error",
    "add_to_parent", "group_id", "group_index", "retries", "chord", "reply_to", "time_limit", "soft_time_limit",
    "root_id", "parent_id", "route_name", "shadow", "chain", "task_type", "replaced_task_nesting",
)  # fmt: skip


def send_task_of(app: Any) -> Callable[..., Any]:
    """Return what takes the place of ``app.send_task``."""
    before = vars(app).get("send_task")

    def send_task(
        name: str,
        args: Any = None,
        kwargs: Any = None,
        countdown: Any = None,
        eta: Any = None,
        task_id: Any = None,
        *rest: Any,
        **options: Any,
    ) -> Any:
        edge = edge_of(app)
        # Looked up now: tracing tools replace the method of the class, and may do so later than we were installed.
        original = before or type(app).send_task.__get__(app)
        if edge is None:
            return original(name, args, kwargs, countdown, eta, task_id, *rest, **options)
        options.update(zip(_POSITIONAL, rest, strict=False))
        task_id = task_id or uuid()
        address(edge, app, name, args, kwargs, str(task_id), options)
        return original(name, args, kwargs, countdown, eta, task_id, **options)

    send_task._tenantry_before = before  # type: ignore[attr-defined]
    return send_task


def address(
    edge: Edge, app: Any, name: str, args: Any, kwargs: Any, task_id: str, options: dict[str, Any]
) -> TenantId | None:
    """Decide whose a message is, and write that into ``options``; the caller's dicts stay as they are.

    Raises:
        NoTenantError: It, or what follows it, needs a tenant and there is none.
        TenantConflictError: Its option, its headers or what follows it names another tenant.
        ValueError: A task declares a tenancy that there is not.
    """
    running = running_task()
    if running is not None and running.task_id == task_id:
        tenant_id = running.tenant_id
    else:
        tenant_id = _whose(app, running, name, args, kwargs, task_id, options)
    if "tenant" in options and "tenant" not in (options.get("stamped_headers") or ()):
        del options["tenant"]
    _write(edge, tenant_id, name, task_id, options)
    return tenant_id


def _whose(
    app: Any,
    running: RunningTask | None,
    name: str,
    args: Any,
    kwargs: Any,
    task_id: str,
    options: Mapping[str, Any],
) -> TenantId | None:
    inherited = current_tenant_or_none()
    if running is not None and inherited != running.tenant_id and _continues(running, options, {task_id}):
        inherited = running.tenant_id
    canvas = Canvas(app, inherited)
    tenant_id = inherited
    if options.get("headers") or "tenant" in options:
        tenant_id = canvas.named_in(options, inherited)
    came_out = canvas.task(name, args, kwargs, tenant_id)
    # Spelled out: this is on the path of every publish.
    if options.get("link") or options.get("link_error") or options.get("chain") or options.get("chord"):
        canvas.links(options, came_out)
    return tenant_id


def _write(edge: Edge, tenant_id: TenantId | None, name: str, task_id: str, options: dict[str, Any]) -> None:
    headers = options.get("headers")
    headers = options["headers"] = dict(headers) if headers else {}
    nested = nested_headers(headers)
    if nested is not None:
        headers["headers"] = nested = dict(nested)
    if tenant_id is None:
        headers.pop(HEADER, None)
        if nested is not None:
            nested.pop(HEADER)
        _unstamp(options)
        return
    text = format_header(tenant_id, secret_keys=edge.secret_keys, task_id=task_id, task_name=name)
    headers[HEADER] = text
    if nested is not None:
        nested[HEADER] = text
    _stamp(tenant_id, options)


def _stamp(tenant_id: TenantId, options: dict[str, Any]) -> None:
    stamped = options.get("stamped_headers")
    if not stamped:
        options["stamped_headers"] = [HEADER]
    elif HEADER not in stamped:
        options["stamped_headers"] = [*stamped, HEADER]
    options[HEADER] = tenant_id


def _unstamp(options: dict[str, Any]) -> None:
    options.pop(HEADER, None)
    stamped = options.get("stamped_headers")
    if stamped:
        options["stamped_headers"] = [name for name in stamped if name != HEADER]


# --- continuations of a task whose phases run without its tenant ---------------------------------


def _continues(running: RunningTask, options: Mapping[str, Any], ids: set[str]) -> bool:
    """Whether Celery, not user code, publishes this after ``running``: a callback, errback, chain or chord part.

    What is published has these ``ids``. An errback of a chord's body has none that is known before; its parent
    is the body, which never ran (``Backend.chord_error_from_stack``).
    """
    parent = options.get("parent_id")
    return not running.in_body and (
        parent == running.task_id
        or not _ids_in([running.follows.get(part) for part in FOLLOWING]).isdisjoint({parent, *ids})
    )


def _ids_in(roots: list[Any]) -> set[str]:
    found: set[str] = set()
    left = list(roots)
    while left:
        part = left.pop()
        if isinstance(part, (list, tuple)):
            left.extend(part)
        elif isinstance(part, Mapping):
            options, kwargs = part.get("options"), part.get("kwargs")
            if isinstance(options, Mapping):
                found.update(str(options[key]) for key in ("task_id", "group_id") if options.get(key))
            if isinstance(kwargs, Mapping):
                left.extend(kwargs.get(name) for name in ("tasks", "header", "body"))
    return found


# --- canvases ------------------------------------------------------------------------------------


def checked_canvas(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a publishing or applying method of a group, a chain or a chord: all of it is checked first."""

    @wraps(original)
    def publish(self: Any, *args: Any, **options: Any) -> Any:
        app = _app_of(self)
        if edge_of(app) is None:
            return original(self, *args, **options)
        with _checked(app, self, {**self.options, **options}, self.get("kwargs")):
            return original(self, *args, **options)

    return publish


def checked_chord(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap ``chord.run``, which is handed header and body; both are checked before the unlock leaves."""

    @wraps(original)
    def run(
        self: Any, header: Any, body: Any, partial_args: Any, app: Any = None, *args: Any, **options: Any
    ) -> Any:
        publishing = app or _app_of(self)
        if edge_of(publishing) is None:
            return original(self, header, body, partial_args, app, *args, **options)
        with _checked(publishing, self, {**self.options, **options}, {"header": header, "body": body}):
            return original(self, header, body, partial_args, app, *args, **options)

    return run


def _app_of(signature: Any) -> Any | None:
    try:
        return signature.app
    except (AttributeError, LookupError, TypeError):
        return None


@contextmanager
def _checked(app: Any, signature: Any, options: Mapping[str, Any], kwargs: Any) -> Iterator[None]:
    running, active = running_task(), current_tenant_or_none()
    inherited = active
    # Not asked where it makes no difference: each member of a large group would walk the whole of it.
    if running is not None and active != running.tenant_id:
        ids = _ids_in([{"options": options, "kwargs": kwargs}])
        if _continues(running, options, ids):
            inherited = running.tenant_id
    canvas = Canvas(app, inherited)
    tenant_id = canvas.named_in(options, inherited)
    came_out = canvas.task(signature["task"], (), kwargs, tenant_id)
    canvas.links(options, came_out)
    wanted = tenant_id if signature["task"] != "celery.chord" else came_out
    if wanted == active:
        yield
        return
    # Celery publishes the unlock of a chord, and groups inside callbacks, without our option.
    with unit_of_work(wanted, unit=current_unit()):
        yield


# --- replace and add_to_chord --------------------------------------------------------------------


def under_own_tenant(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a method with which a running task publishes in its own place: its own tenant, whatever is active."""

    @wraps(original)
    def publish(self: Any, *args: Any, **options: Any) -> Any:
        running = running_task()
        if running is None or edge_of(self.app) is None:
            return original(self, *args, **options)
        with unit_of_work(running.tenant_id, unit=running):
            return original(self, *args, **options)

    return publish


# --- eager calls ---------------------------------------------------------------------------------


def checked_apply(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap ``Task.apply``: the same checks as a publish, and a context of its own as in a worker."""

    @wraps(original)
    def apply(
        self: Any,
        args: Any = None,
        kwargs: Any = None,
        link: Any = None,
        link_error: Any = None,
        task_id: Any = None,
        retries: Any = None,
        throw: Any = None,
        logfile: Any = None,
        loglevel: Any = None,
        headers: Any = None,
        **options: Any,
    ) -> Any:
        app = self._get_app()
        edge = edge_of(app)
        call = {"link": link, "link_error": link_error, "retries": retries, "throw": throw}
        call |= {"logfile": logfile, "loglevel": loglevel}
        if edge is None:
            return original(self, args, kwargs, task_id=task_id, headers=headers, **call, **options)
        task_id = task_id or uuid()
        options |= {"headers": headers, "link": link, "link_error": link_error}
        tenant_id = address(edge, app, self.name, args, kwargs, str(task_id), options)
        call |= options
        running = _eager(app, self, str(task_id), tenant_id, args, kwargs, call)
        try:
            return in_unit(running, original, self, args, kwargs, task_id=task_id, **call)
        except UnboundError as error:
            raise error.__cause__ from None

    return apply


def _eager(
    app: Any,
    task: Any,
    task_id: str,
    tenant_id: TenantId | None,
    args: Any,
    kwargs: Any,
    call: Mapping[str, Any],
) -> RunningTask:
    needs = needs_of_message(app, task, args, kwargs)
    follows = {"callbacks": many(call.get("link")), "errbacks": many(call.get("link_error"))}
    return RunningTask(task_id, task.name, tenant_id, bound=needs != NONE, follows=follows)
