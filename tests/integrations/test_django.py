"""The Django edge under WSGI and ASGI, driven by hand."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.test import AsyncRequestFactory, RequestFactory, override_settings

from tenantry import current_tenant_or_none, tenant_scope
from tenantry.integrations.django import TenantMiddleware
from tenantry.resolvers import Header, Session
from tests.contracts import django_project
from tests.contracts.drivers import ask_asgi, ask_wsgi, steps, tenant_text
from tests.contracts.web import TRUSTING, Answer, Ask, EdgeContract, check_import_without

SESSIONS = "django.contrib.sessions.middleware.SessionMiddleware"
TENANTS = "tenantry.integrations.django.TenantMiddleware"


class DjangoContract(EdgeContract):
    """The contract of web edges, with the options in the settings."""

    kind: Any
    build_errors = (ImproperlyConfigured,)

    def edge(self, **options: Any) -> Ask:
        configured = {name.upper(): value for name, value in options.items()}
        with override_settings(TENANTRY=configured):
            handler = self.kind()
        ask = ask_wsgi if self.kind is WSGIHandler else ask_asgi
        return ask(handler)

    def respond(self, status: int, body: bytes) -> Any:
        return HttpResponse(body, status=status)


class TestDjangoWsgi(DjangoContract):
    """Under WSGI."""

    kind = WSGIHandler


class TestDjangoAsgi(DjangoContract):
    """Under ASGI."""

    kind = ASGIHandler
    asynchronous = True


ACME = {"X-Tenant": "acme"}
HANDLERS = pytest.mark.parametrize(("kind", "ask"), [(WSGIHandler, ask_wsgi), (ASGIHandler, ask_asgi)])


def get(kind: Any, ask: Any, path: str) -> Answer:
    django_project.SEEN.clear()
    with override_settings(TENANTRY={"RESOLVER": TRUSTING}):
        answer: Answer = ask(kind())(path, ACME)
    return answer


@HANDLERS
def test_views_of_both_kinds_run_bound(kind: Any, ask: Any) -> None:
    """Django adapts a view of the other kind through threads or loops; the tenant comes along."""
    assert get(kind, ask, "/").json == "acme"
    assert get(kind, ask, "/async").json == "acme"
    assert current_tenant_or_none() is None


@HANDLERS
def test_handler500_runs_bound(kind: Any, ask: Any) -> None:
    """The handler of the most important log line knows the tenant."""
    assert get(kind, ask, "/boom").status == 500
    assert django_project.SEEN == {"handler500": "acme"}


@HANDLERS
def test_closer_of_a_stream_runs_bound(kind: Any, ask: Any) -> None:
    """``close`` of what is streamed sees the tenant, as its steps do."""
    if kind is ASGIHandler:
        with pytest.warns(Warning, match="consume synchronous iterators"):
            answer = get(kind, ask, "/stream-closing")
    else:
        answer = get(kind, ask, "/stream-closing")
    assert answer.body.split() == [b"acme"] * 3
    assert django_project.SEEN == {"close": "acme"}


def test_asynchronous_stream_runs_bound() -> None:
    """Each step and the end of an asynchronous stream see the tenant."""
    assert get(ASGIHandler, ask_asgi, "/stream-async").body.split() == [b"acme"] * 3
    assert django_project.SEEN == {"async finally": "acme"}


async def test_asynchronous_stream_is_closed_bound() -> None:
    """A stream whose client has gone ends under its own tenant."""
    django_project.SEEN.clear()
    with override_settings(TENANTRY={"RESOLVER": TRUSTING}):
        handler = ASGIHandler()
    # The test client of Django 5.2 writes headers= with an underscore, which is an alias and refused.
    request = AsyncRequestFactory().get("/stream-async", **ACME)
    response: Any = await handler.get_response_async(request)
    stream = aiter(response.streaming_content)
    assert await anext(stream) == b"acme "
    del response, stream
    for _ in range(100):
        await asyncio.sleep(0)
    assert django_project.SEEN == {"async finally": "acme"}


@pytest.mark.parametrize("kind", [WSGIHandler, ASGIHandler])
async def test_streamed_answer_to_a_refusal_runs_without_a_tenant(kind: Any) -> None:
    """What ``on_error`` streams never sees what a stale context holds."""

    def answer(request: Any, error: Any) -> StreamingHttpResponse:
        parts = django_project.async_steps() if kind is ASGIHandler else steps()
        return StreamingHttpResponse(parts, status=error.status)

    with override_settings(TENANTRY={"RESOLVER": TRUSTING, "ON_ERROR": answer}):
        handler = kind()
    with tenant_scope("stale"):
        if kind is ASGIHandler:
            response: Any = await handler.get_response_async(AsyncRequestFactory().get("/"))
            parts = [part async for part in response.streaming_content]
        else:
            response = handler.get_response(RequestFactory().get("/"))
            parts = list(response.streaming_content)
        response.close()
    assert (response.status_code, parts) == (400, [b"None "] * 3)


class AsyncParts:
    """An asynchronous iterator that cannot be closed."""

    def __init__(self) -> None:
        self.left = 2

    def __aiter__(self) -> Any:
        return self

    async def __anext__(self) -> bytes:
        if not self.left:
            raise StopAsyncIteration
        self.left -= 1
        return tenant_text()


async def test_stream_may_be_any_asynchronous_iterator() -> None:
    """A generator has an ``aclose``; not every iterator does."""

    async def view(request: Any) -> StreamingHttpResponse:
        return StreamingHttpResponse(AsyncParts())

    response = await TenantMiddleware(view, resolver=TRUSTING)(AsyncRequestFactory().get("/", **ACME))
    assert [part async for part in response.streaming_content] == [b"acme "] * 2


def test_file_is_sent_by_the_server() -> None:
    """A file response keeps the file that ``wsgi.file_wrapper`` is given."""
    with override_settings(TENANTRY={"RESOLVER": TRUSTING}):
        handler = WSGIHandler()
    response: Any = handler.get_response(RequestFactory().get("/file", headers=ACME))
    assert response.file_to_stream is not None
    assert b"A Django project" in response.getvalue()
    response.close()


@HANDLERS
def test_session(kind: Any, ask: Any) -> None:
    """The session is read without blocking the event loop."""
    with override_settings(
        MIDDLEWARE=[SESSIONS, TENANTS],
        TENANTRY={"RESOLVER": Session("tenant"), "EXEMPT": lambda request: request.path.startswith("/login")},
    ):
        app = ask(kind())
        assert app("/").status == 401
        cookie = app("/login/acme").headers["set-cookie"].partition(";")[0]
        assert app("/", {"Cookie": cookie}).json == "acme"
        cookie = app("/login/a:b").headers["set-cookie"].partition(";")[0]
        assert app("/", {"Cookie": cookie}).status == 400
    with override_settings(TENANTRY={"RESOLVER": Session("tenant")}):
        assert ask(kind())("/").status == 401


class AtOnce:
    """A session that has to be read without waiting."""

    def get(self, key: str, default: Any) -> Any:
        return {"tenant": "acme"}.get(key, default)


class Later:
    """A session that must not be read where it would block."""

    async def aget(self, key: str, default: Any) -> Any:
        return AtOnce().get(key, default)


def test_session_is_read_as_the_handler_allows() -> None:
    """By its asynchronous methods where the next handler is asynchronous, and there alone."""
    request: Any = RequestFactory().get("/")
    request.session = AtOnce()
    middleware = TenantMiddleware(django_project.index, resolver=Session("tenant"))
    assert middleware(request).content == b'"acme"'
    request.session = Later()
    middleware = TenantMiddleware(django_project.index_async, resolver=Session("tenant"))
    assert asyncio.run(middleware(request)).content == b'"acme"'


def test_asynchronous_handler_runs_the_edge_on_its_loop() -> None:
    """Django need not adapt it through a thread."""
    seen: list[threading.Thread] = []

    def resolver(request: Any) -> str:
        seen.append(threading.current_thread())
        return "acme"

    with override_settings(TENANTRY={"RESOLVER": resolver}):
        assert ask_asgi(ASGIHandler())("/").json == "acme"
    assert seen == [threading.current_thread()]


def test_alias_of_a_header_is_refused_under_asgi() -> None:
    """Whatever Django makes of it."""
    with override_settings(TENANTRY={"RESOLVER": TRUSTING, "OPTIONAL": True}):
        ask = ask_asgi(ASGIHandler())
    assert ask("/").json is None
    assert ask("/", {"X_Tenant": "acme"}).status == 400


def test_view_of_a_bare_request() -> None:
    """A request that Django's tools have made, and one from a unix socket."""
    seen: list[Any] = []
    middleware = TenantMiddleware(
        django_project.index, resolver=TRUSTING, exempt=lambda view: not seen.append(view)
    )
    middleware(HttpRequest())
    middleware(RequestFactory().get("/", REMOTE_ADDR=""))
    middleware(RequestFactory().post("/x", REMOTE_ADDR="10.0.0.1"))
    assert [(view.method, view.path, view.peer) for view in seen] == [
        ("GET", "", None),
        ("GET", "/", None),
        ("POST", "/x", "10.0.0.1"),
    ]


