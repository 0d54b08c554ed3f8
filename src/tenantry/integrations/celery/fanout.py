"""Leaving many times: one publish per tenant, from a job that belongs to none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final
from uuid import NAMESPACE_OID, uuid5

from celery.app.task import Task
from celery.canvas import Signature
from kombu.utils import json
from kombu.utils.uuid import uuid

from tenantry.context import current_tenant_or_none
from tenantry.errors import InvalidTenantIdError, TenantConflictError, shown
from tenantry.ids import TenantId, ensure_tenant_id
from tenantry.integrations.celery.edge import edge_of

_OURS: Final = ("tenant", "task_id")


def fan_out(
    task: Any,
    tenants: Iterable[object],
    *,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    run_id: object = None,
    after: object = None,
    **options: Any,
) -> Iterator[tuple[Any, Any]]:
    """Publish ``task`` once per tenant, and yield each tenant with its result or its error.

    Nothing is published until the iterator is advanced.

    Args:
        task: A task, or a signature of one, of an application that tenantry is installed on.
        tenants: Tenant ids; read one at a time, in order.
        args: Positional arguments of every call.
        kwargs: Keyword arguments of every call.
        run_id: Name of this run. The ids of the tasks are derived from the task's name, ``run_id`` and the
            tenant, so running it again after a crash gives every task the id that it had. Default: new ids.
        after: A tenant id: go on behind it. Default: from the start.
        options: Passed on to ``apply_async``.

    Returns:
        An iterator of ``(tenant, result)``, or ``(tenant, error)`` where one tenant's publish failed, in the
        order of ``tenants``. The others go on.

    Raises:
        InvalidTenantIdError: ``after`` is no tenant id. One among ``tenants`` is yielded with this error.
        TenantConflictError: A tenant is active; a fan-out belongs to none.
        ValueError: tenantry is not installed on the task's application; ``run_id`` is blank; or, at the
            end, ``after`` never came.
        TypeError: ``task`` is neither a task nor a signature, ``tenants`` is one text, or an option is one
            that a fan-out sets itself.

    Cost: that of ``delay()`` in a loop, on one connection, in constant memory. Where the broker does not
    confirm publishes (RabbitMQ without ``confirm_publish``), let the cursor lag behind the last one yielded.
    """
    app = _app_of(task)
    if edge_of(app) is None:
        raise ValueError("tenantry is not installed on this task's app: call install(app) first")
    for option in _OURS:
        if option in options:
            raise TypeError(f"fan_out() sets {option!r} itself, for each tenant")
    if not str(run_id).strip():
        raise ValueError("run_id is blank; name the run, or leave it out")
    if isinstance(tenants, (str, bytes)):
        raise TypeError("fan_out() takes many tenants, and a text is one; put it into a list")
    _refuse_active()
    cursor = None if after is None else ensure_tenant_id(after)
    call = {"args": tuple(args), "kwargs": dict(kwargs or {}), "add_to_parent": False, **options}
    return _publish(app, task, iter(tenants), run_id, cursor, call)


def _app_of(task: Any) -> Any:
    if isinstance(task, (Task, Signature)):
        return task.app
    raise TypeError(f"fan_out() takes a task or a signature, not {type(task).__name__}")


def _publish(
    app: Any,
    task: Any,
    tenants: Iterator[object],
    run_id: object,
    cursor: TenantId | None,
    call: dict[str, Any],
) -> Iterator[tuple[Any, Any]]:
    if cursor is not None:
        _skip(tenants, cursor)
    producer = call.pop("producer", None)
    with app.producer_or_acquire(producer) as shared:
        for named in tenants:
            _refuse_active()
            try:
                tenant_id = ensure_tenant_id(named)
            except InvalidTenantIdError as error:
                yield named, error
                continue
            yield tenant_id, _one(task, tenant_id, run_id, {**call, "producer": shared})


def _skip(tenants: Iterator[object], cursor: TenantId) -> None:
    for named in tenants:
        try:
            if ensure_tenant_id(named) == cursor:
                return
        except InvalidTenantIdError:
            continue
    raise ValueError(f"after={shown(cursor)} is not among the tenants, so nothing was published")


def _one(task: Any, tenant_id: TenantId, run_id: object, call: dict[str, Any]) -> Any:
    task_id = uuid() if run_id is None else _derived_id([task.name, str(run_id), tenant_id])
    try:
        return task.apply_async(task_id=task_id, tenant=tenant_id, **call)
    except Exception as error:  # noqa: BLE001 - handed to the caller: one tenant's failure does not stop the others
        return error


def _derived_id(parts: list[str]) -> str:
    return str(uuid5(NAMESPACE_OID, json.dumps(parts)))


def _refuse_active() -> None:
    active = current_tenant_or_none()
    if active is not None:
        raise TenantConflictError(active, None)
