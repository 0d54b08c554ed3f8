"""FastAPI: the active tenant as a dependency. The tenant itself enters through the ASGI edge.

*Enters*: through :class:`tenantry.integrations.asgi.TenantMiddleware`.
*Leaves*: nowhere; :data:`ActiveTenant` only reads.
*Runs bound*: endpoints, synchronous ones too, dependencies, background tasks and streamed bodies.
*Tested with*: FastAPI 0.165.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

from tenantry.context import require_tenant
from tenantry.ids import TenantId

try:
    from fastapi import Depends
except ModuleNotFoundError as error:
    if error.name != "fastapi":
        raise
    raise ImportError(
        "tenantry.integrations.fastapi needs FastAPI: pip install tenantry[fastapi]", name="fastapi"
    ) from error

__all__ = ["ActiveTenant"]


async def _active_tenant() -> TenantId:
    # Asynchronous, so that it runs in the context of the request rather than in a thread's copy of it.
    return require_tenant("ActiveTenant")


ActiveTenant: TypeAlias = Annotated[TenantId, Depends(_active_tenant)]
"""The active tenant, as the annotation of an endpoint's or a dependency's parameter.

Raises:
    NoTenantError: None is active; an endpoint that needs one must not be exempt or optional.
"""
