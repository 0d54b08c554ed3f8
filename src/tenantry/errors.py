"""Every error that leaves tenantry.

All of an error's data is in ``args`` and every constructor takes it by position, so an error keeps
its data through :mod:`pickle`, :mod:`copy` and result stores that rebuild an exception from
``cls(*args)``. The message says what happened and what to do; it is made from the data on demand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "BadTenantSignatureError",
    "CrossTenantError",
    "InvalidKeyPartError",
    "InvalidTenantIdError",
    "KeySchemaError",
    "MalformedTenantHeaderError",
    "MissingTenantHeaderError",
    "NoTenantError",
    "PropagationError",
    "ResolutionError",
    "ScopeOrderError",
    "TenancyError",
    "TenantConflictError",
    "UnknownCommandError",
    "shown",
]

_SHOWN_LIMIT = 40


def _cut(text: str) -> str:
    """Return ``text``, at most 40 characters long, so that a message stays a line."""
    return text if len(text) <= _SHOWN_LIMIT else text[: _SHOWN_LIMIT - 1] + "…"


def _value(value: object) -> str:
    """Return what an error's ``value`` is: a ``repr`` that :func:`shown` made, or what it makes of others."""
    return _cut(value) if type(value) is str else shown(value)


def shown(value: object) -> str:
    """Return how a refused value appears in errors: its ``repr``, cut at 40 characters.

    A subclass of ``str`` or ``bytes`` is shown as its underlying value, and an object whose ``repr``
    fails by the name of its type: showing a bad value never raises.
    """
    kind = type(value)
    # Cut first: the repr of a megabyte costs a megabyte.
    if issubclass(kind, str):
        return _cut(repr(str.__getitem__(cast("str", value), slice(_SHOWN_LIMIT))))
    if issubclass(kind, bytes):
        return _cut(repr(bytes.__getitem__(cast("bytes", value), slice(_SHOWN_LIMIT))))
    try:
        return _cut(repr(value))
    except Exception:  # noqa: BLE001 - a foreign repr may raise anything, and the refusal must still be told
        return _cut(f"<{kind.__name__}>")


class TenancyError(Exception):
    """Base of every error that tenantry raises on purpose."""


class NoTenantError(TenancyError, LookupError):
    """Something needs a tenant and none is active here.

    Attributes:
        wanted: The function or command that asked, e.g. ``"memory_short"``.
        state: Why there is none: ``"never set"``, ``"explicitly none"``, ``"without_tenant"``, or,
            for a database, ``"outside a transaction"``.
    """

    _CURES: Final = {
        "never set": (
            "no tenant was ever set in this context. Enter one with tenant_scope(...), or wrap what "
            "you hand to a thread or an executor in carry_tenant(...)"
        ),
        "explicitly none": (
            "the request, task or message that this code runs for named no tenant. Let its edge "
            "resolve one, declare the task's tenancy, or enter tenant_scope(...)"
        ),
        "without_tenant": (
            "this code runs inside without_tenant(...), which is deliberate. Enter tenant_scope(...) "
            "inside it for the tenant that this call is about, or declare a shared key"
        ),
        "outside a transaction": (
            "it runs outside a transaction (AUTOCOMMIT), where the setting that row-level security reads is gone "
            "at once and the policies would silently show nothing. Run it in a transaction; what cannot run in "
            "one (VACUUM, CREATE DATABASE) belongs to an engine without tenantry"
        ),
    }

    def __init__(self, wanted: str, state: str = "never set") -> None:
        super().__init__(wanted, state)
        self.wanted = wanted
        self.state = state

    def __str__(self) -> str:
        cure = self._CURES.get(self.state, "enter one with tenant_scope(...)")
        return f"{self.wanted} needs an active tenant: {cure}."


class TenantConflictError(TenancyError, RuntimeError):
    """One tenant was asked for while another is active, or a message names two.

    Attributes:
        active: The tenant that is active, or ``None``.
        requested: The tenant that was asked for, or ``None``.
        cure: What to do where that is not the usual, or ``""``.
    """

    def __init__(self, active: str | None, requested: str | None, cure: str = "") -> None:
        super().__init__(active, requested, *filter(None, [cure]))
        self.active = active
        self.requested = requested
        self.cure = cure

    def __str__(self) -> str:
        active = "no tenant" if self.active is None else f"tenant {shown(self.active)}"
        requested = "no tenant" if self.requested is None else f"tenant {shown(self.requested)}"
        cure = self.cure or (
            'Leave the active scope first, or say that the switch is meant: tenant_scope("…", switch=True).'
        )
        return f"{requested} was asked for while {active} is active. {cure}"


class ScopeOrderError(TenancyError, RuntimeError):
    """Scopes were not left in the order in which they were entered, or stand where they cannot hold.

    Attributes:
        expected: What should have been active, or should have been used.
        found: What was there instead.
    """

    def __init__(self, expected: str, found: str) -> None:
        super().__init__(expected, found)
        self.expected = expected
        self.found = found

    def __str__(self) -> str:
        return f"expected {self.expected}, found {self.found}."


class InvalidTenantIdError(TenancyError, ValueError):
    """A value cannot be a tenant id.

    Attributes:
        value: The refused value's ``repr``, cut at 40 characters.
        rule: The rule that it breaks.
    """

    def __init__(self, value: object, rule: str) -> None:
        self.value = _value(value)
        self.rule = rule
        super().__init__(self.value, rule)

    def __str__(self) -> str:
        return (
            f"{self.value} is not a tenant id: {self.rule}. Pass the tenant's own id as str or uuid.UUID; "
            "for work that belongs to no tenant use without_tenant(reason=...)."
        )


