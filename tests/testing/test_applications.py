"""``untenanted``: a test's own tenant is invisible to the application, through every client.

Each application here has no middleware at all and answers with the tenant that it finds: with the
bare client the test's tenant, which is the trap; untenanted, none.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Iterator
from typing import Any

import django
import flask
import httpx
import pytest
import werkzeug.test
from django.conf import settings
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import path
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute

from tenantry import bind_tenant, current_tenant, current_tenant_or_none, tenant_scope
from tenantry.testing import untenanted


def seen() -> str:
    return str(current_tenant_or_none())


@pytest.fixture(autouse=True)
def ambient() -> Iterator[None]:
    """Every test here runs as acme, and still does after each request."""
    with tenant_scope("acme"):
        yield
        assert current_tenant() == "acme"


# --- ASGI ----------------------------------------------------------------------------------------


async def steps() -> AsyncIterator[str]:
    for _ in range(2):
        yield seen() + ";"


def sync_steps() -> Iterator[str]:
    for _ in range(2):
        yield seen() + ";"


async def answer(request: Any) -> PlainTextResponse:
    return PlainTextResponse(seen())


def answer_in_thread(request: Any) -> PlainTextResponse:
    return PlainTextResponse(seen())


async def stream(request: Any) -> StreamingResponse:
    return StreamingResponse(steps())


async def sync_stream(request: Any) -> StreamingResponse:
    return StreamingResponse(sync_steps())


async def leave_bound(request: Any) -> PlainTextResponse:
    bind_tenant("globex")
    return PlainTextResponse("")


async def socket(websocket: Any) -> None:
    await websocket.accept()
    await websocket.send_text(seen())
    await websocket.receive_text()
    await websocket.send_text(seen())
    await websocket.close()


ROUTES = {
    "/": answer,
    "/thread": answer_in_thread,
    "/stream": stream,
    "/sync-stream": sync_stream,
    "/leave-bound": leave_bound,
}
EXPECTED = {"/": "{0}", "/thread": "{0}", "/stream": "{0};{0};", "/sync-stream": "{0};{0};"}


def starlette_app() -> Starlette:
    routes: list[Any] = [Route(path, endpoint) for path, endpoint in ROUTES.items()]
    return Starlette(routes=[*routes, WebSocketRoute("/ws", socket)])


def expect(found: dict[str, str], tenant: str) -> None:
    assert found == {path: text.format(tenant) for path, text in EXPECTED.items()}


async def test_asgi_application_through_httpx() -> None:
    """The trap first: httpx runs the application in the test's own task."""
    app = starlette_app()

    async def ask(target: Any) -> dict[str, str]:
        transport = httpx.ASGITransport(app=target)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return {path: (await client.get(path)).text for path in EXPECTED}

    expect(await ask(app), "acme")
    expect(await ask(untenanted(app)), "None")


async def test_httpx_async_client() -> None:
    """The client is changed in place, and returned; doing it twice is fine."""
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app=starlette_app()), base_url="http://test")
    assert untenanted(client) is client
    assert untenanted(client) is client
    async with client:
        expect({path: (await client.get(path)).text for path in EXPECTED}, "None")
        await client.get("/leave-bound")
        assert current_tenant() == "acme"


async def test_httpx_client_with_a_transport_around_the_transport() -> None:
    """Retrying and recording transports keep the real one inside."""

    class Around(httpx.AsyncBaseTransport):
        def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
            self.inner = inner

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            return await self.inner.handle_async_request(request)

    mounted = Around(httpx.ASGITransport(app=starlette_app()))
    client = untenanted(httpx.AsyncClient(mounts={"all://": mounted, "http://other": None}))
    async with client:
        assert (await client.get("http://test/stream")).text == "None;None;"


async def test_httpx_client_with_a_transport_of_no_known_application() -> None:
    """Whatever a transport calls is called without the tenant."""

    async def handle(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, text=seen())

    async with untenanted(httpx.AsyncClient(transport=httpx.MockTransport(handle))) as client:
        assert (await client.get("http://test/")).text == "None"
    with untenanted(
        httpx.Client(transport=httpx.MockTransport(lambda r: httpx.Response(200, text=seen())))
    ) as sync:
        assert sync.get("http://test/").text == "None"


@pytest.mark.parametrize("entered", [False, True])
@pytest.mark.parametrize("kind", [starlette_app, FastAPI])
def test_starlette_and_fastapi_test_client(kind: Any, entered: bool) -> None:
    """Requests, streams, websockets and the lifespan."""
    app = kind()
    if kind is FastAPI:
        for route, endpoint in ROUTES.items():
            app.add_route(route, endpoint)
        app.router.routes.append(WebSocketRoute("/ws", socket))
    bare = TestClient(app)
    expect({path: bare.get(path).text for path in EXPECTED}, "acme")
    client = TestClient(app)
    assert untenanted(client) is client
    if entered:
        client.__enter__()
    expect({path: client.get(path).text for path in EXPECTED}, "None")
    with client.websocket_connect("/ws") as websocket:
        assert websocket.receive_text() == "None"
        websocket.send_text("x")
        assert websocket.receive_text() == "None"
    if entered:
        client.__exit__()


