"""What type checkers must accept, and the types that they must see. Not run; checked by mypy and pyright."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import assert_type
from uuid import UUID

from tenantry import (
    NoTenantError,
    TenantConflictError,
    TenantId,
    add_scope_hook,
    bind_tenant,
    carry_tenant,
    current_tenant,
    current_tenant_or_none,
    detached,
    keys,
    reset_tenant,
    tenant_scope,
    without_tenant,
)
from tenantry.keys import ParsedKey, key, owner_of, parse, shared_key, use_layout
from tenantry.propagation import extract, inject
from tenantry.testing import assert_isolated, assert_no_tenant, assert_requires_tenant, untenanted

# --- reading -------------------------------------------------------------------------------------

assert_type(current_tenant(), TenantId)
assert_type(current_tenant_or_none(), TenantId | None)
as_text: str = current_tenant()


# --- scopes --------------------------------------------------------------------------------------


def scopes(uuid: UUID) -> None:
    with tenant_scope("acme") as tenant_id:
        assert_type(tenant_id, TenantId)
    with tenant_scope(uuid, switch=True, in_generator=True):
        pass
    with without_tenant(reason="a job") as nothing:
        assert_type(nothing, None)
    token = bind_tenant("acme")
    assert_type(reset_tenant(token), None)


def a_scope_does_not_swallow() -> int:
    with tenant_scope("acme"), without_tenant(reason="a job"):
        return 1


async def async_scopes() -> None:
    async with tenant_scope("acme") as tenant_id:
        assert_type(tenant_id, TenantId)
    async with without_tenant(reason="a job"):
        pass


# --- decorators keep the signature ---------------------------------------------------------------


@tenant_scope("acme")
def function(a: int, *, b: str = "") -> float:
    return 1.0


@tenant_scope("acme", switch=True)
async def coroutine_function(a: int) -> str:
    return ""


@tenant_scope("acme")
def generator(a: int) -> Generator[int, str, float]:
    yield 1
    return 1.0


@without_tenant(reason="a job")
async def async_generator(a: int) -> AsyncGenerator[int, str]:
    yield 1


@without_tenant(reason="a job")
def job(a: int) -> float:
    return 1.0


class Service:
    @tenant_scope("acme")
    def method(self, a: int) -> float:
        return 1.0


assert_type(function(1, b="x"), float)
assert_type(job(1), float)
assert_type(generator(1), Generator[int, str, float])
assert_type(async_generator(1), AsyncGenerator[int, str])
assert_type(Service().method(1), float)


async def decorated() -> None:
    assert_type(await coroutine_function(1), str)


# --- carried and detached things are the same kind of thing ---------------------------------------


async def coroutine() -> int:
    return 1


def plain(a: int) -> str:
    return ""


assert_type(carry_tenant(plain)(1), str)
assert_type(carry_tenant(function)(1, b=""), float)
assert_type(detached(plain)(1), str)
assert_type(carry_tenant(generator)(1), Generator[int, str, float])
assert_type(carry_tenant(generator(1)), Generator[int, str, float])
assert_type(detached(async_generator(1)), AsyncGenerator[int, str])
assert_type(carry_tenant(functools.partial(plain, 1))(), str)
assert_type(carry_tenant(Service().method)(1), float)


async def tasks() -> None:
    assert_type(await asyncio.create_task(detached(coroutine())), int)
    assert_type(await detached(coroutine)(), int)
    assert_type(await carry_tenant(coroutine)(), int)


# --- hooks ---------------------------------------------------------------------------------------


def hook(tenant_id: TenantId) -> AbstractContextManager[None]:
    return nullcontext()


assert_type(add_scope_hook(hook), Callable[[], None])
add_scope_hook(lambda tenant_id: nullcontext(tenant_id.upper()))

# --- keys ----------------------------------------------------------------------------------------


@key("cart:{cart_id}:{line}")
def cart(cart_id: str, line: int | UUID = 0) -> str:  # type: ignore[empty-body]  # pyright: ignore[reportReturnType]
    """Hash: a line of a shopping cart."""


@shared_key("flags:{name}", reason="everybody's")
def flag(name: str) -> str:  # type: ignore[empty-body]  # pyright: ignore[reportReturnType]
    """String: a feature flag."""


@key("note:{name}")
def note(name: str) -> None:
    """String: a note. A body of nothing but a docstring returns None, which mypy insists on."""


@key("memo:{name}")
def memo(name: str) -> str:
    """String: a memo. No mark is needed where the body, which never runs, is one for both checkers."""
    raise NotImplementedError


assert_type(memo("x"), str)
assert_type(cart("42"), str)
assert_type(cart("42", UUID(int=1)), str)
assert_type(cart(cart_id="42", line=1), str)
assert_type(cart.pattern(cart_id="42"), str)
assert_type(cart.pattern(), str)
assert_type(cart.parse(b"acme:cart:42:0"), ParsedKey)
assert_type(flag("beta"), str)
assert_type(note("x"), str)
assert_type(keys.memory_short("agent", user_id="user"), str)
assert_type(keys.session("t"), str)
assert_type(keys.rate_limit.pattern(), str)

parsed = parse("acme:cart:42:0")
assert_type(parsed.tenant, TenantId | None)
assert_type(parsed.schema, str)
assert_type(parsed.parts, Mapping[str, str])
assert_type(owner_of(b"acme:cart:42:0"), TenantId | None)
use_layout("tagged")

# --- the header ----------------------------------------------------------------------------------


def headers(carrier: dict[str, object], typed: dict[str, str]) -> None:
    inject(carrier)
    inject(typed, secret_keys=["old", b"new"], task_id="1", task_name="n")
    assert_type(extract(carrier, secret_keys="one"), TenantId)
    assert_type(extract(typed), TenantId)


# --- errors --------------------------------------------------------------------------------------


def errors(no_tenant: NoTenantError, conflict: TenantConflictError) -> None:
    assert_type(no_tenant.wanted, str)
    assert_type(no_tenant.state, str)
    assert_type(conflict.active, str | None)
    assert_type(conflict.requested, str | None)


# --- test helpers --------------------------------------------------------------------------------


async def application(scope: object, receive: object, send: object) -> None: ...


async def one_async(name: str) -> str:
    return name


async def steps() -> AsyncIterator[str]:
    yield ""


def iterated() -> Iterator[str]:
    yield ""


def in_tests() -> None:
    assert_type(assert_no_tenant(), None)
    assert_isolated(cart, "42", tenants=("a", UUID(int=1)))
    assert_isolated(iterated)
    assert_isolated(lambda: {"x": cart("42")})
    assert_type(assert_requires_tenant(plain, 1), NoTenantError)
    assert_type(assert_isolated(one_async, "x"), Awaitable[None])
    assert_type(assert_isolated(steps), Awaitable[None])
    assert_type(assert_requires_tenant(one_async, "x"), Awaitable[NoTenantError])
    assert_type(untenanted(Service()), Service)


async def in_async_tests() -> None:
    await assert_isolated(one_async, "x")
    error = await assert_requires_tenant(one_async, "x")
    assert_type(error, NoTenantError)
    await untenanted(application)({}, None, None)
