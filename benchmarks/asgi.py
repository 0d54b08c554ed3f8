"""What the ASGI edge costs per request: CPU time over a bare Starlette app, in one process, side by side.

Each app answers the same request with eight headers, driven in one task without a server; blocks of
requests alternate between the apps. starlette-context and asgi-correlation-id stand beside it.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import sys
import time
from collections.abc import Iterator
from typing import Any

import jwt
from asgi_correlation_id import CorrelationIdMiddleware
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette_context.middleware import RawContextMiddleware
from starlette_context.plugins import RequestIdPlugin

from benchmarks.measure import Row
from tenantry.integrations.asgi import TenantMiddleware
from tenantry.lookup import Lookup
from tenantry.resolvers import AllAgree, Claim, Header

BLOCK = 500
ROUNDS = 25
BARE, TRUSTED = "bare Starlette", "trusted header"
SECRET = "a secret key of more than thirty-two bytes"
REQUEST_ID = b"77b1bb1f-0c6a-4b2a-b4f5-2d8e5f9b4c1d"
TOKEN = jwt.encode({"tenant": "acme"}, SECRET, algorithm="HS256").encode()
HEADERS = [
    (b"host", b"example.com"),
    (b"user-agent", b"benchmark/1.0"),
    (b"accept", b"*/*"),
    (b"accept-encoding", b"gzip, deflate"),
    (b"connection", b"keep-alive"),
    (b"x-request-id", REQUEST_ID),
    (b"authorization", b"Bearer " + TOKEN),
    (b"x-tenant", b"acme"),
]


async def endpoint(request: Any) -> PlainTextResponse:
    return PlainTextResponse("ok")


# asgi-correlation-id loads its Sentry extension where sentry-sdk is installed; the figures are without.
sys.modules.setdefault("sentry_sdk", None)  # type: ignore[arg-type]


def bare() -> Any:
    return Starlette(routes=[Route("/", endpoint)])


def apps() -> dict[str, Any]:
    def wrapped(**options: Any) -> Any:
        return TenantMiddleware(bare(), **options)

    def yes(request: Any, tenant_id: str) -> bool:
        return True

    async def later(request: Any, tenant_id: str) -> bool:
        return True

    trusting = Header("X-Tenant", trust_client=True)
    claim = Claim("tenant", key=SECRET, algorithms=["HS256"])
    return {
        BARE: bare(),
        TRUSTED: wrapped(resolver=trusting),
        "header + verify": wrapped(resolver=Header("X-Tenant", verify=yes)),
        "header + async verify": wrapped(resolver=Header("X-Tenant", verify=later)),
        "header + lookup": wrapped(resolver=trusting, lookup=Lookup(len)),
        "header + verify + lookup": wrapped(resolver=Header("X-Tenant", verify=yes), lookup=Lookup(len)),
        "claim (HS256)": wrapped(resolver=claim),
        "header and claim agree": wrapped(resolver=AllAgree(trusting, claim)),
        "starlette-context, raw": RawContextMiddleware(bare()),
        "starlette-context, raw + request id": RawContextMiddleware(bare(), plugins=(RequestIdPlugin(),)),
        "asgi-correlation-id": CorrelationIdMiddleware(bare(), header_name="X-Request-ID"),
    }


def scope() -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "root_path": "",
        "headers": list(HEADERS),
        "client": ("127.0.0.1", 5000),
        "server": ("127.0.0.1", 80),
    }


async def receive() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(message: Any) -> None:
    if message.get("status", 200) != 200:
        raise AssertionError(message)


async def block(app: Any) -> float:
    scopes = [scope() for _ in range(BLOCK)]
    gc.collect()
    gc.disable()
    try:
        start = time.process_time()
        for each in scopes:
            await app(each, receive, send)
        return (time.process_time() - start) / BLOCK
    finally:
        gc.enable()


async def measure() -> dict[str, list[float]]:
    """Return the seconds per request of each stack, block by block; the stacks take turns."""
    stacks = apps()
    times: dict[str, list[float]] = {name: [] for name in stacks}
    for app in stacks.values():
        await block(app)
    for _ in range(ROUNDS):
        for name, app in stacks.items():
            times[name].append(await block(app))
    return times


def rows() -> Iterator[Row]:
    times = asyncio.run(measure())
    base = statistics.median(times[BARE]) * 1e6
    for name, taken in times.items():
        if name != BARE:
            target = 1.15 if name == TRUSTED else None
            # Of the ratios, block by block: what else the machine does falls on both halves of each.
            ratio = statistics.median(mine / plain for mine, plain in zip(taken, times[BARE], strict=True))
            yield Row(f"ASGI request, {name}", ratio * base, base, unit="us", target=target)
