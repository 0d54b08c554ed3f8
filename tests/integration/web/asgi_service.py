"""The ASGI service that the servers run. It tells which tenant each part of it saw."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from tenantry import current_tenant_or_none
from tenantry.integrations.asgi import TenantMiddleware
from tenantry.resolvers import Header

SEEN: dict[str, object] = {}
TURNS: dict[int, asyncio.Event] = {}


def turn(number: int) -> asyncio.Event:
    return TURNS.setdefault(number, asyncio.Event())


async def index(request: Any) -> JSONResponse:
    size = len(await request.body())
    return JSONResponse({"tenant": current_tenant_or_none(), "size": size})


async def queue(request: Any) -> JSONResponse:
    """Leave in the order of the numbers, all being inside at once; tell every tenant that was seen."""
    number, count = int(request.path_params["number"]), int(request.path_params["count"])
    seen = {current_tenant_or_none()}
    TURNS.setdefault(-1, asyncio.Event())
    SEEN["inside"] = int(SEEN.get("inside", 0)) + 1  # type: ignore[call-overload]
    if SEEN["inside"] == count:
        SEEN["inside"] = 0
        turn(0).set()
    await turn(number).wait()
    for _ in range(number % 4):
        await asyncio.sleep(0)
        seen.add(current_tenant_or_none())
    del TURNS[number]
    if number + 1 < count:
        turn(number + 1).set()
    return JSONResponse(sorted(map(str, seen)))


async def events(request: Any) -> StreamingResponse:
    """Server-sent events, each the tenant that it saw, until the client goes away."""

    async def stream() -> AsyncIterator[bytes]:
        try:
            while True:
                yield f"data: {current_tenant_or_none()}\n\n".encode()
                await asyncio.sleep(0.01)
        finally:
            SEEN["event stream"] = current_tenant_or_none()

    return StreamingResponse(stream(), media_type="text/event-stream")


async def background(request: Any) -> JSONResponse:
    async def note() -> None:
        SEEN["background"] = current_tenant_or_none()

    return JSONResponse(None, background=BackgroundTask(note))


async def seen(request: Any) -> JSONResponse:
    return JSONResponse(SEEN)


async def socket(websocket: WebSocket) -> None:
    tenants = [current_tenant_or_none()]
    await websocket.accept()
    with contextlib.suppress(WebSocketDisconnect):
        while True:
            await websocket.receive_text()
            tenants.append(current_tenant_or_none())
            await websocket.send_json(tenants)
    SEEN["socket"] = current_tenant_or_none()


@contextlib.asynccontextmanager
async def lifespan(app: Any) -> AsyncIterator[None]:
    SEEN["lifespan"] = current_tenant_or_none()
    yield


async def verify(request: Any, tenant_id: str) -> bool:
    await asyncio.sleep(0)
    return tenant_id != "globex-forbidden"


app = TenantMiddleware(
    Starlette(
        routes=[
            Route("/queue/{count}/{number}", queue),
            Route("/events", events),
            Route("/background", background),
            Route("/seen", seen),
            WebSocketRoute("/socket", socket),
            Route("/{rest:path}", index, methods=["GET", "POST"]),
        ],
        lifespan=lifespan,
    ),
    resolver=Header("X-Tenant", verify=verify),
    lookup=lambda tenant_id: None if tenant_id == "nobody" else tenant_id,
    exempt=("/open", "/seen"),
)
