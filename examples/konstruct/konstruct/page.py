"""The page that a person can look at: two tenants side by side, and attacks to press.

It shows both tenants' data, so it is an operator's page: it exists only with ``KONSTRUCT_PAGE=1``.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import redis
from sqlalchemy import text
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from konstruct import database, page_attacks
from konstruct.settings import settings
from tenantry import tenant_scope
from tenantry.keys import owner_of

HTML = Path(__file__).with_name("page.html")
# Never guarded: it reads the names of all tenants' keys, as an operator does.
operator = redis.Redis.from_url(settings.operator_redis_url, decode_responses=True)


def owns(path: str) -> bool:
    """Whether a path belongs to the page rather than to a tenant."""
    return path == "/" or path.startswith("/page/")


async def show(request: Request) -> Response:
    """``GET /``: the page, with the tokens of the demonstration's tenants."""
    attacks = [
        {"name": name, "title": a.title, "code": a.code, "layer": a.layer}
        for name, a in page_attacks.ATTACKS.items()
    ]
    given = json.dumps({"tokens": dict(settings.tokens), "attacks": attacks})
    html = HTML.read_text(encoding="utf-8").replace("/*given*/null", given.replace("<", "\\u003c"))
    return HTMLResponse(html, headers={"Cache-Control": "no-store"})


async def state(request: Request) -> Response:
    """``GET /page/state``: key names in Redis and rows in PostgreSQL, by tenant."""
    return JSONResponse(await run_in_threadpool(_state))


def _state() -> dict[str, object]:
    found: dict[str, list[str]] = defaultdict(list)
    for key in sorted(operator.scan_iter(count=1000)):
        found[owner_of(key) or ""].append(key)
    others = len(found.pop("", []))
    return {"keys": found, "others": others, "rows": {name: _rows(name) for name in settings.tokens}}


def _rows(tenant: str) -> list[dict[str, str]]:
    newest = text("SELECT user_id, content FROM conversation_embeddings ORDER BY created_at DESC LIMIT 8")
    with tenant_scope(tenant), database.engine.begin() as connection:
        return [{"user": row.user_id, "content": row.content} for row in connection.execute(newest)]


async def attack(request: Request) -> Response:
    """``POST /page/attacks/{name}``: do it, and say what refused it."""
    chosen = page_attacks.ATTACKS.get(request.path_params["name"])
    if chosen is None:
        return Response(status_code=404)
    try:
        answer = {"held": True, "detail": await run_in_threadpool(chosen.run)}
    except Exception as error:  # an attack that gets through must show on the page
        answer = {"held": False, "detail": f"{type(error).__name__}: {error}"}
    return JSONResponse(answer)


routes = [
    Route("/", show),
    Route("/page/state", state),
    Route("/page/attacks/{name}", attack, methods=["POST"]),
]
