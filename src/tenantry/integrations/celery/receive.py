"""Entering: a message is judged by its header before anything else of the worker handles it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from functools import wraps
from itertools import count
from typing import Any, Final

from tenantry.errors import BadTenantSignatureError, MissingTenantHeaderError, PropagationError, shown
from tenantry.ids import TenantId
from tenantry.integrations.celery.edge import Edge, RunningTask, UnboundError, edge_of, in_unit
from tenantry.integrations.celery.message import (
    Parts,
    UndecodableError,
    has_header,
    parsed,
    payload_of,
    read,
    split,
)
from tenantry.integrations.celery.needs import NONE, REQUIRED, needs_of_message
from tenantry.integrations.celery.refuse import refuse
from tenantry.integrations.celery.requests import tenant_requests
from tenantry.propagation import HEADER, verify_header

_log = logging.getLogger("tenantry.celery")

#: Unsigned messages that this process has let pass while ``accept_unsigned_until`` lies ahead.
_unsigned: Final = count(1)


def guarded_start(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap ``Task.start_strategy``: what it returns sees only messages that may run."""

    @wraps(original)
    def start_strategy(self: Any, app: Any, consumer: Any, **options: Any) -> Any:
        if edge_of(app) is None:
            return original(self, app, consumer, **options)
        with tenant_requests(self):
            handler = original(self, app, consumer, **options)
        return _guard(app, self, consumer, handler)

    return start_strategy


def _guard(app: Any, task: Any, consumer: Any, handler: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(
        message: Any, body: Any, ack: Any, reject: Any, callbacks: Any, *rest: Any, **options: Any
    ) -> Any:
        edge = edge_of(app)
        if edge is None:
            return handler(message, body, ack, reject, callbacks, *rest, **options)
        parts = read(task, message, body)
        try:
            running = judge(edge, app, task, message, parts)
        except UndecodableError:
            return handler(message, body, ack, reject, callbacks, *rest, **options)
        except Exception as error:  # noqa: BLE001 - fails closed: whatever cannot be judged is refused
            return refuse(edge, app, consumer, task, message, parts, _named(error, parts), ack, reject)
        try:
            return in_unit(running, handler, message, body, ack, reject, callbacks, *rest, **options)
        except UnboundError as error:
            return refuse(edge, app, consumer, task, message, parts, error.__cause__, ack, reject)

    return guarded


def _named(error: Exception, parts: Parts) -> Exception:
    return type(error)(described(parts), error.detail) if isinstance(error, PropagationError) else error


def judge(edge: Edge, app: Any, task: Any, message: Any, parts: Parts) -> RunningTask:
    """Return whose a message is.

    Raises:
        PropagationError: The message may not run.
        UndecodableError: Its body cannot be decoded.
    """
    if parts.task_id is None:
        raise PropagationError("message", "it has no task id")
    # Before the body: decoding what somebody forged may be dangerous in itself.
    tenant_id = verified(edge, parts)
    args, kwargs, embedded = split(payload_of(message))
    needs = needs_of_message(app, task, args, kwargs)
    if tenant_id is None and needs == REQUIRED:
        raise MissingTenantHeaderError("message")
    return RunningTask(parts.task_id, parts.name, tenant_id, bound=needs != NONE, follows=embedded)


def verified(edge: Edge, parts: Parts) -> TenantId | None:
    """Return the tenant that the headers name, or ``None`` where they name none.

    Raises:
        MalformedTenantHeaderError: They name none that can be read, or two.
        BadTenantSignatureError: Secret keys are set and this message was not signed with one of them.
    """
    headers = parts.headers
    if not has_header(headers):
        return None
    value = headers[HEADER]
    if edge.secret_keys is None:
        return parsed(value).tenant_id
    try:
        return verify_header(
            value,
            carrier="message",
            secret_keys=edge.secret_keys,
            task_id=parts.task_id,
            task_name=parts.name,
        )
    except BadTenantSignatureError:
        found = parsed(value)
        if found.signature is not None or not _still_unsigned(edge):
            raise
    _log.warning(
        "message %s is not signed; accepted until %s (%d so far)",
        described(parts),
        edge.accept_unsigned_until,
        next(_unsigned),
    )
    return found.tenant_id


def described(parts: Parts) -> str:
    """Return how errors name a message."""
    return f"message {parts.name}[{shown(parts.task_id)}]"


def _still_unsigned(edge: Edge) -> bool:
    until = edge.accept_unsigned_until
    return until is not None and datetime.now(UTC) < until
