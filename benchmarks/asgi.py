"""What the ASGI edge costs per request: CPU time over a bare Starlette app, in one process, side by side.

``python -m benchmarks.asgi``. Each app answers the same request, eight headers, an in-process driver in
one task; blocks of requests alternate between the apps, and the figure is the median of the blocks.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import sys
import time
from typing import Any

import jwt
from asgi_correlation_id import CorrelationIdMiddleware
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette_context.middleware import RawContextMiddleware
from starlette_context.plugins import RequestIdPlugin

from tenantry.integrations.asgi import TenantMiddleware
from tenantry.lookup import Lookup
from tenantry.resolvers import AllAgree, Claim, Header

BLOCK = 1000
ROUNDS = 40
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
        "bare Starlette": bare(),
        "tenantry, trusted header": wrapped(resolver=trusting),
        "tenantry, header + verify": wrapped(resolver=Header("X-Tenant", verify=yes)),
        "tenantry, header + async verify": wrapped(resolver=Header("X-Tenant", verify=later)),
        "tenantry, header + lookup": wrapped(resolver=trusting, lookup=Lookup(len)),
        "tenantry, header + verify + lookup": wrapped(
            resolver=Header("X-Tenant", verify=yes), lookup=Lookup(len)
        ),
        "tenantry, claim (HS256)": wrapped(resolver=claim),
        "tenantry, header and claim agree": wrapped(resolver=AllAgree(trusting, claim)),
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


async def measure(rounds: int) -> dict[str, tuple[float, float]]:
    """Return microseconds and the ratio to the bare app, per stack."""
    stacks = apps()
    times: dict[str, list[float]] = {name: [] for name in stacks}
    for app in stacks.values():
        await block(app)
    for _ in range(rounds):
        for name, app in stacks.items():
            times[name].append(await block(app))
    base = times["bare Starlette"]
    return {
        name: (
            statistics.median(taken) * 1e6,
            statistics.median(mine / plain for mine, plain in zip(taken, base, strict=True)),
        )
        for name, taken in times.items()
    }


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    print(f"ASGI, CPU per request, median of {rounds} blocks of {BLOCK}")
    for name, (microseconds, ratio) in asyncio.run(measure(rounds)).items():
        print(f"  {name:38} {microseconds:7.2f} us  {ratio:5.2f}x")


if __name__ == "__main__":
    main()
