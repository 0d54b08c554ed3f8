"""The WSGI service that the servers run. It tells which tenant each part of it saw."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from wsgiref.util import FileWrapper

from tenantry import current_tenant_or_none
from tenantry.integrations.wsgi import TenantMiddleware
from tenantry.resolvers import Header

SEEN: dict[str, object] = {}
INSIDE = threading.Condition()
STATE = {"inside": 0, "turn": -1}


def service(environ: dict[str, Any], start_response: Any) -> Any:
    path = environ["PATH_INFO"]
    if path.startswith("/queue/"):
        answer: Any = queue(*map(int, path.split("/")[2:]))
    elif path == "/events":
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        return events()
    elif path == "/sized":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return Sized()
    elif path == "/file":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return environ.get("wsgi.file_wrapper", FileWrapper)(Path(__file__).open("rb"))
    elif path == "/seen":
        answer = SEEN
    else:
        length = int(environ.get("CONTENT_LENGTH") or 0)
        size = len(environ["wsgi.input"].read(length)) if length else 0
        answer = {"tenant": current_tenant_or_none(), "size": size}
    body = json.dumps(answer).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


def queue(count: int, number: int) -> list[str]:
    """Leave in the order of the numbers, all being inside at once; tell every tenant that was seen."""
    seen = {str(current_tenant_or_none())}
    with INSIDE:
        STATE["inside"] += 1
        if STATE["inside"] == count:
            STATE.update(inside=0, turn=0)
            INSIDE.notify_all()
        assert INSIDE.wait_for(lambda: STATE["turn"] == number, timeout=60)
        seen.add(str(current_tenant_or_none()))
        STATE["turn"] = number + 1 if number + 1 < count else -1
        INSIDE.notify_all()
    return sorted(seen)


def events() -> Iterator[bytes]:
    """Parts until the client goes away; no more than a server without one would take."""
    try:
        for _ in range(2000):
            yield f"data: {current_tenant_or_none()}\n\n".encode()
            time.sleep(0.01)
    finally:
        SEEN["event stream"] = current_tenant_or_none()


class Sized:
    """A body with a length, whose parts depend on the tenant."""

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[bytes]:
        yield str(current_tenant_or_none()).encode()

    def close(self) -> None:
        SEEN["sized"] = current_tenant_or_none()


async def verify(request: Any, tenant_id: str) -> bool:
    return tenant_id != "globex-forbidden"


app = TenantMiddleware(
    service,
    resolver=Header("X-Tenant", verify=verify),
    lookup=lambda tenant_id: None if tenant_id == "nobody" else tenant_id,
    exempt=("/open", "/seen"),
)
