"""Write the active tenant into the headers of a message, and read it back.

The header is called ``tenantry``. Its value is ``v1;<tenant>``, or ``v1;<tenant>;<signature>`` where
secret keys are set. The signature covers the tenant, the task id and the task name, so a header that is
moved to another message does not verify there. It does not cover the message's body.

Edges for brokers use this module; to write one for another queue, two calls are enough::

    inject(message.headers)                 # where messages are published
    tenant_id = extract(message.headers)    # where they are handled
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from collections.abc import Set as AbstractSet
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from tenantry.context import current_tenant_or_none, require_tenant
from tenantry.errors import (
    BadTenantSignatureError,
    InvalidTenantIdError,
    MalformedTenantHeaderError,
    MissingTenantHeaderError,
    TenantConflictError,
)
from tenantry.ids import TenantId, ensure_tenant_id

if TYPE_CHECKING:
    from itsdangerous import Signer

__all__ = ["HEADER", "extract", "inject"]

SecretKeys: TypeAlias = str | bytes | Sequence[str | bytes]

HEADER: Final = "tenantry"
"""Name of the header."""

_VERSION: Final = "v1"
_SALT: Final = b"tenantry.header.v1"  # the purpose: a signature made for anything else does not verify
# Unpadded base64url in its one canonical form: the bits that a last character has to spare are zero.
_SIGNATURE: Final = re.compile(
    r"(?:[A-Za-z0-9_-]{4}){0,32}(?:[A-Za-z0-9_-]{4}|[A-Za-z0-9_-]{2}[AEIMQUYcgkosw048]|[A-Za-z0-9_-][AQgw])",
    re.ASCII,
)

# How mappings that can hold a name twice give all of its values.
_MULTI_VALUED: Final = ("getlist", "getall", "get_all", "get_list")


class ParsedHeader(NamedTuple):
    """A well-formed header. Nothing is verified yet.

    Attributes:
        tenant_id: The tenant that the header names.
        signature: Unpadded base64url, or ``None`` where the header has none.
    """

    tenant_id: TenantId
    signature: str | None


def inject(
    carrier: MutableMapping[str, Any],
    *,
    secret_keys: SecretKeys | None = None,
    task_id: str | None = None,
    task_name: str | None = None,
) -> None:
    """Write the active tenant into ``carrier``.

    Args:
        carrier: The headers of the message, changed in place: ``carrier["tenantry"]`` is set. A header
            that is there already is left as it is if it names the active tenant, and signed anew where
            secret keys are set.
        secret_keys: ``str``, ``bytes`` or a sequence of them, oldest first; the newest signs. Default:
            the header is not signed.
        task_id: What the signature is bound to, beside the tenant. Default: to no message in particular.
        task_name: Likewise.

    Raises:
        NoTenantError: No tenant is active and the carrier has no header either.
        TenantConflictError: The carrier has a header of another tenant, or has one and no tenant is
            active: a header that came from outside is never passed on as ours.
        MalformedTenantHeaderError: The carrier has a header that is not well-formed.
        ValueError: ``secret_keys`` is an empty list, or one of them is blank.
        ImportError: Secret keys are set and itsdangerous is not installed.
    """
    keys = normalize_secret_keys(secret_keys)
    value = _header_of(carrier)
    if value is not None:
        named = parse_header(value, carrier=_described(task_id, task_name)).tenant_id
        active = current_tenant_or_none()
        if named != active:
            raise TenantConflictError(active, named)
        if keys is None:
            return
    tenant_id = require_tenant("inject")
    carrier[HEADER] = format_header(tenant_id, secret_keys=keys, task_id=task_id, task_name=task_name)


def extract(
    carrier: Mapping[str, Any],
    *,
    secret_keys: SecretKeys | None = None,
    task_id: str | None = None,
    task_name: str | None = None,
) -> TenantId:
    """Return the tenant that ``carrier`` names. Nothing is made active.

    Args:
        carrier: The headers of the message.
        secret_keys: As for :func:`inject`; a signature by any of them is accepted. Default: a signature
            is not verified, though its form is.
        task_id: The id of the message at hand; has to be what :func:`inject` was given.
        task_name: Likewise its name.

    Raises:
        MissingTenantHeaderError: There is no header.
        MalformedTenantHeaderError: There is one and it is not one text of the accepted form.
        BadTenantSignatureError: Secret keys are set, and the signature is absent or does not fit.
        ValueError: ``secret_keys`` is an empty list, or one of them is blank.
        ImportError: Secret keys are set and itsdangerous is not installed.
    """
    keys = normalize_secret_keys(secret_keys)
    described = _described(task_id, task_name)
    if not _has_header(carrier):
        raise MissingTenantHeaderError(described)
    _refuse_second_value(carrier, described)
    return verify_header(
        carrier[HEADER], carrier=described, secret_keys=keys, task_id=task_id, task_name=task_name
    )


def format_header(
    tenant_id: str,
    *,
    secret_keys: SecretKeys | None = None,
    task_id: str | None = None,
    task_name: str | None = None,
) -> str:
    """Return the header's value for a tenant, signed where secret keys are set."""
    keys = normalize_secret_keys(secret_keys)
    value = f"{_VERSION};{tenant_id}"
    if keys is None:
        return value
    signature = _signer(keys).get_signature(_signed_text(tenant_id, task_id, task_name))
    return f"{value};{signature.decode()}"


