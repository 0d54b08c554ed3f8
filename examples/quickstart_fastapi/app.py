"""A shopping cart for many shops, on FastAPI. No function here takes a tenant id.

Run it and get a token for the tenant acme (the secret is your identity provider's business):

    pip install "tenantry[fastapi,jwt]" uvicorn
    export JWT_SECRET=a-secret-of-at-least-thirty-two-bytes
    uvicorn app:app
    TOKEN=$(python -c 'import jwt, os; print(jwt.encode({"tenant": "acme"}, os.environ["JWT_SECRET"]))')
    curl -X POST -H "Authorization: Bearer $TOKEN" localhost:8000/carts/42/items/apple
"""

import os
from collections import defaultdict

from fastapi import FastAPI

from tenantry.integrations.asgi import TenantMiddleware
from tenantry.integrations.fastapi import ActiveTenant
from tenantry.keys import key
from tenantry.lookup import Lookup
from tenantry.resolvers import Claim

SHOPS = {"acme": {"active": True}, "globex": {"active": True}, "initech": {"active": False}}
CARTS: dict[str, list[str]] = defaultdict(list)  # stands for Redis


@key("cart:{cart_id}")
def cart(cart_id: str) -> str:
    """List: what lies in one cart."""


api = FastAPI()


@api.get("/healthz")
def healthz() -> dict[str, str]:
    return {"status": "ok"}


@api.post("/carts/{cart_id}/items/{item}")
async def add(cart_id: str, item: str, tenant: ActiveTenant) -> dict[str, object]:
    CARTS[cart(cart_id)].append(item)
    return {"tenant": tenant, "key": cart(cart_id), "items": CARTS[cart(cart_id)]}


# Outside of FastAPI, so that its handler of unexpected errors runs under the tenant as well.
app = TenantMiddleware(
    api,
    resolver=Claim("tenant", key=os.environ["JWT_SECRET"], algorithms=["HS256"]),
    lookup=Lookup(SHOPS.get, active=lambda shop: shop["active"]),
    exempt=["/healthz", "/docs", "/openapi.json"],
)
