"""The Flask edge, driven through WSGI by hand."""

from __future__ import annotations

import json
from typing import Any

import flask
import pytest
from flask.sessions import SecureCookieSessionInterface

from tenantry import current_tenant_or_none
from tenantry.integrations.flask import init_app
from tenantry.resolvers import Session
from tests.contracts.drivers import ask_wsgi, steps
from tests.contracts.web import TRUSTING, Ask, EdgeContract, check_import_without


def make_app() -> flask.Flask:
    app = flask.Flask(__name__)
    app.secret_key = "a secret key"

    @app.route("/boom")
    def boom() -> Any:
        raise ZeroDivisionError

    @app.route("/stream")
    def stream() -> Any:
        return flask.Response(steps())

    methods = ["GET", "HEAD", "PUT", "POST", "OPTIONS"]

    @app.route("/", defaults={"rest": ""}, methods=methods)
    @app.route("/<path:rest>", methods=methods)
    def index(rest: str) -> Any:
        return flask.Response(json.dumps(current_tenant_or_none()))

    return app


class TestFlask(EdgeContract):
    """The contract of web edges, on Flask."""

    def edge(self, **options: Any) -> Ask:
        app = make_app()
        init_app(app, **options)
        return ask_wsgi(app)

    def respond(self, status: int, body: bytes) -> Any:
        return body, status


@pytest.fixture
def app() -> flask.Flask:
    app = make_app()
    init_app(app, resolver=TRUSTING)
    return app


ACME = {"X-Tenant": "acme"}


def test_init_app_twice_is_refused(app: flask.Flask) -> None:
    """The options of two calls cannot be merged."""
    with pytest.raises(RuntimeError, match="already"):
        init_app(app, resolver=TRUSTING)


def test_init_app_takes_a_flask_app() -> None:
    """Anything else is a mistake that shows at once."""
    with pytest.raises(TypeError, match="Flask app"):
        init_app(object(), resolver=TRUSTING)  # type: ignore[arg-type]


def test_hooks_and_bodies_run_bound(app: flask.Flask) -> None:
    """Hooks, async views, error handlers, both kinds of stream, and what runs on close see the tenant."""
    seen: dict[str, object] = {}

    def note(name: str) -> None:
        seen[name] = current_tenant_or_none()

    app.before_request(lambda: note("before"))
    app.teardown_request(lambda error: note("teardown"))

    @app.errorhandler(ZeroDivisionError)
    def handled(error: Exception) -> Any:
        note("handler")
        return "sorry", 500

    @app.route("/late")
    async def late() -> Any:
        note("async view")

        def body() -> Any:
            note("stream")
            yield flask.request.path

        response = flask.Response(flask.stream_with_context(body()))
        response.call_on_close(lambda: note("close"))
        return response

    client = app.test_client()
    assert client.get("/late", headers=ACME).text == "/late"
    assert client.get("/boom", headers=ACME).status_code == 500
    names = {"before", "async view", "stream", "close", "teardown", "handler"}
    assert seen == dict.fromkeys(names, "acme")
    assert current_tenant_or_none() is None


def test_client_that_preserves_the_context_works(app: flask.Flask) -> None:
    """``with client`` keeps ``flask.request`` usable afterwards."""
    with app.test_client() as client:
        client.get("/x", headers=ACME)
        assert flask.request.path == "/x"


def half_read(response: Any) -> None:
    next(response.iter_encoded())


@pytest.mark.parametrize("requests", [1, 2])
@pytest.mark.parametrize(
    "uses",
    [
        [],
        [half_read],
        [lambda response: response.data],
        [lambda response: response.close()],
        [half_read, lambda response: response.close()],
        [lambda response: response.data, lambda response: response.close()],
    ],
    ids=["unread", "half read", "read", "closed", "half read and closed", "read and closed"],
)
@pytest.mark.parametrize("kept", [True, False], ids=["kept", "dropped"])
def test_client_that_preserves_the_context_may_do_with_a_stream_what_it_likes(
    app: flask.Flask, requests: int, uses: list[Any], kept: bool
) -> None:
    """A stream in the request's context and the client in its own have it pushed at once, in any order."""
    seen: set[object] = set()

    @app.route("/long")
    def long() -> Any:
        flask.g.word = "x"

        def body() -> Any:
            for _ in range(3):
                seen.add(current_tenant_or_none())
                yield flask.request.path + flask.g.word

        return flask.Response(flask.stream_with_context(body()))

    responses = []
    with app.test_client() as client:
        for _ in range(requests):
            response = client.get("/long", headers=ACME)
            for use in uses:
                use(response)
            assert flask.request.path + flask.g.word == "/longx"
            if kept:
                responses.append(response)
            del response
    for response in responses:
        response.close()
    assert not flask.has_app_context()
    assert not flask.has_request_context()
    assert seen == {"acme"}