def parse_header(value: object, *, carrier: str) -> ParsedHeader:
    """Read a header's value without verifying it.

    Args:
        value: What the message has under the header's name.
        carrier: Which message this is, for the error.

    Raises:
        MalformedTenantHeaderError: ``value`` is not one text of the accepted form.
    """
    if not issubclass(type(value), str):
        raise MalformedTenantHeaderError(carrier, f"it is {type(value).__name__}, not text")
    text = str.__str__(value)
    version, *fields = text.split(";")
    if version != _VERSION:
        raise MalformedTenantHeaderError(carrier, f"its version is not {_VERSION}")
    if len(fields) not in (1, 2):
        raise MalformedTenantHeaderError(carrier, "it has a wrong number of fields")
    signature = fields[1] if len(fields) == 2 else None
    if signature is not None and _SIGNATURE.fullmatch(signature) is None:
        raise MalformedTenantHeaderError(carrier, "its signature is not unpadded base64url")
    try:
        return ParsedHeader(ensure_tenant_id(fields[0]), signature)
    except InvalidTenantIdError as error:
        raise MalformedTenantHeaderError(carrier, "it does not name a tenant id") from error


def verify_header(
    value: object,
    *,
    carrier: str,
    secret_keys: SecretKeys | None = None,
    task_id: str | None = None,
    task_name: str | None = None,
) -> TenantId:
    """Read a header's value and, where secret keys are set, verify its signature.

    Raises:
        MalformedTenantHeaderError: ``value`` is not one text of the accepted form.
        BadTenantSignatureError: The signature is absent or does not fit this message.
    """
    keys = normalize_secret_keys(secret_keys)
    tenant_id, signature = parse_header(value, carrier=carrier)
    if keys is None:
        return tenant_id
    if signature is None:
        raise BadTenantSignatureError(carrier, "it has no signature")
    if not _signer(keys).verify_signature(_signed_text(tenant_id, task_id, task_name), signature):
        raise BadTenantSignatureError(carrier)
    return tenant_id


def normalize_secret_keys(secret_keys: SecretKeys | None) -> tuple[bytes, ...] | None:
    """Return secret keys as bytes, oldest first, or ``None`` where signing is off.

    Raises:
        ValueError: The list is empty or a key is blank: signing that cannot work must not look switched on.
        TypeError: A key is neither ``str`` nor ``bytes``, or they come without an order, which rotation needs.
    """
    if secret_keys is None:
        return None
    if isinstance(secret_keys, AbstractSet | Mapping):
        raise TypeError(
            f"secret_keys are listed oldest first, which a {type(secret_keys).__name__} cannot tell"
        )
    listed: Sequence[Any] = [secret_keys] if isinstance(secret_keys, str | bytes) else list(secret_keys)
    keys = tuple(_secret_key(key) for key in listed)
    if not keys:
        raise ValueError("secret_keys is empty; give one key at least, or None to switch signing off")
    return keys


def _secret_key(key: object) -> bytes:
    if isinstance(key, str):
        key = str.encode(key)
    if not isinstance(key, bytes):
        raise TypeError(f"a secret key is str or bytes, not {type(key).__name__}")
    if not key.strip():
        raise ValueError("a secret key is blank; take one from your secret store")
    return bytes(key)


@lru_cache(maxsize=16)
def _signer(keys: tuple[bytes, ...]) -> Signer:
    try:
        from itsdangerous import Signer
    except ModuleNotFoundError as error:
        if error.name != "itsdangerous":
            raise
        raise ImportError("signed tenant headers need itsdangerous: pip install tenantry[signing]") from error
    import hashlib

    deriving = Signer(list(keys), salt=_SALT, key_derivation="hmac", digest_method=hashlib.sha256)
    # Derived once: for each message it would cost as much again as the signature itself.
    derived = [deriving.derive_key(key) for key in keys]
    return Signer(derived, salt=_SALT, key_derivation="none", digest_method=hashlib.sha256)


def _signed_text(tenant_id: str, task_id: str | None, task_name: str | None) -> bytes:
    """Return what a signature covers. Lengths stand before the texts, so no two messages share it."""
    fields = []
    for field in (tenant_id, task_id, task_name):
        data = b"" if field is None else field.encode("utf-8", "surrogatepass")
        fields.append(b"-" if field is None else b"%d:%b" % (len(data), data))
    return b"|".join(fields)


def _header_of(carrier: Mapping[str, Any]) -> object | None:
    """Return the header that the caller has set, or ``None``; one that is there and null is malformed."""
    if not _has_header(carrier):
        return None
    described = f"the header {HEADER!r}"
    _refuse_second_value(carrier, described)
    value: object = carrier[HEADER]
    if value is None:
        raise MalformedTenantHeaderError(described, "it is null")
    return value


def _has_header(carrier: Mapping[str, Any]) -> bool:
    return HEADER in carrier


def _refuse_second_value(carrier: Mapping[str, Any], described: str) -> None:
    """Refuse a carrier that holds the header twice: as one list of values, or spelled in two ways."""
    for method in () if type(carrier) is dict else _MULTI_VALUED:
        values = getattr(carrier, method, None)
        if callable(values) and len(values(HEADER)) > 1:
            raise MalformedTenantHeaderError(described, "there are two of them")
    names: Iterable[object] = carrier
    spelled = [name for name in names if isinstance(name, str) and name.lower() == HEADER]
    if len(spelled) > 1:
        raise MalformedTenantHeaderError(described, "there are two of them")


def _described(task_id: str | None, task_name: str | None) -> str:
    if task_id is None and task_name is None:
        return f"the header {HEADER!r}"
    return f"the header {HEADER!r} of task {task_name or '?'}[{task_id or '?'}]"
