"""Reading a received message, of task protocol 1 or 2, without believing any of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple
from uuid import UUID

from tenantry.errors import MalformedTenantHeaderError, PropagationError, TenancyError
from tenantry.ids import TenantId
from tenantry.propagation import HEADER, parse_header


class Parts(NamedTuple):
    """What a message says of itself, before any of it is believed."""

    task_id: str | None
    name: str
    headers: Mapping[str, Any]


class UndecodableError(Exception):
    """The body cannot be decoded; Celery itself rejects the message, and nothing runs."""


def read(task: Any, message: Any, body: Any) -> Parts:
    """Return what a message says of itself; under protocol 1 id and name are in the body."""
    headers = message.headers if isinstance(message.headers, Mapping) else {}
    source = headers if "task" in headers or not isinstance(body, Mapping) else body
    task_id = source.get("id")
    return Parts(
        str(task_id) if isinstance(task_id, (str, UUID, int)) and str(task_id) else None, task.name, headers
    )


def claimed_header(headers: Mapping[str, Any], carrier: str) -> TenantId | None:
    """Return the tenant that the headers claim, or ``None``; a claim at one level only is disputed.

    Raises:
        MalformedTenantHeaderError: It cannot be read, or the nested headers say otherwise.
    """
    nested = headers.get("headers")
    inside = nested if isinstance(nested, Mapping) else {}
    refuse_two_spellings(headers, carrier)
    if HEADER not in headers:
        if HEADER in inside:
            raise MalformedTenantHeaderError(carrier, "it stands in the nested headers only")
        return None
    tenant_id = parse_header(headers[HEADER], carrier=carrier).tenant_id
    if HEADER in inside and parse_header(inside[HEADER], carrier=carrier).tenant_id != tenant_id:
        raise MalformedTenantHeaderError(carrier, "the nested headers name another tenant")
    return tenant_id


def refuse_two_spellings(headers: Mapping[str, Any], carrier: str) -> None:
    """Refuse headers that hold ours twice, in different cases.

    Raises:
        MalformedTenantHeaderError: They do.
    """
    spelled = [name for name in headers if len(name) == len(HEADER) and name.lower() == HEADER]
    if len(spelled) > 1:
        raise MalformedTenantHeaderError(carrier, "there are two of them")


def claimed_tenant(headers: Mapping[str, Any]) -> TenantId | None:
    """Return the tenant that a refused message claims, or ``None`` if that is illegible or disputed."""
    try:
        return claimed_header(headers, "message")
    except TenancyError:
        return None


def payload_of(message: Any) -> Any:
    """Return the decoded body.

    Raises:
        UndecodableError: It cannot be decoded.
    """
    try:
        return message.payload
    except Exception as error:
        raise UndecodableError from error


def split(payload: Any, carrier: str) -> tuple[Any, Any, Mapping[str, Any]]:
    """Return args, kwargs and what is embedded, of either protocol.

    Raises:
        PropagationError: The body has another shape.
    """
    if isinstance(payload, Mapping) and "args" in payload:
        return payload["args"], payload.get("kwargs", {}), payload
    if isinstance(payload, Mapping) and "task" in payload:
        return payload.get("args", ()), payload.get("kwargs", {}), payload
    if isinstance(payload, (list, tuple)) and len(payload) == 3:
        args, kwargs, embedded = payload
        if embedded is None or isinstance(embedded, Mapping):
            return args, kwargs, embedded or {}
    raise PropagationError(carrier, "its body is not that of a task")
