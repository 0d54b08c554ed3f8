"""Reading a received message, of task protocol 1 or 2, without believing any of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from uuid import UUID

from tenantry.errors import MalformedTenantHeaderError, PropagationError, TenancyError
from tenantry.ids import TenantId
from tenantry.integrations.celery.edge import nested_headers
from tenantry.propagation import HEADER, ParsedHeader, parse_header


class Parts(NamedTuple):
    """What a message says of itself, before any of it is believed."""

    task_id: str | None
    name: str
    headers: Mapping[str, Any]


class UndecodableError(Exception):
    """The body cannot be decoded; Celery itself rejects the message, and nothing runs."""


def read(task: Any, message: Any, body: Any) -> Parts:
    """Return what a message says of itself; under protocol 1 id and name are in the body."""
    headers = message.headers
    if not isinstance(headers, Mapping):
        headers = {}
    source = headers if "task" in headers or not isinstance(body, Mapping) else body
    task_id = source.get("id")
    if type(task_id) is not str and isinstance(task_id, (str, UUID, int)):
        task_id = str(task_id)
    return Parts(task_id if isinstance(task_id, str) and task_id else None, task.name, headers)


def claimed_header(headers: Mapping[str, Any]) -> TenantId | None:
    """Return the tenant that the headers claim, or ``None``; a claim at one level only is disputed.

    Raises:
        MalformedTenantHeaderError: It cannot be read, or the nested headers say otherwise.
    """
    if not has_header(headers):
        return None
    return parsed(headers[HEADER]).tenant_id


def has_header(headers: Mapping[str, Any]) -> bool:
    """Whether there is one undisputed header, to be read under its name at the top level.

    Raises:
        MalformedTenantHeaderError: There are two, in two spellings, or the nested headers say otherwise.
    """
    for name in headers:
        if len(name) == _LENGTH and name != HEADER and name.lower() == HEADER and HEADER in headers:
            raise MalformedTenantHeaderError(_SOME, "there are two of them")
    nested = nested_headers(headers)
    if HEADER not in headers:
        if nested is not None:
            raise MalformedTenantHeaderError(_SOME, "it stands in the nested headers only")
        return False
    if nested is not None and parsed(nested[HEADER]).tenant_id != parsed(headers[HEADER]).tenant_id:
        raise MalformedTenantHeaderError(_SOME, "the nested headers name another tenant")
    return True


def parsed(value: object) -> ParsedHeader:
    """Read a header's value as :func:`~tenantry.propagation.parse_header` does; unsigned ones are remembered.

    Raises:
        MalformedTenantHeaderError: It is not of the one form that is accepted.
    """
    if type(value) is str:
        known = _unsigned.get(value)
        if known is not None:
            return known
    found = parse_header(value, carrier=_SOME)
    if found.signature is None and type(value) is str and len(_unsigned) < _REMEMBERED:
        _unsigned[value] = found
    return found


_SOME: Final = "message"
_LENGTH: Final = len(HEADER)
_REMEMBERED: Final = 10_000
_unsigned: Final[dict[str, ParsedHeader]] = {}


def claimed_tenant(headers: Mapping[str, Any]) -> TenantId | None:
    """Return the tenant that a refused message claims, or ``None`` if that is illegible or disputed."""
    try:
        return claimed_header(headers)
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


def split(payload: Any) -> tuple[Any, Any, Mapping[str, Any]]:
    """Return args, kwargs and what is embedded, of either protocol.

    Raises:
        PropagationError: The body has another shape.
    """
    if isinstance(payload, (list, tuple)):
        if len(payload) == 3:
            args, kwargs, embedded = payload
            if embedded is None or isinstance(embedded, Mapping):
                return args, kwargs, embedded or {}
    elif isinstance(payload, Mapping) and ("args" in payload or "task" in payload):
        return payload.get("args", ()), payload.get("kwargs", {}), payload
    raise PropagationError(_SOME, "its body is not that of a task")
