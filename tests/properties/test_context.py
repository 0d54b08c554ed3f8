"""Scopes in any order: no tenant is ever active whose scope is not open, and mistakes end with none."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from tenantry import (
    NoTenantError,
    ScopeOrderError,
    TenantConflictError,
    bind_tenant,
    current_tenant,
    current_tenant_or_none,
    reset_tenant,
    tenant_scope,
    without_tenant,
)
from tenantry.context import get_state, unit_of_work

TENANTS = st.sampled_from(["acme", "globex", "initech"])
NEVER_SET: tuple[str, str | None] = ("never set", None)


Active = tuple[str, str | None]


class Open:
    """A scope or unit of work as the model sees it: how to leave it, and what it replaced."""

    def __init__(
        self, leave: Callable[[], None], before: Active, owner: Open | None, *, is_token: bool, is_unit: bool
    ) -> None:
        self.leave = leave
        self.before = before
        self.owner = owner
        self.is_token = is_token
        self.is_unit = is_unit
        self.is_left = False


class Scopes(RuleBasedStateMachine):
    """Enters and leaves scopes of one context in any order, beside a model of what should be active.

    Units of work are left in order among themselves, as the ``with`` blocks of edges are, whatever scopes
    are open inside.
    """

    opened = Bundle("opened")
    used = Bundle("used")

    def __init__(self) -> None:
        super().__init__()
        self.context = contextvars.Context()
        self.model: Active = NEVER_SET
        self.owner: Open | None = None
        self.alive: list[Open] = []

    def run(self, function: Callable[[], Any]) -> Any:
        return self.context.run(function)

    @invariant()
    def what_is_active_is_what_the_model_says(self) -> None:
        kind, tenant = self.model
        assert self.run(current_tenant_or_none) == tenant
        assert self.run(get_state).kind == kind
        if tenant is None:
            with pytest.raises(NoTenantError) as caught:
                self.run(current_tenant)
            assert caught.value.state == kind

    @invariant()
    def a_tenant_is_active_only_while_its_scope_is_open(self) -> None:
        assert self.model[1] is None or self.alive

    def push(
        self, leave: Callable[[], None], after: Active, *, is_token: bool = False, is_unit: bool = False
    ) -> Open:
        scope = Open(leave, self.model, self.owner, is_token=is_token, is_unit=is_unit)
        self.model, self.owner = after, scope
        self.alive.append(scope)
        return scope

    def restore(self, scope: Open) -> None:
        self.model, self.owner = scope.before, scope.owner
        if self.owner is not None and self.owner.is_left:  # found now: a mistake like any other
            self.model, self.owner = NEVER_SET, None
            del self.alive[self.innermost_unit() + 1 :]

    def is_conflict(self, tenant: str) -> bool:
        return self.model[1] not in (None, tenant)

    @rule(target=opened, tenant=TENANTS)
    def enter_switched(self, tenant: str) -> Open:
        scope = tenant_scope(tenant, switch=True)
        self.run(scope.__enter__)
        return self.push(lambda: scope.__exit__(None, None, None), ("tenant", tenant))

    @rule(target=opened, tenant=TENANTS)
    def bind(self, tenant: str) -> Any:
        if self.is_conflict(tenant):
            with pytest.raises(TenantConflictError):
                self.run(lambda: bind_tenant(tenant))
            return self.push_nothing()
        token = self.run(lambda: bind_tenant(tenant))
        return self.push(lambda: reset_tenant(token), ("tenant", tenant), is_token=True)

    @rule(target=opened)
    def push_nothing(self) -> Open:
        scope = without_tenant(reason="a property")
        self.run(scope.__enter__)
        return self.push(lambda: scope.__exit__(None, None, None), ("without_tenant", None))

    @rule(tenant=TENANTS)
    def entering_another_tenant_unasked_is_a_conflict(self, tenant: str) -> None:
        if self.is_conflict(tenant):
            with pytest.raises(TenantConflictError):
                self.run(tenant_scope(tenant).__enter__)

    @rule(tenant=st.one_of(st.none(), TENANTS))
    def begin_unit(self, tenant: str | None) -> None:
        unit = unit_of_work(tenant)
        self.run(unit.__enter__)
        after = ("explicitly none", None) if tenant is None else ("tenant", tenant)
        self.push(lambda: unit.__exit__(None, None, None), after, is_unit=True)

    @rule()
    def end_unit(self) -> None:
        """It restores exactly what was there, whatever was left open inside."""
        index = self.innermost_unit()
        if index >= 0:
            unit = self.alive[index]
            self.run(unit.leave)
            del self.alive[index:]
            self.restore(unit)

    def innermost_unit(self) -> int:
        return max((index for index, scope in enumerate(self.alive) if scope.is_unit), default=-1)

    @rule(target=used, scope=consumes(opened))
    def leave(self, scope: Open) -> Open:
        if scope not in self.alive:  # an earlier mistake, or the end of its unit, has ended it: silent
            self.run(scope.leave)
        elif scope is self.alive[-1]:
            self.run(scope.leave)
            self.alive.pop()
            self.restore(scope)
        elif self.alive.index(scope) < self.innermost_unit():  # the unit that runs is left alone
            self.run(scope.leave)
            self.alive.remove(scope)
        else:
            with pytest.raises(ScopeOrderError):
                self.run(scope.leave)
            del self.alive[self.innermost_unit() + 1 :]
            self.model, self.owner = NEVER_SET, None
        scope.is_left = True
        return scope

    @rule(scope=used)
    def leave_again(self, scope: Open) -> None:
        with pytest.raises(ScopeOrderError):
            self.run(scope.leave)

    @rule(scope=opened)
    def leave_in_a_copy_of_the_context(self, scope: Open) -> None:
        """Only tokens may be tried elsewhere and still be good here; a scope's exit is used up."""
        if not scope.is_token:
            return
        copy = self.run(contextvars.copy_context)
        before = copy.run(get_state)
        with pytest.raises(ScopeOrderError):
            copy.run(scope.leave)
        assert copy.run(get_state) is before


TestScopes = Scopes.TestCase
TestScopes.settings = settings(max_examples=100, stateful_step_count=30)
