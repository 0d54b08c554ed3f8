"""The message router: HTTP in, one task per message."""

from __future__ import annotations

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from konstruct import memory_short
from konstruct.orchestrator import respond

FIELDS = ("message_id", "thread_id", "agent_id", "user_id", "text")


async def post_message(request: Request) -> Response:
    """``POST /channels/{channel}/messages``: 202 and the id of the task that will answer."""
    message = await request.json()
    missing = [field for field in FIELDS if not isinstance(message.get(field), str)]
    if missing:
        return JSONResponse({"title": f"Missing: {', '.join(missing)}"}, status_code=422)
    task = await run_in_threadpool(respond.delay, message["agent_id"], message["user_id"], message["text"])
    return JSONResponse({"task_id": task.id}, status_code=202)


async def get_messages(request: Request) -> Response:
    """``GET /agents/{agent}/users/{user}/messages``: the window, oldest first."""
    path = request.path_params
    window = await run_in_threadpool(memory_short.get_recent_messages, path["agent"], path["user"])
    return JSONResponse({"messages": window})


async def health(request: Request) -> Response:
    """``GET /health``: for probes, which belong to no tenant."""
    return JSONResponse({"status": "ok"})


routes = [
    Route("/channels/{channel}/messages", post_message, methods=["POST"]),
    Route("/agents/{agent}/users/{user}/messages", get_messages),
    Route("/health", health),
]
