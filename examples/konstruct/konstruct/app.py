"""The ASGI application: the one place where a tenant enters over HTTP."""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool

from konstruct import database, page, router
from konstruct.settings import settings
from tenantry import InvalidKeyPartError
from tenantry.integrations.asgi import TenantMiddleware
from tenantry.resolvers import Header


def may_act_for(request: Any, claimed: str) -> bool:
    """Whether the bearer token of the request belongs to the tenant that the request names."""
    expected = settings.tokens.get(claimed)
    given = request.headers.get("authorization") or ""
    return expected is not None and hmac.compare_digest(given.encode(), f"Bearer {expected}".encode())


def exempt(request: Any) -> bool:
    """Probes and the demonstration page belong to no tenant."""
    return request.path == "/health" or (settings.page and page.owns(request.path))


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Refuse to start on a database that would not keep tenants apart."""
    await run_in_threadpool(database.ready)
    yield


app = TenantMiddleware(
    Starlette(
        routes=[*router.routes, *(page.routes if settings.page else ())],
        exception_handlers={InvalidKeyPartError: router.bad_id},
        lifespan=lifespan,
    ),
    resolver=Header("X-Tenant", verify=may_act_for),
    exempt=exempt,
)