def on_error(request: Any, error: Any) -> HttpResponse:
    return HttpResponse("mine", status=error.status)


@HANDLERS
def test_settings_may_be_dotted_paths(kind: Any, ask: Any) -> None:
    """Objects of a module by their dotted path; a path of a URL is a path."""
    options = {
        "RESOLVER": "tests.contracts.web.TRUSTING",
        "LOOKUP": "builtins.len",
        "EXEMPT": ["/open"],
        "OPTIONAL": False,
        "ON_ERROR": "tests.integrations.django_dotted.on_error",
    }
    with override_settings(TENANTRY=options):
        app = ask(kind())
    assert app("/", ACME).json == "acme"
    assert app("/open").json is None
    assert (app("/").status, app("/").body) == (400, b"dotted")


@pytest.mark.parametrize(
    "options",
    [
        None,
        {},
        [],
        {"RESOLVER": None},
        {"RESOLVER": "no.such.module"},
        {"RESOLVER": "tests.contracts.web.nothing"},
        {"RESOLVER": "X-Tenant"},
        {"RESOLVER": Header},
        {"RESOLVER": TRUSTING, "EXEMPTED": ()},
        {"RESOLVER": TRUSTING, "resolver": TRUSTING},
        {"RESOLVER": TRUSTING, "EXEMPT": ["healthz"]},
        {"RESOLVER": TRUSTING, "OPTIONAL": 1},
        {"RESOLVER": TRUSTING, "LOOKUP": 7},
    ],
)
@pytest.mark.parametrize("kind", [WSGIHandler, ASGIHandler])
def test_bad_settings_are_found_at_start(options: Any, kind: Any) -> None:
    """Before the first request, and with the name of the setting."""
    with (
        override_settings(TENANTRY=options),
        pytest.raises(ImproperlyConfigured, match=r"settings\.TENANTRY"),
    ):
        kind()


