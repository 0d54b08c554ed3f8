"""What a task needs, and what a whole canvas needs, before any of it is published or run.

``tenancy`` of a task is ``"required"`` (default), ``"optional"`` or ``"none"``. Celery's own tasks need what
the signatures inside them need. A canvas is walked whole, since some of its messages leave before others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from tenantry.context import require_tenant
from tenantry.errors import (
    MalformedTenantHeaderError,
    NoTenantError,
    TenancyError,
    TenantConflictError,
    shown,
)
from tenantry.ids import TenantId, ensure_tenant_id
from tenantry.integrations.celery.edge import nested_headers
from tenantry.propagation import HEADER, parse_header

REQUIRED: Final = "required"
OPTIONAL: Final = "optional"
NONE: Final = "none"
_TENANCIES: Final = (REQUIRED, OPTIONAL, NONE)

#: Where Celery's own tasks keep signatures: name and position of each parameter that holds some.
_SIGNATURES_IN: Final[Mapping[str, tuple[tuple[str, int], ...]]] = {
    "celery.map": (("task", 0),),
    "celery.starmap": (("task", 0),),
    "celery.chunks": (("task", 0),),
    "celery.chord_unlock": (("callback", 1),),
    "celery.group": (("tasks", 0),),
    "celery.chain": (("tasks", 0),),
    "celery.chord": (("header", 0), ("body", 1)),
}
_RUNS_INSIDE: Final = ("celery.map", "celery.starmap")
_WITHOUT_SIGNATURES: Final = ("celery.accumulate", "celery.backend_cleanup")


def tenancy_of(task: Any) -> str:
    """Return what ``task`` declares; one that nobody here knows, ``None``, needs a tenant.

    Raises:
        ValueError: It declares something else than the three.
    """
    value = getattr(task, "tenancy", REQUIRED)
    if isinstance(value, str) and value in _TENANCIES:
        return value
    raise ValueError(f"task {task.name}: tenancy={shown(value)} is none of 'required', 'optional', 'none'")


def registered(app: Any, name: str) -> Any | None:
    """Return the task of that name, or ``None``; evaluates pending declarations only where it has to."""
    task = app._tasks.get(name)
    if task is None and app.autofinalize:
        app.finalize()
        task = app._tasks.get(name)
    return task


class UnreadableError(Exception):
    """The signatures inside one of Celery's own tasks cannot be read."""


def inside(name: str, args: Any, kwargs: Any) -> Iterator[Any]:
    """Yield the signatures inside one of Celery's own tasks.

    Raises:
        UnreadableError: They are not where Celery would look for them.
    """
    for parameter, position in _SIGNATURES_IN.get(name, ()):
        found = _argument(parameter, position, args, kwargs)
        if parameter in ("tasks", "header") and not isinstance(found, (Mapping, str)):
            if not isinstance(found, Iterable):
                raise UnreadableError
            yield from found
        else:
            yield found


def _argument(parameter: str, position: int, args: Any, kwargs: Any) -> Any:
    if isinstance(kwargs, Mapping) and parameter in kwargs:
        return kwargs[parameter]
    return args[position] if isinstance(args, (list, tuple)) and len(args) > position else None


def many(value: Any) -> Sequence[Any]:
    """Return callbacks as Celery takes them: one, several, or none."""
    if value is None:
        return ()
    return value if isinstance(value, (list, tuple)) else (value,)


