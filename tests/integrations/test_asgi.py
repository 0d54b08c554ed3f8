"""The ASGI edge on its own, driven by hand."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import tracemalloc
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

import httpx
import pytest
import trio
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from tenantry import current_tenant_or_none
from tenantry.context import get_state, unit_of_work
from tenantry.integrations.asgi import TenantMiddleware
from tenantry.resolvers import Header, Session
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


async def test_minimal_scope_is_enough() -> None:
    """A scope that lacks what the specification lets a server leave out."""
    app = TenantMiddleware(echo, resolver=TRUSTING)
    assert await ask(app, {"type": "http", "headers": [(b"x-tenant", b"acme")]}) == (200, "acme")
    assert (await ask(app, {"type": "http"}))[0] == 400
    assert (await ask(TenantMiddleware(echo, resolver=TRUSTING, exempt=["/"]), {"type": "http"}))[0] == 400


async def test_ids_of_all_requests_take_bounded_memory() -> None:
    """However many tenants a header names, what is remembered of them does not grow with them."""

    async def app(scope: Any, receive: Any, send: Any) -> None: ...

    middleware = TenantMiddleware(app, resolver=Header("X-Tenant", trust_client=True))

    async def serve(numbers: range) -> None:
        for number in numbers:
            await middleware(http((b"x-tenant", b"tenant-%d" % number)), app, app)  # type: ignore[arg-type]

    await serve(range(5_000))
    tracemalloc.start()
    try:
        await serve(range(5_000, 25_000))
        current, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert current < 2_000_000


async def test_entry_overwrites_a_stale_tenant() -> None:
    """Servers hand one request a copy of the context of another: an exempt route sees none of it."""
    app = TenantMiddleware(echo, resolver=TRUSTING, exempt=["/healthz"])
    with unit_of_work("stale"):
        assert await ask(app, http(path="/healthz")) == (200, None)
        assert current_tenant_or_none() == "stale"


class TestAsgi(EdgeContract):
    """The contract of web edges, on ASGI."""

    asynchronous = True

    def edge(self, **options: Any) -> Ask:
        return ask_asgi(TenantMiddleware(asgi_app, **options))

    def respond(self, status: int, body: bytes) -> Any:
        return PlainTextResponse(body, status)


# --- what is not a request -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["lifespan", "rsgi", "http.extension"])
async def test_other_scopes_pass_unchanged_with_explicitly_none(kind: str) -> None:
    """Lifespan and unknown scope types reach the app as they are, whatever was active."""
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope, receive, send, get_state().kind))

    scope = {"type": kind, "headers": [(b"x-tenant", b"acme")]}
    receive, send = object(), object()
    with unit_of_work("stale"):
        await TenantMiddleware(app, resolver=TRUSTING)(scope, receive, send)  # type: ignore[arg-type]
    ((*same, state),) = seen
    assert [id(each) for each in same] == [id(scope), id(receive), id(send)]
    assert state == "explicitly none"


def test_lifespan_of_starlette_runs() -> None:
    """Start-up and shutdown run, with no tenant."""
    seen: list[str] = []

    @contextlib.asynccontextmanager
    async def lifespan(app: Any) -> Any:
        seen.append(get_state().kind)
        yield
        seen.append(get_state().kind)

    with TestClient(TenantMiddleware(Starlette(lifespan=lifespan), resolver=TRUSTING)):
        pass
    assert seen == ["explicitly none"] * 2


# --- websockets ----------------------------------------------------------------------------------


async def socket_app(scope: Any, receive: Any, send: Any) -> None:
    socket = WebSocket(scope, receive, send)
    seen = [current_tenant_or_none()]
    await socket.accept()
    with contextlib.suppress(WebSocketDisconnect):
        while True:
            seen.append(await socket.receive_text() and current_tenant_or_none())
            await socket.send_json(seen)
    scope["seen"].append(current_tenant_or_none())


def connect(app: Any, path: str = "/", **headers: str) -> Any:
    return TestClient(app).websocket_connect(
        path, headers={k.replace("_", "-"): v for k, v in headers.items()}
    )


def test_websocket_runs_under_its_tenant() -> None:
    """Accept, receive and close see it."""
    closed: list[object] = []
    middleware = TenantMiddleware(socket_app, resolver=TRUSTING)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await middleware({**scope, "seen": closed}, receive, send)

    with connect(app, x_tenant="acme") as socket:
        socket.send_text("a")
        assert socket.receive_json() == ["acme", "acme"]
    assert closed == ["acme"]


@pytest.mark.parametrize("value", [None, "a:b", "globex"])
def test_websocket_is_refused_before_it_is_accepted(
    value: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """With code 1008; ``on_error`` is not asked, and the log has it as it has a refused request."""
    caplog.set_level(logging.INFO, "tenantry")
    asked: list[object] = []
    app = TenantMiddleware(
        socket_app,
        resolver=Header("X-Tenant", verify=lambda request, tenant_id: tenant_id == "acme"),
        on_error=lambda request, error: asked.append(error),
    )
    headers = {} if value is None else {"x_tenant": value}
    with pytest.raises(WebSocketDisconnect) as caught, connect(app, **headers):
        pass
    assert caught.value.code == 1008
    assert not asked
    (message,) = [record.getMessage() for record in caplog.records if record.name == "tenantry"]
    assert message.startswith("request refused with 40")


def test_exempt_and_optional_websockets_run_with_none() -> None:
    """As requests do; what looks like a preflight is none."""
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(get_state().kind)
        await send({"type": "websocket.close", "code": 4000})

    for options in (
        {"exempt": ["/open"]},
        {"optional": True},
        {"exempt": lambda request: request.raw["type"] == "websocket"},
    ):
        with (
            pytest.raises(WebSocketDisconnect),
            connect(TenantMiddleware(app, resolver=TRUSTING, **options), "/open"),
        ):
            pass
    assert seen == ["explicitly none"] * 3


# --- Starlette -----------------------------------------------------------------------------------


def starlette(seen: dict[str, object], **options: Any) -> Starlette:
    def note(name: str) -> None:
        seen[name] = current_tenant_or_none()

    async def anote(name: str) -> None:
        note(name)

    async def endpoint(request: Any) -> Any:
        note("async endpoint")

        async def body() -> AsyncIterator[bytes]:
            for _ in range(3):
                await asyncio.sleep(0)
                note("async body")
                yield b"x"

        return StreamingResponse(body(), background=BackgroundTask(anote, "async background"))

    def sync_endpoint(request: Any) -> Any:
        note("sync endpoint")

        def body() -> Iterator[bytes]:
            for _ in range(3):
                note("sync body")
                yield b"x"

        return StreamingResponse(body(), background=BackgroundTask(note, "sync background"))

    async def broken(request: Any) -> Any:
        raise KeyError("broken")

    async def fatal(request: Any) -> Any:
        raise ZeroDivisionError

    async def handled(request: Any, error: Exception) -> Any:
        note(type(error).__name__)
        return PlainTextResponse("handled", 500)

    return Starlette(
        routes=[
            Route("/async", endpoint),
            Route("/sync", sync_endpoint),
            Route("/broken", broken),
            Route("/fatal", fatal),
        ],
        exception_handlers={KeyError: handled, Exception: handled},
        **options,
    )


@pytest.mark.parametrize("inside", [True, False])
def test_starlette_runs_bound(inside: bool) -> None:
    """Endpoints, bodies, background tasks and handlers; the 500 handler where the middleware is outside."""
    seen: dict[str, object] = {}
    if inside:
        app: Any = starlette(seen, middleware=[Middleware(TenantMiddleware, resolver=TRUSTING)])
    else:
        app = TenantMiddleware(starlette(seen), resolver=TRUSTING)
    client = TestClient(app, raise_server_exceptions=False, headers={"X-Tenant": "acme"})
    for path in ("/async", "/sync", "/broken", "/fatal"):
        client.get(path)
    fatal = seen.pop("ZeroDivisionError")
    assert fatal == (None if inside else "acme")
    names = [
        "async endpoint",
        "async body",
        "async background",
        "sync endpoint",
        "sync body",
        "sync background",
    ]
    assert seen == dict.fromkeys([*names, "KeyError"], "acme")


async def test_same_task_serves_the_next_request_clean() -> None:
    """A driver that runs requests in one task finds nothing of the one before, errors included."""
    seen: dict[str, object] = {}
    app = TenantMiddleware(starlette(seen), resolver=TRUSTING, optional=True)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        for path in ("/async", "/fatal"):
            await client.get(path, headers={"X-Tenant": "acme"})
            assert current_tenant_or_none() is None
            await client.get("/sync")
            assert (seen["sync endpoint"], seen["sync body"]) == (None, None)


async def test_two_hundred_requests_leave_in_the_order_in_which_they_came() -> None:
    """Each of twenty tenants sees only itself at every await, while others come and go."""
    gates = [asyncio.Event() for _ in range(200)]
    wrong: list[object] = []
    order = random.Random(7)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        number = int(scope["path"][1:])
        expected = f"t{number % 20}"
        for _ in range(order.randrange(1, 6)):
            await asyncio.sleep(0)
            if current_tenant_or_none() != expected:
                wrong.append((number, current_tenant_or_none()))
        await gates[number].wait()
        if current_tenant_or_none() != expected:
            wrong.append((number, current_tenant_or_none()))
        if number + 1 < 200:
            gates[number + 1].set()

    middleware = TenantMiddleware(app, resolver=TRUSTING)
    async with asyncio.TaskGroup() as group:
        for number in range(200):
            scope = http((b"x-tenant", f"t{number % 20}".encode()), path=f"/{number}")
            group.create_task(exchange(middleware, scope))
        await asyncio.sleep(0)
        gates[0].set()
    assert not wrong


def test_session_of_starlette() -> None:
    """The session middleware stands outside of ours."""

    async def login(request: Any) -> Any:
        request.session["tenant"] = request.path_params["tenant"]
        return PlainTextResponse("in")

    app = Starlette(
        routes=[
            Route("/login/{tenant}", login),
            Route("/", lambda request: PlainTextResponse(current_tenant_or_none())),
        ],
        middleware=[
            Middleware(SessionMiddleware, secret_key="a secret key"),
            Middleware(
                TenantMiddleware,
                resolver=Session("tenant"),
                exempt=lambda request: request.path.startswith("/login/"),
            ),
        ],
    )
    client = TestClient(app)
    answer = client.get("/")
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Cookie")
    client.get("/login/acme")
    assert client.get("/").text == "acme"
    client.get("/login/a:b")
    assert client.get("/").status_code == 400


async def test_scope_is_passed_on_as_it_is() -> None:
    """Scope, receive and send are the server's own objects."""
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.extend((scope, receive, send))

    scope = http((b"x-tenant", b"acme"))
    before = {**scope}

    async def receive() -> Any: ...

    async def send(message: Any) -> None: ...

    await TenantMiddleware(app, resolver=TRUSTING)(scope, receive, send)
    assert seen == [scope, receive, send]
    assert seen[0] is scope
    assert scope == before


