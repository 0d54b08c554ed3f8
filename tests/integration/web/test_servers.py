"""The web edges on real servers over real sockets.

The telling pairs run by default: the ones that hand a request the context of another, and one of each
other kind. All others run with ``-m deep``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
import websockets

from tests import services
from tests.integration.web.servers import Connection, WebServer, running

TELLING = {"uvicorn-h11-asyncio", "uvicorn-httptools-uvloop", "hypercorn-asyncio", "granian-asgi"}
TELLING |= {"gunicorn-gthread", "gunicorn-gevent", "waitress", "wsgiref"}
ASGI_SERVERS = [
    "uvicorn-h11-asyncio",
    "uvicorn-h11-uvloop",
    "uvicorn-httptools-asyncio",
    "uvicorn-httptools-uvloop",
    "hypercorn-asyncio",
    "hypercorn-uvloop",
    "granian-asgi",
]
WSGI_SERVERS = [
    "gunicorn-sync",
    "gunicorn-gthread",
    "gunicorn-gevent",
    "waitress",
    "wsgiref",
    "gevent-pywsgi",
    "granian-wsgi",
]


#: Servers that hand an alias on under the name of the header, where nobody can tell it any more.
RENAMING = {"wsgiref", "granian-wsgi"}


def marked(names: list[str]) -> list[Any]:
    return [name if name in TELLING else pytest.param(name, marks=pytest.mark.deep) for name in names]


@pytest.fixture(scope="module")
def start() -> Iterator[Callable[[str], WebServer]]:
    """Start each server when it is first asked for, and keep it for the tests of this module."""
    with contextlib.ExitStack() as stack:
        yield cache(lambda name: stack.enter_context(running(name)))


@pytest.fixture(params=marked(ASGI_SERVERS + WSGI_SERVERS))
def server(request: pytest.FixtureRequest, start: Callable[[str], WebServer]) -> WebServer:
    """Each server in turn."""
    return start(request.param)


@pytest.fixture(params=marked(ASGI_SERVERS))
def asgi_server(request: pytest.FixtureRequest, start: Callable[[str], WebServer]) -> WebServer:
    """Each ASGI server in turn."""
    return start(request.param)


def seen(server: WebServer) -> dict[str, Any]:
    """Return what the service has noted."""
    with Connection(server.port) as connection:
        noted: dict[str, Any] = connection.ask("GET", "/seen").json
    return noted


ACME = "X-Tenant: acme"


def test_nothing_is_left_for_the_next_request(server: WebServer) -> None:
    """After small and large requests as a tenant, on one connection and on the next, nothing is active."""
    large = b"x" * 1_000_000
    with contextlib.closing(Connection(server.port)) as connection:
        for body in (b"", b"small", large, large):
            reply = connection.ask("POST", "/upload", ACME, body=body)
            assert (reply.status, reply.json) == (200, {"tenant": "acme", "size": len(body)})
            for path, status in (("/", 400), ("/open", 200), ("/", 400)):
                reply = connection.ask("GET", path)
                assert reply.status == status
                assert status != 200 or reply.json["tenant"] is None


def test_pipelined_requests_stay_apart(server: WebServer) -> None:
    """Requests that are sent before the answers to those before them."""
    expected: list[tuple[str | None, int]] = []
    requests = []
    for tenant in ("acme", None, "globex", None, "acme"):
        for path in ("/", "/open"):
            requests.append((path, () if tenant is None else (f"X-Tenant: {tenant}",)))
            named = tenant if path == "/" else None
            expected.append((named, 200 if named or path == "/open" else 400))
    # A server without keep-alive resets the connection after its first answer, at any moment.
    with Connection(server.port) as connection, contextlib.suppress(OSError):
        connection.send_all(requests)
        for tenant, status in expected:
            reply = connection.receive()
            assert reply.status == status
            assert status != 200 or reply.json["tenant"] == tenant


@pytest.mark.parametrize(
    ("headers", "statuses"),
    [
        (("X-Tenant: acme", "X-Tenant: acme"), {400}),
        (("X-Tenant: acme", "X-Tenant: globex"), {400}),
        (("X-Tenant: acme, globex",), {400}),
        (("X-Tenant: acm\xe9",), {400}),
        (("X-Tenant: " + "a" * 64,), {400}),
        (("X-Tenant:",), {400}),
        (("X-Tenant: a:b",), {400}),
        (("X-Tenant: globex-forbidden",), {404}),
        (("X-Tenant: nobody",), {404}),
        (("x-tenant: acme",), {200}),
        # A server drops the alias, or passes it on to be refused; none may let it decide.
        (("X-Tenant: acme", "X_Tenant: globex"), {200, 400}),
        (("X_Tenant: globex", "X-Tenant: acme"), {200, 400}),
        (("X_Tenant: globex",), {400}),
    ],
)
def test_header_as_servers_pass_it_on(
    server: WebServer, headers: tuple[str, ...], statuses: set[int]
) -> None:
    """Each server merges, drops or keeps what is doubled in its own way; the answer is one of these."""
    renamed = server.name in RENAMING and "X_Tenant: globex" in headers
    with Connection(server.port) as connection:
        reply = connection.ask("GET", "/", *headers)
    if renamed:
        assert reply.status in (200, 400)
        return
    assert reply.status in statuses
    if reply.status == 200:
        assert reply.json["tenant"] == "acme"
    if reply.status == 400:
        assert reply.headers["content-type"] == "application/problem+json"
        assert reply.headers["cache-control"] == "no-store"
        assert b"acm" not in reply.body


def test_refused_head_and_post_leave_the_connection_in_order(server: WebServer) -> None:
    """A refusal before the body was read, and one without a body of its own."""
    for method in ("HEAD", "POST"):
        with Connection(server.port) as connection:
            reply = connection.ask(method, "/upload", body=b"x" * 2000 if method == "POST" else b"")
            assert reply.status == 400
            with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                following = connection.ask("GET", "/", ACME)
                assert (following.status, following.json["tenant"]) == (200, "acme")


def test_requests_leave_in_the_order_in_which_they_came(server: WebServer) -> None:
    """All are inside at once, of twenty tenants, and each sees its own from first to last."""
    count = min(server.room, 200)

    async def one(number: int) -> tuple[int, Any]:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        head = f"GET /queue/{count}/{number} HTTP/1.1\r\nHost: a\r\nX-Tenant: t{number % 20}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode())
        await writer.drain()
        raw = await reader.read()
        writer.close()
        await writer.wait_closed()
        return number, json.loads(raw[raw.index(b"[") : raw.rindex(b"]") + 1])

    async def all_of_them() -> list[tuple[int, Any]]:
        return await asyncio.gather(*map(one, range(count)))

    assert asyncio.run(all_of_them()) == [(number, [f"t{number % 20}"]) for number in range(count)]


def test_event_stream_ends_under_its_tenant(server: WebServer) -> None:
    """Each event sees the tenant, and so does what runs when the client has gone."""
    with Connection(server.port) as connection:
        connection.send("GET", "/events", ACME)
        assert b"None" not in connection.read_until(b"data: acme\n")

    services.wait_until(lambda: "event stream" in seen(server), "the stream to end")
    assert seen(server)["event stream"] == "acme"


def test_sized_and_file_bodies(server: WebServer) -> None:
    """A sized body is bound in each iteration, and the server's file wrapper still works."""
    if server.name in ASGI_SERVERS:
        with Connection(server.port) as connection:
            assert connection.ask("GET", "/background", ACME).status == 200
        services.wait_until(lambda: seen(server).get("background") == "acme", "the background task")
        assert seen(server)["lifespan"] is None
        return
    with Connection(server.port) as connection:
        assert connection.ask("GET", "/sized", ACME).body == b"acme"
    services.wait_until(lambda: seen(server).get("sized") == "acme", "the body to be closed")
    with Connection(server.port) as connection:
        assert b"The WSGI service" in connection.ask("GET", "/file", ACME, "Connection: close").body


# --- websockets ----------------------------------------------------------------------------------


async def test_websocket_runs_under_its_tenant(asgi_server: WebServer) -> None:
    """Accept and each message see it; the next request on the server is clean."""
    url = f"ws://127.0.0.1:{asgi_server.port}/socket"
    async with websockets.connect(url, additional_headers={"X-Tenant": "acme"}) as socket:
        for length in (2, 3):
            await socket.send("x")
            assert json.loads(await socket.recv()) == ["acme"] * length
    await asyncio.to_thread(
        services.wait_until, lambda: seen(asgi_server).get("socket") == "acme", "the socket to be closed"
    )


@pytest.mark.parametrize("tenant", [None, "a:b", "globex-forbidden", "nobody"])
async def test_websocket_is_refused_before_it_is_accepted(asgi_server: WebServer, tenant: str | None) -> None:
    """The handshake fails; the app does not run."""
    url = f"ws://127.0.0.1:{asgi_server.port}/socket"
    headers = {} if tenant is None else {"X-Tenant": tenant}
    with pytest.raises(websockets.InvalidStatus, match="403"):
        async with websockets.connect(url, additional_headers=headers):
            pass
