"""The WSGI edge on its own, driven by hand."""

from __future__ import annotations

from typing import Any

from werkzeug.wrappers import Response

from tenantry.integrations.wsgi import TenantMiddleware
from tests.contracts.drivers import ask_wsgi, wsgi_app
from tests.contracts.web import Ask, EdgeContract


class TestWsgi(EdgeContract):
    """The contract of web edges, on WSGI."""

    def edge(self, **options: Any) -> Ask:
        return ask_wsgi(TenantMiddleware(wsgi_app, **options))

    def respond(self, status: int, body: bytes) -> Any:
        return Response(body, status)