async def test_cancelled_request_leaves_nothing() -> None:
    """A client that goes away while the tenant is verified, or in the app."""
    entered = asyncio.Event()

    async def wait_for_ever(*_: Any) -> Any:
        entered.set()
        await asyncio.Event().wait()

    for app in (
        TenantMiddleware(echo, resolver=Header("X-Tenant", verify=wait_for_ever)),
        TenantMiddleware(wait_for_ever, resolver=TRUSTING),
        TenantMiddleware(echo, resolver=TRUSTING, lookup=wait_for_ever),
    ):
        entered.clear()
        task = asyncio.create_task(exchange(app, http((b"x-tenant", b"acme"))))
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert get_state().kind == "never set"


def test_trio_serves_too() -> None:
    """No event loop is assumed."""
    app = TenantMiddleware(
        echo,
        resolver=Header("X-Tenant", verify=lambda request, tenant_id: True),
        lookup={"acme": 1}.get,
    )
    assert trio.run(ask, app, http((b"x-tenant", b"acme"))) == (200, "acme")
    assert trio.run(ask, app, http((b"x-tenant", b"nobody")))[0] == 404


async def test_on_error_that_is_no_app_fails_the_request() -> None:
    """Nothing was sent by then, so the server answers 500."""
    app = TenantMiddleware(echo, resolver=TRUSTING, on_error=lambda request, error: "sorry")
    with pytest.raises(TypeError, match="ASGI app"):
        await exchange(app, http())