def test_test_client_of_an_untenanted_application_runs_the_lifespan_without() -> None:
    """What the application starts for good does not keep the test's tenant."""
    found = []

    async def lifespan(scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        while message["type"] != "lifespan.shutdown":
            found.append(seen())
            await send({"type": "lifespan.startup.complete"})
            message = await receive()
        await send({"type": "lifespan.shutdown.complete"})

    with TestClient(untenanted(lifespan)):
        pass
    assert found == ["None"]


def test_application_attributes_are_those_inside() -> None:
    """State and overrides of the application are set through the wrapper as without."""
    app = FastAPI()
    wrapped = untenanted(app)
    wrapped.state.x = 1
    wrapped.dependency_overrides = {"a": "b"}
    wrapped.extra_attribute = 2
    assert (app.state.x, app.dependency_overrides, app.extra_attribute) == (1, {"a": "b"}, 2)
    del wrapped.extra_attribute
    assert not hasattr(app, "extra_attribute")
    assert repr(wrapped) == f"untenanted({app!r})"
    assert untenanted(wrapped) is wrapped


async def test_asgi_applications_of_every_shape() -> None:
    """A function, a partial, a method, and a plain function that returns a coroutine."""
    found = []

    async def function(scope: Any, receive: Any, send: Any) -> None:
        found.append(seen())

    class Application:
        async def method(self, scope: Any, receive: Any, send: Any) -> None:
            found.append(seen())

    def plain(scope: Any, receive: Any, send: Any) -> Any:
        return function(scope, receive, send)

    async def with_option(option: int, scope: Any, receive: Any, send: Any) -> None:
        found.append(seen())

    for app in (function, Application().method, plain, functools.partial(with_option, 1)):
        await untenanted(app)({}, None, None)
    assert found == ["None"] * 4


async def test_asgi_application_that_fails_gives_the_tenant_back() -> None:
    """An error leaves, and the test is where it was."""

    async def failing(scope: Any, receive: Any, send: Any) -> None:
        bind_tenant("globex")
        raise ValueError("their own")

    with pytest.raises(ValueError, match="their own"):
        await untenanted(failing)({}, None, None)
    assert current_tenant() == "acme"


async def test_asgi_applications_that_interleave_stay_apart() -> None:
    """First entered, first left."""
    first, second = asyncio.Event(), asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        with tenant_scope("globex"):
            first.set()
            await second.wait()
            assert current_tenant() == "globex"

    async def quick(scope: Any, receive: Any, send: Any) -> None:
        await first.wait()
        assert current_tenant_or_none() is None
        second.set()

    await asyncio.gather(untenanted(slow)({}, None, None), untenanted(quick)({}, None, None))
    assert current_tenant() == "acme"


# --- WSGI ----------------------------------------------------------------------------------------


def flask_app() -> flask.Flask:
    app = flask.Flask(__name__, root_path=".")
    app.secret_key = "x"
    app.add_url_rule("/", "answer", seen)
    app.add_url_rule("/stream", "stream", lambda: flask.Response(sync_steps()))
    app.add_url_rule("/context", "context", lambda: flask.Response(flask.stream_with_context(sync_steps())))

    @app.get("/close")
    def close() -> flask.Response:
        response = flask.Response(sync_steps())
        response.call_on_close(lambda: closed.append(seen()))
        return response

    @app.get("/leave-bound")
    def leave() -> str:
        bind_tenant("globex")
        return ""

    @app.get("/count")
    def count() -> str:
        flask.session["n"] = flask.session.get("n", 0) + 1
        return str(flask.session["n"])

    closed: list[str] = []
    app.extensions["closed"] = closed
    return app


WSGI = {"/": "{0}", "/stream": "{0};{0};", "/context": "{0};{0};", "/close": "{0};{0};"}


def ask_flask(client: Any) -> dict[str, str]:
    found = {}
    for url in WSGI:
        response = client.get(url)
        found[url] = response.text
        response.close()
    return found


@pytest.mark.parametrize(
    "client",
    [
        lambda app: untenanted(app.test_client()),
        lambda app: untenanted(app).test_client(),
        lambda app: untenanted(untenanted(app.test_client())),
        lambda app: untenanted(werkzeug.test.Client(app)),
        lambda app: werkzeug.test.Client(untenanted(app)),
        lambda app: werkzeug.test.Client(untenanted(app.wsgi_app)),
    ],
)
def test_flask_and_werkzeug_test_clients(client: Any) -> None:
    """Bodies that are read later and what runs when they are closed, too."""
    app = flask_app()
    expected = {path: text.format("None") for path, text in WSGI.items()}
    assert ask_flask(client(app)) == expected
    assert app.extensions["closed"] == ["None"]
    client(app).get("/leave-bound")
    assert current_tenant() == "acme"
    assert ask_flask(app.test_client()) == {path: text.format("acme") for path, text in WSGI.items()}


def test_flask_client_keeps_its_contexts_and_sessions() -> None:
    """``with client:`` leaves the request at hand, and sessions go on."""
    client = untenanted(flask_app().test_client())
    with client:
        client.get("/")
        assert flask.request.path == "/"
        assert [client.get("/count").text for _ in range(2)] == ["1", "2"]
    with client.session_transaction() as session:
        session["n"] = 7
    assert client.get("/count").text == "8"
    assert client.get("/", json={}).status_code == 200


def test_httpx_client_of_a_wsgi_application() -> None:
    """The WSGI transport reads the body after the call."""
    with untenanted(
        httpx.Client(transport=httpx.WSGITransport(app=flask_app()), base_url="http://test")
    ) as client:
        assert {path: client.get(path).text for path in WSGI} == {
            path: text.format("None") for path, text in WSGI.items()
        }


def test_wsgi_body_of_a_list_stays_a_list() -> None:
    """Servers and tests that ask for its length are served."""

    def application(environ: Any, start_response: Any) -> list[bytes]:
        return [seen().encode()]

    assert untenanted(application)({}, None) == [b"None"]


def test_wsgi_generator_application() -> None:
    """An application that is a generator function runs at its first step."""

    def application(environ: Any, start_response: Any) -> Iterator[bytes]:
        yield seen().encode()
        try:
            yield seen().encode()
        finally:
            closed.append(seen())

    closed: list[str] = []
    body = untenanted(application)({}, None)
    assert next(iter(body)) == b"None"
    assert next(iter(body)) == b"None"
    body.close()
    assert closed == ["None"]


def test_wsgi_body_without_close_is_closed_all_the_same() -> None:
    """Servers call ``close`` where there is one; ours is always there."""

    def application(environ: Any, start_response: Any) -> Any:
        return iter([b"x"])

    body = untenanted(application)({}, None)
    assert list(body) == [b"x"]
    body.close()


# --- Django --------------------------------------------------------------------------------------


def django_answer(request: Any) -> HttpResponse:
    return HttpResponse(seen())


async def django_async_answer(request: Any) -> HttpResponse:
    return HttpResponse(seen())


def django_stream(request: Any) -> StreamingHttpResponse:
    return StreamingHttpResponse(sync_steps())


def django_async_stream(request: Any) -> StreamingHttpResponse:
    return StreamingHttpResponse(steps())


urlpatterns = [
    path("", django_answer),
    path("async", django_async_answer),
    path("stream", django_stream),
    path("async-stream", django_async_stream),
]


@pytest.fixture
def django_urls() -> Iterator[None]:
    if not settings.configured:
        settings.configure(DEBUG=False, SECRET_KEY="x", ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__)
        django.setup()
    from django.test import override_settings

    with override_settings(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], MIDDLEWARE=[]):
        yield


