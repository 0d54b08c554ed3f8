"""Router and worker of the service without tenantry; what each does is common practice."""

from __future__ import annotations

import json
import os
from contextvars import ContextVar
from typing import Any

import redis
from celery import Celery, signals
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from before import keys

URL = os.environ.get("BEFORE_REDIS_URL", "redis://127.0.0.1:6379/1")
current: ContextVar[str | None] = ContextVar("current", default=None)
client = redis.Redis.from_url(URL, decode_responses=True)
worker = Celery("before", broker=URL, backend=URL)
worker.conf.update(task_default_queue="before", result_expires=300, broker_connection_retry_on_startup=True)


@signals.before_task_publish.connect
def write_header(headers: dict[str, Any] | None = None, **_: Any) -> None:
    """Send the tenant along, where there is one."""
    if headers is not None and current.get() is not None:
        headers["tenant"] = current.get()


@signals.task_prerun.connect
def read_header(task: Any = None, **_: Any) -> None:
    """Take the tenant of the message, where it has one; nobody takes it back."""
    tenant = getattr(task.request, "tenant", None)
    if tenant is not None:
        current.set(tenant)


@worker.task(name="before.respond")
def respond(agent_id: str, user_id: str, text: str) -> str | None:
    """Append to the window of whoever is current."""
    client.rpush(keys.memory_short(current.get(), agent_id, user_id), json.dumps(["user", text]))
    return current.get()


async def post_message(request: Request) -> Response:
    """Believe the header."""
    current.set(request.headers.get("x-tenant"))
    message = await request.json()
    arguments = (message["agent_id"], message["user_id"], message["text"])
    task = await run_in_threadpool(respond.delay, *arguments)
    return JSONResponse({"task_id": task.id}, status_code=202)


async def health(request: Request) -> Response:
    """For probes."""
    return JSONResponse({"status": "ok"})


app = Starlette(
    routes=[
        Route("/channels/{channel}/messages", post_message, methods=["POST"]),
        Route("/health", health),
    ]
)