class Canvas:
    """One walk over everything that a publish would set going. Publishes nothing.

    All of it belongs to one tenant; ``tenant_id`` is the first one that was named.
    """

    __slots__ = ("_app", "_may_be_unknown", "tenant_id")

    def __init__(self, app: Any, tenant_id: TenantId | None, *, unknown: bool | None = None) -> None:
        self._app = app
        self._may_be_unknown = unknown
        self.tenant_id = tenant_id

    def signature(self, signature: Any, tenant_id: TenantId | None) -> TenantId | None:
        """Check a signature and all that follows it, and return the tenant that comes out of it.

        Raises:
            NoTenantError: Part of it needs a tenant and none is named.
            TenantConflictError: Part of it names another tenant.
        """
        if isinstance(signature, str):
            return self.task(signature, (), {}, tenant_id)
        if not isinstance(signature, Mapping) or not isinstance(signature.get("task"), str):
            return self._unreadable("a signature that cannot be read", tenant_id)
        options = signature.get("options") or {}
        tenant_id = self.named_in(options, tenant_id)
        came_out = self.task(signature["task"], signature.get("args"), signature.get("kwargs"), tenant_id)
        self.links(options, came_out)
        return came_out

    def task(self, name: str, args: Any, kwargs: Any, tenant_id: TenantId | None) -> TenantId | None:
        """Check one task by its name and, if it is Celery's own, what is inside."""
        if name in _SIGNATURES_IN:
            try:
                return self._builtin(name, args, kwargs, tenant_id)
            except UnreadableError:
                return self._unreadable(name, tenant_id)
        if name not in _WITHOUT_SIGNATURES:
            self._plain(name, tenant_id)
        return tenant_id

    def links(self, options: Mapping[str, Any], tenant_id: TenantId | None) -> None:
        """Check callbacks, errbacks, the rest of a chain and the body of a chord."""
        for option in ("link", "link_error", "chord"):
            for signature in many(options.get(option)):
                self.signature(signature, tenant_id)
        # Celery keeps it with the next task at its end.
        for signature in reversed(many(options.get("chain"))):
            tenant_id = self.signature(signature, tenant_id)

    def named_in(self, options: Mapping[str, Any], tenant_id: TenantId | None) -> TenantId | None:
        """Return the tenant of a message with these options, which inherits ``tenant_id``.

        Raises:
            InvalidTenantIdError: The option ``tenant`` is no tenant id.
            MalformedTenantHeaderError: The caller's header is not one.
            TenantConflictError: The option or the caller's header names another tenant.
        """
        wanted = tenant_option(options)
        if wanted is not None:
            tenant_id = self._agree(ensure_tenant_id(wanted))
        for headers in _header_dicts(options):
            named = parse_header(headers[HEADER], carrier="the option headers").tenant_id
            if named != tenant_id:
                raise TenantConflictError(tenant_id, named)
        return tenant_id

    def _agree(self, tenant_id: TenantId) -> TenantId:
        if self.tenant_id is None:
            self.tenant_id = tenant_id
        if tenant_id != self.tenant_id:
            raise TenantConflictError(self.tenant_id, tenant_id)
        return tenant_id

    def _plain(self, name: str, tenant_id: TenantId | None) -> None:
        task = registered(self._app, name)
        needs = tenancy_of(task)
        if tenant_id is None and needs == REQUIRED and not (task is None and self._unknown_may_pass()):
            raise no_tenant(name)

    def _builtin(self, name: str, args: Any, kwargs: Any, tenant_id: TenantId | None) -> TenantId | None:
        came_out = tenant_id
        members = list(inside(name, args, kwargs))
        if name in _RUNS_INSIDE:
            return self._called_inside(members[0], tenant_id)
        if name == "celery.chain":
            for signature in members:
                came_out = self.signature(signature, came_out)
            return came_out
        if name == "celery.chord":
            *header, body = members
            return self.signature(body, self._together(header, tenant_id))
        return self._together(members, tenant_id)

    def _together(self, signatures: Iterable[Any], tenant_id: TenantId | None) -> TenantId | None:
        came_out = {self.signature(signature, tenant_id) for signature in signatures}
        return came_out.pop() if len(came_out) == 1 else tenant_id

    def _called_inside(self, signature: Any, tenant_id: TenantId | None) -> TenantId | None:
        """Check a signature that is called in the process of ``celery.map``, whatever its options say."""
        if isinstance(signature, str):
            return self.task(signature, (), {}, tenant_id)
        if not isinstance(signature, Mapping) or not isinstance(signature.get("task"), str):
            raise UnreadableError
        if tenant_id is not None:
            self.named_in(signature.get("options") or {}, tenant_id)
        return self.task(signature["task"], signature.get("args"), signature.get("kwargs"), tenant_id)

    def _unreadable(self, name: str, tenant_id: TenantId | None) -> TenantId | None:
        if tenant_id is None:
            raise no_tenant(name)
        return tenant_id

    def _unknown_may_pass(self) -> bool:
        if self._may_be_unknown is None:
            self._may_be_unknown = no_tenant("").state == "without_tenant"
        return self._may_be_unknown


def tenant_option(options: Mapping[str, Any]) -> Any | None:
    """Return the option ``tenant``, unless it is the value of a stamp of that name."""
    if "tenant" in (options.get("stamped_headers") or ()):
        return None
    return options.get("tenant")


def _header_dicts(options: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    headers = options.get("headers")
    if not isinstance(headers, Mapping):
        return
    for name in headers:
        # The worker would find two and run neither.
        if name != HEADER and str(name).lower() == HEADER:
            raise MalformedTenantHeaderError("the option headers", f"it is spelled {shown(name)}")
    if HEADER in headers:
        yield headers
    nested = nested_headers(headers)
    if nested is not None:
        yield nested


def no_tenant(wanted: str) -> NoTenantError:
    """Return the error of something that needs a tenant here, with the state that this context is in."""
    try:
        require_tenant(wanted)
    except NoTenantError as error:
        return error
    return NoTenantError(wanted)


def needs_of_message(app: Any, task: Any, args: Any, kwargs: Any) -> str:
    """Return what a received message needs: its task's tenancy, or what the signatures inside need.

    Raises:
        ValueError: The task declares something else than the three.
    """
    name = task.name
    if name in _WITHOUT_SIGNATURES:
        return OPTIONAL
    if name not in _SIGNATURES_IN:
        return tenancy_of(task)
    try:
        Canvas(app, None, unknown=False).task(name, args, kwargs, None)
    except (TenancyError, ValueError):
        return REQUIRED
    return NONE if name in _RUNS_INSIDE and _declares_none(app, name, args, kwargs) else OPTIONAL


def _declares_none(app: Any, name: str, args: Any, kwargs: Any) -> bool:
    """Whether the task that ``celery.map`` calls in its own process is to run without a tenant."""
    signature = next(inside(name, args, kwargs))
    return tenancy_of(registered(app, signature if isinstance(signature, str) else signature["task"])) == NONE
