"""The ASGI application: the one place where a tenant enters over HTTP."""

from __future__ import annotations

import hmac
from typing import Any

from starlette.applications import Starlette

from konstruct.router import routes
from konstruct.settings import settings
from tenantry.integrations.asgi import TenantMiddleware
from tenantry.resolvers import Header


def may_act_for(request: Any, claimed: str) -> bool:
    """Whether the bearer token of the request belongs to the tenant that the request names."""
    expected = settings.tokens.get(claimed)
    given = request.headers.get("authorization") or ""
    return expected is not None and hmac.compare_digest(given, f"Bearer {expected}")


app = TenantMiddleware(
    Starlette(routes=routes),
    resolver=Header("X-Tenant", verify=may_act_for),
    exempt=("/health",),
)
