"""A shopping cart for many shops, on Django in one file. No function here takes a tenant id.

Run it and get a token for the tenant acme (the secret is your identity provider's business):

    pip install "tenantry[django,jwt]"
    export JWT_SECRET=a-secret-of-at-least-thirty-two-bytes
    python app.py runserver
    TOKEN=$(python -c 'import jwt, os; print(jwt.encode({"tenant": "acme"}, os.environ["JWT_SECRET"]))')
    curl -X POST -H "Authorization: Bearer $TOKEN" localhost:8000/carts/42/items/apple
"""

import os
import sys
from collections import defaultdict

from django.conf import settings
from django.core.management import execute_from_command_line
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path

from tenantry import current_tenant
from tenantry.keys import key
from tenantry.lookup import Lookup
from tenantry.resolvers import Claim

SHOPS = {"acme": {"active": True}, "globex": {"active": True}, "initech": {"active": False}}
CARTS: dict[str, list[str]] = defaultdict(list)  # stands for Redis
settings.configure(
    ALLOWED_HOSTS=["localhost"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=["tenantry.integrations.django.TenantMiddleware"],
    TENANTRY={
        "RESOLVER": Claim("tenant", key=os.environ["JWT_SECRET"], algorithms=["HS256"]),
        "LOOKUP": Lookup(SHOPS.get, active=lambda shop: shop["active"]),
        "EXEMPT": ["/healthz"],
    },
)


@key("cart:{cart_id}")
def cart(cart_id: str) -> str:
    """List: what lies in one cart."""


def add(request: HttpRequest, cart_id: str, item: str) -> JsonResponse:
    CARTS[cart(cart_id)].append(item)
    return JsonResponse({"tenant": current_tenant(), "key": cart(cart_id), "items": CARTS[cart(cart_id)]})


urlpatterns = [
    path("healthz", lambda request: JsonResponse({"status": "ok"})),
    path("carts/<str:cart_id>/items/<str:item>", add),
]
if __name__ == "__main__":
    execute_from_command_line(sys.argv)
else:
    application = get_wsgi_application()
