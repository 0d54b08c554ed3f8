"""The active tenant on what Sentry is sent, as tag ``tenant``.

Enters: nowhere; this edge only reads.
Leaves: in tag ``tenant`` of the isolation scope, and so on every event.
Runs bound: nothing.
Tested with: sentry-sdk 2.75.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from tenantry.context import add_scope_hook, current_tenant_or_none

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from tenantry.ids import TenantId

try:
    import sentry_sdk
    from sentry_sdk.scope import add_global_event_processor
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "sentry_sdk":
        raise
    raise ImportError(
        "tenantry.integrations.sentry needs sentry-sdk: pip install tenantry[sentry]"
    ) from error

__all__ = ["TAG", "install", "uninstall"]

TAG = "tenant"
_ESCAPED_FROM = "__tenantry_tenant__"


class _TenantTag(str):
    """A tag's value that was written here, and what was there before it."""

    __slots__ = ("left", "previous")

    def __init__(self, _text: str) -> None:
        self.previous: object = None
        self.left = False


class _Tagged:
    """Tags one isolation scope for as long as one tenant is active.

    The scope is that of the entry: code inside may begin its own. Tasks of one request share a
    scope and may leave in any order, so what comes back on leaving is the newest tag that is
    still alive.
    """

    __slots__ = ("_scope", "_tag")

    def __init__(self, tenant_id: TenantId) -> None:
        self._tag = _TenantTag(tenant_id)
        self._scope: Any = None

    def __enter__(self) -> None:
        # Telemetry must not end the work that it describes.
        with contextlib.suppress(Exception):
            scope = sentry_sdk.get_isolation_scope()
            self._tag.previous = _tags(scope).get(TAG)
            scope.set_tag(TAG, self._tag)
            self._scope = scope

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(Exception):
            tag = self._tag
            tag.left = True
            tag.previous = _alive(tag.previous)
            if _tags(self._scope).get(TAG) is tag:
                _restore(self._scope, tag.previous)
        if error is not None:
            # Sentry captures what nobody handled outside of the tenant's scope.
            with contextlib.suppress(Exception):
                vars(error).setdefault(_ESCAPED_FROM, str(self._tag))


def _tags(scope: Any) -> dict[str, object]:
    tags: dict[str, object] = scope._tags
    return tags


def _alive(tag: object) -> object:
    while isinstance(tag, _TenantTag) and tag.left:
        tag = tag.previous
    return tag


def _restore(scope: Any, tag: object) -> None:
    if tag is None:
        scope.remove_tag(TAG)
    else:
        scope.set_tag(TAG, tag)


_remove_hook: Callable[[], None] | None = None
_processor_added = False


def _correct(event: Any, hint: dict[str, Any]) -> Any:
    """Write the tenant that is active where the event is captured.

    A tag of the application's own stays. Concurrent tasks share an isolation scope, so the tag
    on it may be another one's.
    """
    if _remove_hook is None:
        return event
    with contextlib.suppress(Exception):
        tags = event.setdefault("tags", {})
        there = tags.get(TAG)
        if there is not None and not isinstance(there, _TenantTag):
            return event
        tenant_id = current_tenant_or_none() or _escaped_from(hint)
        if tenant_id is not None:
            tags[TAG] = tenant_id
        elif there is not None:
            del tags[TAG]
    return event


def _escaped_from(hint: dict[str, Any]) -> str | None:
    error = (hint.get("exc_info") or (None, None))[1]
    tenant_id: str | None = getattr(error, _ESCAPED_FROM, None)
    return tenant_id


def install() -> Callable[[], None]:
    """Tag what Sentry is sent with the active tenant.

    The isolation scope has the tag while a tenant is active, and what it had before afterwards.
    An event is tagged with the tenant that is active where it is captured; an error that nobody
    handled, with the tenant of the innermost scope that it left. A tag of that name that the
    application set stays. Works before and after ``sentry_sdk.init``.

    Returns:
        :func:`uninstall`.

    Never raises for want of a tenant or of a client. Calling it again changes nothing.
    """
    global _remove_hook, _processor_added
    if not _processor_added:
        add_global_event_processor(_correct)  # there is no way to remove one
        _processor_added = True
    if _remove_hook is None:
        _remove_hook = add_scope_hook(_Tagged)
    return uninstall


def uninstall() -> None:
    """Stop tagging. Open scopes take their tag back when they end. Calling it twice is fine."""
    global _remove_hook
    if _remove_hook is not None:
        _remove_hook()
        _remove_hook = None