def test_client_that_preserves_the_context_sees_what_the_view_left(app: flask.Flask) -> None:
    """The session, and messages that the page has shown already."""

    @app.route("/page")
    def page() -> str:
        flask.session["user"] = "jane"
        flask.flash("done")
        return "".join(flask.get_flashed_messages())

    with app.test_client() as client:
        assert client.get("/page", headers=ACME).text == "done"
        assert flask.session["user"] == "jane"
        assert flask.get_flashed_messages() == ["done"]


def test_session_is_opened_by_the_edge() -> None:
    """The session of the app is read before a request context exists."""
    app = make_app()

    @app.post("/login/<tenant>")
    def login(tenant: str) -> Any:
        flask.session["tenant"] = tenant
        return "in"

    init_app(app, resolver=Session("tenant"), exempt=lambda request: request.path.startswith("/login/"))
    client = app.test_client()
    assert client.get("/").status_code == 401
    client.post("/login/acme")
    assert client.get("/").json is None or client.get("/").data == b'"acme"'
    client.post("/login/a:b")
    assert client.get("/").status_code == 400
    client.set_cookie("session", "forged")
    assert client.get("/").status_code == 401


def test_session_is_opened_once_when_it_is_first_read() -> None:
    """However many sources read it."""
    app = make_app()
    opened: list[object] = []

    class Counting(SecureCookieSessionInterface):
        def open_session(self, app: Any, request: Any) -> Any:
            opened.append(request.path)
            return super().open_session(app, request)

    app.session_interface = Counting()

    def resolver(request: Any) -> str:
        assert not opened
        assert request.session is request.session
        assert opened == ["/x"]
        return "acme"

    init_app(app, resolver=resolver)
    assert app.test_client().get("/x").status_code == 200


def test_session_without_a_secret_key_names_nothing() -> None:
    """Flask opens no session then."""
    app = make_app()
    app.secret_key = None
    init_app(app, resolver=Session("tenant"))
    assert app.test_client().get("/").status_code == 401


def test_on_error_may_use_what_a_view_may() -> None:
    """``flask.request`` and ``jsonify`` work, and a plain value becomes a response."""
    app = make_app()
    init_app(
        app,
        resolver=TRUSTING,
        on_error=lambda request, error: (flask.jsonify(path=flask.request.path), error.status),
    )
    answer = app.test_client().get("/x")
    assert (answer.status_code, answer.json) == (400, {"path": "/x"})


def test_file_is_sent_by_the_server(app: flask.Flask, tmp_path: Any) -> None:
    """What ``send_file`` gives to ``wsgi.file_wrapper`` reaches the server unwrapped."""
    path = tmp_path / "file.txt"
    path.write_text("content")
    app.add_url_rule("/file", view_func=lambda: flask.send_file(path))
    wrapped: list[Any] = []

    class Wrapper:
        def __init__(self, file: Any, size: int = 8192) -> None:
            self.file = file

        def __iter__(self) -> Any:
            return iter(lambda: self.file.read(4), b"")

        def close(self) -> None:
            self.file.close()

    inner = app.wsgi_app

    def server(environ: dict[str, Any], start_response: Any) -> Any:
        environ["wsgi.file_wrapper"] = Wrapper
        wrapped.append(inner(environ, start_response))
        return wrapped[0]

    app.wsgi_app = server  # type: ignore[method-assign]
    with app.test_client().get("/file", headers=ACME) as response:
        assert response.text == "content"
    assert type(wrapped[0]) is Wrapper


def test_missing_flask_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Flask that is there but broken is not taken for a missing one."""
    check_import_without("flask", monkeypatch)
