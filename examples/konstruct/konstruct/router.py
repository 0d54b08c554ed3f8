"""The message router: HTTP in, one task per message."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from kombu.exceptions import OperationalError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from konstruct import deliveries, memory_long, memory_short, rate_limits, summaries, threads
from konstruct.orchestrator import Incoming, respond
from tenantry import InvalidKeyPartError, keys

FIELDS = ("message_id", "thread_id", "agent_id", "user_id", "text")


async def post_message(request: Request) -> Response:
    """``POST /channels/{channel}/messages``: 202 and the id of the task that will answer."""
    try:
        message = await request.json()
    except (ValueError, RecursionError):
        return _problem(400, "The body is not JSON")
    missing = [name for name in FIELDS if not isinstance(_field(message, name), str)]
    if missing:
        return _problem(422, f"Missing: {', '.join(missing)}")
    accepted = Incoming(**{name: message[name] for name in FIELDS})  # type: ignore[typeddict-item]
    unusable = [name for name, value in accepted.items() if not _keepable(str(value))]
    if unusable:
        return _problem(422, f"Not usable as {', '.join(unusable)}")
    _build_keys(accepted)
    return await run_in_threadpool(route, request.path_params["channel"], accepted)


def route(channel: str, message: Incoming) -> Response:
    """Rate limit, de-duplicate, see whether the agent is meant, publish."""
    wait = rate_limits.take(channel)
    if wait:
        headers = {"Retry-After": str(math.ceil(wait))}
        return _problem(429, "Too many messages in this channel", headers)
    known = deliveries.claim(message["message_id"])
    if known == deliveries.ROUTING:
        return _problem(409, "This message is being routed", {"Retry-After": "1"})
    if known is not None:
        return JSONResponse({"status": "duplicate", "task_id": known})
    return _publish(message)


def _publish(message: Incoming) -> Response:
    try:
        if not _addressed(message):
            deliveries.routed(message["message_id"], "")
            return JSONResponse({"status": "not addressed", "task_id": ""})
        mention = threads.mention(message["agent_id"])
        spoken = mention.sub("", message["text"]).strip() or message["text"]
        task = respond.delay(Incoming(**{**message, "text": spoken}))
    except OperationalError:
        deliveries.unclaim(message["message_id"])
        return _problem(503, "The queue cannot be reached", {"Retry-After": "5"})
    deliveries.routed(message["message_id"], task.id)
    return JSONResponse({"status": "accepted", "task_id": task.id}, status_code=202)


def _addressed(message: Incoming) -> bool:
    thread, agent = message["thread_id"], message["agent_id"]
    return threads.addressed(thread, agent, message["user_id"], message["text"])


def _build_keys(message: Incoming) -> None:
    """An id that cannot be part of a key is refused here, not by the worker after a 202."""
    keys.idempotency(message["message_id"])
    keys.session(message["thread_id"])
    keys.memory_short(message["agent_id"], message["user_id"])


def _keepable(text: str) -> bool:
    """Whether PostgreSQL can keep it: no NUL, no half of a surrogate pair."""
    return re.search("[\0\ud800-\udfff]", text) is None


def _field(message: Any, name: str) -> object:
    return message.get(name) if isinstance(message, dict) else None


def _problem(status: int, title: str, headers: dict[str, str] | None = None) -> Response:
    body = json.dumps({"type": "about:blank", "title": title, "status": status})
    return Response(body, status, headers, media_type="application/problem+json")


async def bad_id(request: Request, error: Exception) -> Response:
    """An id that cannot be part of a key (empty, or longer than 512 bytes)."""
    part = error.part if isinstance(error, InvalidKeyPartError) else "id"
    return _problem(422, f"Not usable as {part}")


async def get_messages(request: Request) -> Response:
    """``GET /agents/{agent}/users/{user}/messages``: the window, oldest first."""
    path = request.path_params
    window = await run_in_threadpool(memory_short.get_recent_messages, path["agent"], path["user"])
    return JSONResponse({"messages": window})


async def get_memories(request: Request) -> Response:
    """``GET /agents/{agent}/users/{user}/memories?q=``: what was said that is nearest in meaning."""
    path, query = request.path_params, request.query_params.get("q", "")
    if not all(map(_keepable, (path["agent"], path["user"], query))):
        return _problem(422, "Not usable in a search")
    found = await run_in_threadpool(memory_long.retrieve_relevant, path["agent"], path["user"], query)
    memories = [{"content": m.content, "distance": round(m.distance, 3)} for m in found]
    return JSONResponse({"memories": memories})


async def get_thread(request: Request) -> Response:
    """``GET /threads/{thread}``: engaged, escalated, waiting for a word."""
    return JSONResponse(await run_in_threadpool(threads.status, request.path_params["thread"]))


async def hand_back(request: Request) -> Response:
    """``DELETE /threads/{thread}/escalation``: a person is done with it."""
    had = await run_in_threadpool(threads.hand_back, request.path_params["thread"])
    return Response(status_code=204 if had else 404)


async def get_summary(request: Request) -> Response:
    """``GET /summaries/{day}``: what the nightly job wrote."""
    line = await run_in_threadpool(summaries.read, request.path_params["day"])
    return JSONResponse({"summary": line}, status_code=200 if line else 404)


async def health(request: Request) -> Response:
    """``GET /health``: for probes, which belong to no tenant."""
    return JSONResponse({"status": "ok"})


routes = [
    Route("/channels/{channel}/messages", post_message, methods=["POST"]),
    Route("/agents/{agent}/users/{user}/messages", get_messages),
    Route("/agents/{agent}/users/{user}/memories", get_memories),
    Route("/threads/{thread}", get_thread),
    Route("/threads/{thread}/escalation", hand_back, methods=["DELETE"]),
    Route("/summaries/{day}", get_summary),
    Route("/health", health),
]
