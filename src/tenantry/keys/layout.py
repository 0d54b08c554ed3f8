"""The prefix that makes a key a tenant's: plain ``acme:…`` or tagged ``{acme}:…``."""

from __future__ import annotations

import threading
from typing import Final, Literal

from tenantry.errors import InvalidTenantIdError, KeySchemaError, shown
from tenantry.ids import TenantId, ensure_tenant_id

__all__ = ["owner_of", "tenant_prefix", "use_layout"]

PLAIN: Final = "plain"
TAGGED: Final = "tagged"
SHARED_PREFIX: Final = "%shared:"  # "%" is in no tenant id, so no tenant can own such a key

_lock = threading.Lock()
_layout = PLAIN
_is_chosen = False
_is_frozen = False


def use_layout(layout: Literal["plain", "tagged"]) -> None:
    """Choose the layout of all keys of this process.

    Call it once, before the first key is built; it applies to scopes that are already open.

    Args:
        layout: ``"plain"`` (default), or ``"tagged"``: the tenant is a Redis Cluster hash tag, so that all
            keys of a tenant are in one slot. Source: https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/

    Raises:
        KeySchemaError: There is no such layout; or one was chosen before, be it the same, or a key was
            built.
    """
    global _layout, _is_chosen
    if layout not in (PLAIN, TAGGED):
        raise KeySchemaError(f"layout {shown(layout)}", None, 'there are two layouts, "plain" and "tagged"')
    with _lock:
        if _is_frozen or _is_chosen:
            why = "keys were already built in it" if _is_frozen else "it was chosen before"
            raise KeySchemaError(
                f"layout {layout!r}",
                None,
                f"the layout is {_layout!r} and {why}; call use_layout once, at start-up",
            )
        _layout = layout
        _is_chosen = True


def freeze_layout() -> tuple[str, str]:
    """Return what stands before and after the tenant in a key; from now on that does not change."""
    global _is_frozen
    with _lock:
        _is_frozen = True
    return ("{", "}:") if _layout == TAGGED else ("", ":")


def tenant_prefix(tenant_id: str) -> str:
    """Return the prefix of all keys of a tenant in the layout in use, ``"acme:"`` or ``"{acme}:"``."""
    return f"{{{tenant_id}}}:" if _layout == TAGGED else f"{tenant_id}:"


def split_owner(key: str) -> tuple[TenantId, str] | None:
    """Return the tenant of ``key`` and what follows its prefix, or ``None`` if it has no tenant's prefix."""
    if _layout == TAGGED:
        if not key.startswith("{"):
            return None
        tenant, separator, rest = key[1:].partition("}:")
    else:
        tenant, separator, rest = key.partition(":")
    if not separator:
        return None
    try:
        return ensure_tenant_id(tenant), rest
    except InvalidTenantIdError:
        return None


def owner_of(key: str | bytes) -> TenantId | None:
    """Return the tenant that ``key`` belongs to, by its prefix alone, or ``None``.

    Args:
        key: A whole key, as ``str`` or as the ``bytes`` that Redis returns.

    Returns:
        The tenant id in the prefix of the layout in use; ``None`` for shared keys and for everything else.
        Never raises on ``str`` or ``bytes``.

    Raises:
        TypeError: ``key`` is neither.
    """
    found = split_owner(_text(key, "surrogateescape"))
    return None if found is None else found[0]


def key_text(key: str | bytes) -> str | None:
    """Return ``key`` as text; ``None`` for bytes that are not UTF-8, which no key function builds."""
    try:
        return _text(key, "strict")
    except UnicodeDecodeError:
        return None


def _text(key: str | bytes, errors: str) -> str:
    if isinstance(key, str):
        return str.__str__(key)
    if isinstance(key, bytes | bytearray | memoryview):
        return str(key, "utf-8", errors)
    raise TypeError(f"a key is str or bytes, not {type(key).__name__}")