class ResolutionError(TenancyError):
    """A request's tenant could not be resolved; edges answer with a problem document.

    Attributes:
        status: HTTP status code of the answer.
        title: Short, fixed text for the client; never the input.
        tried: Names of the sources that were asked, in order.
        detail: More for the client, or ``""``; never the input.
    """

    def __init__(self, status: int, title: str, tried: Iterable[str] = (), detail: str = "") -> None:
        self.status = status
        self.title = title
        self.tried = tuple(tried)
        self.detail = detail
        super().__init__(status, title, self.tried, detail)

    def __str__(self) -> str:
        tried = f" (tried: {', '.join(self.tried)})" if self.tried else ""
        detail = f": {self.detail}" if self.detail else ""
        return f"{self.status} {self.title}{detail}{tried}"


class PropagationError(TenancyError):
    """A message's tenant header cannot be trusted.

    Attributes:
        carrier: Which message or header.
        detail: What is wrong with it, without its content.
    """

    _WHAT = "the tenant header cannot be used"
    _CURE = "publish it through a process on which tenantry is installed"

    def __init__(self, carrier: str, detail: str = "") -> None:
        super().__init__(carrier, detail)
        self.carrier = carrier
        self.detail = detail

    def __str__(self) -> str:
        detail = f" ({self.detail})" if self.detail else ""
        return f"{self.carrier}: {self._WHAT}{detail}; {self._CURE}."


class MissingTenantHeaderError(PropagationError):
    """There is no tenant header where one is needed."""

    _WHAT = "there is no tenant header"
    _CURE = "publish it under tenant_scope(...), through a process on which tenantry is installed"


class MalformedTenantHeaderError(PropagationError):
    """There is a tenant header, and it is not of the one form that is accepted."""

    _WHAT = "the tenant header is malformed"
    _CURE = "it has to be one text, 'v1;<tenant>' or 'v1;<tenant>;<signature>', as inject() writes it"


class BadTenantSignatureError(PropagationError):
    """Secret keys are set and the header's signature is absent or does not fit this message."""

    _WHAT = "the tenant header is not signed by any of the secret keys for this message"
    _CURE = "give publisher and worker the same secret_keys, and publish anew rather than copy a header"


class KeySchemaError(TenancyError, ValueError):
    """A key schema cannot be declared, or a key belongs to no declared schema.

    Attributes:
        schema: The schema or key that is refused.
        other: The schema that it meets, or ``None``.
        reason: What is wrong and what to do.
    """

    def __init__(self, schema: str, other: str | None = None, reason: str = "") -> None:
        super().__init__(schema, other, reason)
        self.schema = schema
        self.other = other
        self.reason = reason

    def __str__(self) -> str:
        other = f" and {self.other}" if self.other else ""
        return f"{self.schema}{other}: {self.reason or 'the key schema is not valid'}."


class InvalidKeyPartError(TenancyError, ValueError):
    """A value cannot be a part of a key.

    Attributes:
        function: The key function that was called.
        part: The placeholder that the value was for.
        value: The refused value's ``repr``, cut at 40 characters.
        rule: The rule that it breaks.
    """

    def __init__(self, function: str, part: str, value: object, rule: str = "") -> None:
        self.function = function
        self.part = part
        self.value = _value(value)
        self.rule = rule
        super().__init__(function, part, self.value, rule)

    def __str__(self) -> str:
        rule = self.rule or "it cannot be a part of a key"
        return (
            f"{self.function}({self.part}={self.value}): {rule}. Pass a non-empty str, an int or a uuid.UUID."
        )


class _CommandError(TenancyError):
    """What the refusals of the guard have in common."""

    def __init__(self, command: str, position: int | None, tenant: str | None, detail: str = "") -> None:
        super().__init__(command, position, tenant, detail)
        self.command = command
        self.position = position
        self.tenant = tenant
        self.detail = detail


class CrossTenantError(_CommandError):
    """A command would touch what does not belong to the active tenant. Nothing was sent.

    Attributes:
        command: The command's name.
        position: Where the refused argument stands, counted as Redis counts (the command is 0), or ``None``.
        tenant: The tenant that is active, or ``None``.
        detail: What is wrong and what to do, without the key.
    """

    def __str__(self) -> str:
        where = "" if self.position is None else f", argument {self.position}"
        detail = self.detail or "it does not belong to the active tenant; build the key with a key function"
        return f"{self.command}{where} refused for {_named(self.tenant)}: {detail}."


class UnknownCommandError(_CommandError):
    """Where the keys of a command stand is not known, so it is refused. Nothing was sent.

    Attributes:
        command: The command's name.
        position: ``None``, or where the guard stopped reading.
        tenant: The tenant that is active, or ``None``.
        detail: What to do instead of the general advice, or ``""``.
    """

    def __str__(self) -> str:
        detail = self.detail or (
            f"where its keys stand is not known; say so with guard(client, commands={{{self.command!r}: 1}})"
        )
        return f"{self.command} refused for {_named(self.tenant)}: {detail}."


def _named(tenant: str | None) -> str:
    return "no tenant" if tenant is None else f"tenant {shown(tenant)}"
