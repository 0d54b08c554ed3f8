"""A shopping cart for many shops, on Flask. No function here takes a tenant id.

Run it and get a token for the tenant acme (the secret is your identity provider's business):

    pip install "tenantry[flask,jwt]"
    export JWT_SECRET=a-secret-of-at-least-thirty-two-bytes
    flask run
    TOKEN=$(python -c 'import jwt, os; print(jwt.encode({"tenant": "acme"}, os.environ["JWT_SECRET"]))')
    curl -X POST -H "Authorization: Bearer $TOKEN" localhost:5000/carts/42/items/apple
"""

import os
from collections import defaultdict

from flask import Flask

from tenantry import current_tenant
from tenantry.integrations.flask import init_app
from tenantry.keys import key
from tenantry.lookup import Lookup
from tenantry.resolvers import Claim

SHOPS = {"acme": {"active": True}, "globex": {"active": True}, "initech": {"active": False}}
CARTS: dict[str, list[str]] = defaultdict(list)  # stands for Redis


@key("cart:{cart_id}")
def cart(cart_id: str) -> str:
    """List: what lies in one cart."""


app = Flask(__name__)
init_app(
    app,
    resolver=Claim("tenant", key=os.environ["JWT_SECRET"], algorithms=["HS256"]),
    lookup=Lookup(SHOPS.get, active=lambda shop: shop["active"]),
    exempt=["/healthz"],
)


@app.get("/healthz")
def healthz() -> dict[str, str]:
    return {"status": "ok"}


@app.post("/carts/<cart_id>/items/<item>")
def add(cart_id: str, item: str) -> dict[str, object]:
    CARTS[cart(cart_id)].append(item)
    return {"tenant": current_tenant(), "key": cart(cart_id), "items": CARTS[cart(cart_id)]}