def test_missing_settings_are_found_at_start() -> None:
    """No TENANTRY at all, and none of what it has to say."""
    with pytest.raises(ImproperlyConfigured, match=r"settings\.TENANTRY has to be a dict with"):
        WSGIHandler()
    for options in ({}, {"OPTIONAL": True}, {"RESOLVER": None}):
        with (
            override_settings(TENANTRY=options),
            pytest.raises(ImproperlyConfigured, match=r"settings\.TENANTRY has no RESOLVER"),
        ):
            WSGIHandler()


def test_on_error_that_is_no_response_fails_the_request() -> None:
    """Django answers 500, and its log says why."""
    for view in (django_project.index, django_project.index_async):
        middleware = TenantMiddleware(view, resolver=TRUSTING, on_error=lambda request, error: "sorry")
        with pytest.raises(TypeError, match="on_error has to return an HttpResponse, not str"):
            answer = middleware(RequestFactory().get("/"))
            asyncio.run(answer)


def test_options_may_be_given_in_code() -> None:
    """A subclass or a partial passes them to the middleware itself; the settings are not read then."""
    middleware = TenantMiddleware(django_project.index, resolver=TRUSTING)
    with override_settings(TENANTRY={"RESOLVER": "no.such"}):
        response = middleware(RequestFactory().get("/", headers=ACME))
    assert response.content == b'"acme"'


def test_missing_django_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Django that is there but broken is not taken for a missing one."""
    check_import_without("django", monkeypatch)