def test_django_client(django_urls: None) -> None:
    """Views of both kinds, and streamed bodies that the test reads."""
    from django.test import Client

    bare = Client()
    assert bare.get("/").content == b"acme"
    client = Client()
    assert untenanted(client) is client
    assert untenanted(client) is client
    assert client.get("/").content == b"None"
    assert client.get("/async").content == b"None"
    assert client.get("/stream").getvalue() == b"None;None;"
    assert client.get("/", follow=True).content == b"None"


async def test_django_async_client(django_urls: None) -> None:
    """The same for the asynchronous client."""
    from django.test import AsyncClient

    bare = AsyncClient()
    assert (await bare.get("/async")).content == b"acme"
    client = untenanted(AsyncClient())
    assert (await client.get("/async")).content == b"None"
    response: Any = await client.get("/async-stream")
    assert b"".join([chunk async for chunk in response.streaming_content]) == b"None;None;"
    assert current_tenant() == "acme"


# --- anything else -------------------------------------------------------------------------------


def test_clients_that_keep_their_application_in_an_attribute() -> None:
    """Other libraries' clients are served by where they keep it."""

    class Client:
        def __init__(self, app: Any) -> None:
            self.app = app

    found = []

    def application(environ: Any, start_response: Any) -> list[bytes]:
        found.append(seen())
        return []

    client = untenanted(Client(application))
    untenanted(client).app({}, None)
    assert found == ["None"]


@pytest.mark.parametrize(
    "target", [None, 7, "x", object(), lambda: None, lambda one: None, Starlette, dict, max]
)
def test_untenanted_refuses_what_it_cannot_run(target: Any) -> None:
    """A target that would not be kept out of the tenant is an error, not a pass."""
    with pytest.raises(TypeError, match="untenanted takes an ASGI or WSGI application or a test client"):
        untenanted(target)
