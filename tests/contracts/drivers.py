"""How the web contracts drive ASGI and WSGI apps: by hand, without a server between."""

from __future__ import annotations

import asyncio
import io
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any
from wsgiref.util import FileWrapper

from tenantry import current_tenant_or_none
from tests.contracts.web import Answer, Ask


def tenant_text() -> bytes:
    return str(current_tenant_or_none()).encode() + b" "


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    """The app of the contract."""
    if scope["path"] == "/boom":
        raise ZeroDivisionError
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if scope["path"] == "/stream":
        for _ in range(3):
            await asyncio.sleep(0)
            await send({"type": "http.response.body", "body": tenant_text(), "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        return
    await send({"type": "http.response.body", "body": json.dumps(current_tenant_or_none()).encode()})


def asgi_scope(path: str, headers: dict[str, str], method: str, peer: str | None) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(k.lower().encode(), v.encode("latin-1")) for k, v in headers.items()],
        "client": None if peer is None else (peer, 5000),
        "server": ("testserver", 80),
    }


def ask_asgi(app: Any) -> Ask:
    """Each request on an event loop of its own."""

    def ask(
        path: str = "/",
        headers: dict[str, str] | None = None,
        *,
        method: str = "GET",
        peer: str | None = "10.0.0.1",
        session: dict[str, Any] | None = None,
    ) -> Answer:
        scope = asgi_scope(path, headers or {}, method, peer)
        if session is not None:
            scope["session"] = session
        sent: list[dict[str, Any]] = []
        messages = iter([{"type": "http.request", "body": b"", "more_body": False}])

        async def run() -> None:
            async def receive() -> dict[str, Any]:
                message = next(messages, None)
                if message is None:
                    await asyncio.Event().wait()
                return message or {}

            async def send(message: Any) -> None:
                sent.append(dict(message))

            await app(scope, receive, send)

        asyncio.run(run())
        start, *bodies = sent
        names = {k.decode().lower(): v.decode() for k, v in start["headers"]}
        return Answer(start["status"], names, b"".join(each.get("body", b"") for each in bodies))

    return ask


def wsgi_app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
    """The app of the contract."""
    if environ["PATH_INFO"] == "/boom":
        raise ZeroDivisionError
    start_response("200 OK", [])
    if environ["PATH_INFO"] == "/stream":
        return steps()
    return [json.dumps(current_tenant_or_none()).encode()]


def steps() -> Iterator[bytes]:
    for _ in range(3):
        yield tenant_text()


def wsgi_environ(path: str, headers: dict[str, str], method: str, peer: str | None) -> dict[str, Any]:
    """An environ as most servers make it: aliases with underscores dropped, values as latin-1."""
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path.encode().decode("latin-1"),
        "QUERY_STRING": "",
        "SERVER_NAME": "testserver",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": FileWrapper,
    }
    if peer is not None:
        environ["REMOTE_ADDR"] = peer
    for name, value in headers.items():
        if "_" in name:
            continue
        key = name.upper().replace("-", "_")
        environ[key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"] = value
    return environ


def ask_wsgi(app: Any) -> Ask:
    def ask(
        path: str = "/",
        headers: dict[str, str] | None = None,
        *,
        method: str = "GET",
        peer: str | None = "10.0.0.1",
        session: dict[str, Any] | None = None,
    ) -> Answer:
        environ = wsgi_environ(path, headers or {}, method, peer)
        if session is not None:
            environ["beaker.session"] = session
        return send_wsgi(app, environ)

    return ask


def send_wsgi(app: Any, environ: dict[str, Any]) -> Answer:
    started: list[Any] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        started[:] = [int(status.split()[0]), {name.lower(): value for name, value in headers}]
        return started.append

    body = app(environ, start_response)
    try:
        content = b"".join(body)
    finally:
        close = getattr(body, "close", None)
        if close is not None:
            close()
    return Answer(started[0], started[1], content)
