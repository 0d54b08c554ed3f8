"""How a live object becomes guarded: its class is exchanged for a subclass of itself.

A subclass survives ``copy``, ``client.client()`` and whatever else makes a second object of the same
class, stays an instance of what it was, and needs nothing of a constructor that may drop arguments. All
guarded classes of one client hang on its ``Policy``.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol

from tenantry.context import current_tenant_or_none, unit_of_work
from tenantry.errors import CrossTenantError
from tenantry.integrations.redis.encoding import utf8
from tenantry.integrations.redis.quick import OwnTenant, Quick, never

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tenantry.integrations.redis.encoding import Encode

from tenantry.integrations.redis.rules import Rule

__all__ = ["Policy", "Seat", "acting_for", "policy_of"]


_NOT_COPIED: Final = frozenset(("__module__", "__doc__", "__dict__", "__weakref__", "__annotations__"))


_BASES: Final = {"execute_command": "_tenantry_execute", "pack_command": "_tenantry_pack"}


class Adopt(Protocol):
    """Makes an object guarded, in place, and returns it."""

    def __call__(self, target: Any, policy: Policy, /) -> Any: ...


class Seat:
    """The methods that a guarded class adds to a class of redis-py's.

    They are copied into a subclass with that single base: with two bases, Python would not let a live
    object change to it. Hence ``_tenantry_base()`` in the place of ``super()``.
    """

    _tenantry: Policy
    _tenantry_seat: type

    def _tenantry_base(self) -> Any:
        return super(self._tenantry_seat, self)

    @staticmethod
    def _tenantry_made_for(policy: Policy, base: Any) -> dict[str, Any]:
        """Methods that are made for one policy and base."""
        return {}


class Policy:
    """What all guarded objects of one client share: the declared commands, and their classes.

    ``encode`` is how its connections encode text, once ``guard`` has looked at one; ``own_tenant`` is the
    quick yes where that is UTF-8.
    """

    def __init__(self, adopt: Adopt) -> None:
        self.declared: Final[dict[str, Rule]] = {}
        self.encode: Encode = utf8
        self.quick: Final = Quick()
        self.own_tenant: OwnTenant = self.quick.own_tenant
        self._adopt: Final = adopt
        self._classes: Final[dict[tuple[type, type[Seat]], type]] = {}
        self._lock: Final = threading.Lock()

    def encodes_with(self, encode: Encode) -> None:
        """Judge calls by the bytes that its connections will make of their text."""
        self.encode = encode
        self.own_tenant = self.quick.own_tenant if encode is utf8 else never

    def declare(self, rules: Mapping[str, Rule]) -> None:
        """Add the rules of the option ``commands=``."""
        self.declared.update(rules)
        self.quick.declare(rules)

    def seat(self, target: Any, seat: type[Seat]) -> Any:
        """Exchange the class of ``target`` for its guarded subclass."""
        target.__class__ = self.class_of(type(target), seat)
        return target

    def class_of(self, base: type, seat: type[Seat]) -> type:
        """The subclass of ``base`` with the methods of ``seat``, one per policy."""
        with self._lock:
            found = self._classes.get((base, seat))
            if found is None:
                found = self._classes[base, seat] = self._new_class(base, seat)
        return found

    def _new_class(self, base: type, seat: type[Seat]) -> type:
        body: dict[str, Any] = {"__slots__": (), "__module__": base.__module__, "__doc__": base.__doc__}
        for part in reversed(seat.__mro__[:-1]):
            body |= {name: value for name, value in vars(part).items() if name not in _NOT_COPIED}
        for name in body.keys() & _BASES.keys():  # what is called for every command, without super()
            body[_BASES[name]] = getattr(base, name)
        body |= seat._tenantry_made_for(self, base)
        guarded = type(base.__name__, (base,), {**body, "_tenantry": self})
        guarded._tenantry_seat = guarded  # type: ignore[attr-defined]
        return guarded

    def adopt(self, target: Any) -> Any:
        """Guard what redis-py has just made."""
        return self._adopt(target, self) if policy_of(target) is None else target


def policy_of(target: object) -> Policy | None:
    """The policy of a guarded object, or ``None``."""
    return getattr(type(target), "_tenantry", None)


@contextmanager
def acting_for(owner: str | None, command: str, what: str) -> Iterator[None]:
    """Run the body for ``owner``: as it is under that tenant, bound where none is active.

    Args:
        owner: The tenant that the object remembers, or ``None`` for one that remembers none.
        command: The command that it is about to send, for the error.
        what: What it is, for the error.

    Raises:
        CrossTenantError: Another tenant is active.
    """
    active = current_tenant_or_none()
    if owner is None or active == owner:
        yield
    elif active is None:
        with unit_of_work(owner):
            yield
    else:
        raise other_tenant(command, active, what)


def other_tenant(command: str, active: str, what: str) -> CrossTenantError:
    """The error for an object that belongs to another tenant than the active one."""
    return CrossTenantError(
        command,
        None,
        active,
        f"this {what} belongs to another tenant; make one under the tenant that it is for",
    )
