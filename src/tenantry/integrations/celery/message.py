"""Reading a received message, of task protocol 1 or 2, without believing any of it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
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
    text = str(task_id) if isinstance(task_id, (str, UUID, int)) else ""
    return Parts(text or None, task.name, headers)


def has_header(headers: Mapping[str, Any]) -> bool:
    """Whether there is one undisputed header, to be read under its name at the top level.

    Raises:
        MalformedTenantHeaderError: There are two, in two spellings, or the nested headers say otherwise.
    """
    nested = nested_headers(headers)
    if HEADER not in headers:
        if nested is not None:
            raise MalformedTenantHeaderError(_SOME, "it stands in the nested headers only")
        return False
    for name in headers:
        if len(name) == _LENGTH and name != HEADER and name.lower() == HEADER:
            raise MalformedTenantHeaderError(_SOME, "there are two of them")
    if nested is not None and parsed(nested[HEADER]).tenant_id != parsed(headers[HEADER]).tenant_id:
        raise MalformedTenantHeaderError(_SOME, "the nested headers name another tenant")
    return True


def parsed(value: object) -> ParsedHeader:
    """Read a header's value as :func:`~tenantry.propagation.parse_header` does.

    Raises:
        MalformedTenantHeaderError: It is not of the one form that is accepted.
    """
    return _known(value) if type(value) is str else parse_header(value, carrier=_SOME)


@lru_cache(maxsize=10_000)
def _known(value: str) -> ParsedHeader:
    return parse_header(value, carrier=_SOME)


_SOME: Final = "message"
_LENGTH: Final = len(HEADER)


def claimed_tenant(headers: Mapping[str, Any]) -> TenantId | None:
    """Return the tenant that a refused message claims, or ``None`` if that is illegible or disputed."""
    try:
        return parsed(headers[HEADER]).tenant_id if has_header(headers) else None
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
