"""The ASGI edge on its own, driven by hand."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest
from starlette.responses import PlainTextResponse

from tenantry import current_tenant_or_none
from tenantry.context import unit_of_work
from tenantry.integrations.asgi import TenantMiddleware
from tenantry.resolvers import Header
from tests.contracts.drivers import asgi_app, ask_asgi
from tests.contracts.web import Ask, EdgeContract

TRUSTING = Header("X-Tenant", trust_client=True)


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the active tenant."""
    body = json.dumps(current_tenant_or_none()).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


def http(*headers: tuple[bytes, bytes], path: str = "/", method: str = "GET") -> dict[str, Any]:
    return {
        "type": "http",
        "method": method,
        "path": path,
        "headers": list(headers),
        "client": ("10.0.0.1", 5000),
    }


async def exchange(app: Any, scope: dict[str, Any]) -> list[dict[str, Any]]:
    """Run an app on one scope and return what it sent."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(dict(message))

    await app(scope, receive, send)
    return sent


async def ask(app: Any, scope: dict[str, Any]) -> tuple[int, Any]:
    start, *bodies = await exchange(app, scope)
    body = b"".join(each.get("body", b"") for each in bodies)
    return start["status"], json.loads(body) if body else None


async def test_request_runs_under_its_tenant() -> None:
    """A request that names a tenant runs under it, and nothing is left afterwards."""
    app = TenantMiddleware(echo, resolver=TRUSTING)
    assert await ask(app, http((b"x-tenant", b"acme"))) == (200, "acme")
    assert current_tenant_or_none() is None


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"x-tenant", b"acme"), (b"x-tenant", b"acme")],
        [(b"x-tenant", b"acme,globex")],
        [(b"x-tenant", b"acme, globex")],
        [(b"x_tenant", b"acme")],
        [(b"x-tenant", b"acme"), (b"x_tenant", b"acme")],
        [(b"x-tenant", b"acm\xe9")],
        [(b"x-tenant", b"a" * 64)],
        [(b"x-tenant", b"acme\n")],
        [(b"x-tenant", b" acme")],
        [(b"x-tenant", b"")],
        [(b"x-tenant", b"None")],
    ],
)
async def test_request_without_one_valid_id_is_refused(
    headers: Iterable[tuple[bytes, bytes]],
) -> None:
    """No id, two ids and what is no id are a 400 that echoes nothing; the app does not run."""
    app = TenantMiddleware(echo, resolver=TRUSTING)
    start, body = await exchange(app, http(*headers))
    sent = dict(start["headers"])
    assert start["status"] == 400
    assert sent[b"content-type"] == b"application/problem+json"
    assert sent[b"cache-control"] == b"no-store"
    assert json.loads(body["body"])["status"] == 400
    assert b"acm" not in body["body"]


async def test_entry_overwrites_a_stale_tenant() -> None:
    """Servers hand one request a copy of the context of another: an exempt route sees none of it."""
    app = TenantMiddleware(echo, resolver=TRUSTING, exempt=["/healthz"])
    with unit_of_work("stale"):
        assert await ask(app, http(path="/healthz")) == (200, None)
        assert current_tenant_or_none() == "stale"


class TestAsgi(EdgeContract):
    """The contract of web edges, on ASGI."""

    def edge(self, **options: Any) -> Ask:
        return ask_asgi(TenantMiddleware(asgi_app, **options))

    def respond(self, status: int, body: bytes) -> Any:
        return PlainTextResponse(body, status)
