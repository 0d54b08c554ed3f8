"""The WSGI edge on its own, driven by hand."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import threading
from collections.abc import Iterator
from typing import Any
from wsgiref.util import FileWrapper
from wsgiref.validate import validator

import pytest
from werkzeug.wrappers import Response

from tenantry import add_scope_hook, bind_tenant, current_tenant_or_none
from tenantry.context import get_state, unit_of_work
from tenantry.integrations.wsgi import TenantMiddleware
from tenantry.resolvers import Header
from tests.contracts.drivers import ask_wsgi, send_wsgi, steps, wsgi_app, wsgi_environ
from tests.contracts.web import TRUSTING, Ask, EdgeContract


class TestWsgi(EdgeContract):
    """The contract of web edges, on WSGI."""

    def edge(self, **options: Any) -> Ask:
        return ask_wsgi(TenantMiddleware(wsgi_app, **options))

    def respond(self, status: int, body: bytes) -> Any:
        return Response(body, status)


# --- bodies --------------------------------------------------------------------------------------

ACME = {"X-Tenant": "acme"}


def start(status: str, headers: Any, exc_info: Any = None) -> Any:
    return lambda data: None


def call(app: Any, tenant: str = "acme", **options: Any) -> Any:
    """Run an app under a tenant and return its body, not iterated."""
    environ = wsgi_environ("/", {"X-Tenant": tenant}, "GET", "10.0.0.1")
    return TenantMiddleware(app, resolver=TRUSTING, **options)(environ, start)


class Recording:
    """A body that notes the tenant of each of its steps and of its end."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, object]] = []

    def note(self, what: str) -> None:
        self.seen.append((what, current_tenant_or_none()))

    def __iter__(self) -> Iterator[bytes]:
        self.note("iter")
        for _ in range(2):
            self.note("next")
            yield b"x"

    def close(self) -> None:
        self.note("close")


class Sized(Recording):
    """A body that tells its length."""

    def __len__(self) -> int:
        self.note("len")
        return 2


def test_steps_and_close_run_bound() -> None:
    """From the first step to the close; between the steps nothing is active."""
    body = Recording()
    response = call(lambda environ, start_response: body)
    for _ in response:
        assert get_state().kind == "never set"
    response.close()
    assert body.seen == [("iter", "acme"), ("next", "acme"), ("next", "acme"), ("close", "acme")]
    assert get_state().kind == "never set"


@pytest.mark.parametrize("wrapper", [FileWrapper, lambda file: FileWrapper(file), None])
@pytest.mark.parametrize("body", [[b"a", b"b"], (b"a",), []])
def test_finished_body_stays_as_it_is(body: Any, wrapper: Any) -> None:
    """The server sees the list itself, and may send it in one piece."""
    environ = {**wsgi_environ("/", ACME, "GET", None), "wsgi.file_wrapper": wrapper}
    assert TenantMiddleware(lambda environ, start_response: body, resolver=TRUSTING)(environ, start) is body


@pytest.mark.parametrize(
    "wrapper",
    [FileWrapper, lambda file, size=8192: FileWrapper(file, size), lambda file, size=8192: file],
    ids=["class", "function", "function that returns the file"],
)
def test_file_stays_as_it_is(wrapper: Any) -> None:
    """The server gets back what its own wrapper has made, and may send the file by the kernel."""
    file, made = io.BytesIO(b"content"), []

    def app(environ: Any, start_response: Any) -> Any:
        made.append(environ["wsgi.file_wrapper"](file, 4))
        environ["wsgi.file_wrapper"](io.BytesIO())
        return made[0]

    environ = {**wsgi_environ("/", ACME, "GET", None), "wsgi.file_wrapper": wrapper}
    response: Any = TenantMiddleware(app, resolver=TRUSTING)(environ, start)
    assert response is made[0]
    assert b"".join(response) == b"content"
    assert environ["wsgi.file_wrapper"] is wrapper
    response.close()
    assert file.closed


@pytest.mark.parametrize("wrapper", [FileWrapper, lambda file: FileWrapper(file), None])
def test_body_beside_a_file_runs_bound(wrapper: Any) -> None:
    """What the app makes of a file, or returns in its place, is the app's."""
    environ = {**wsgi_environ("/", ACME, "GET", None), "wsgi.file_wrapper": wrapper}

    def around(environ: Any, start_response: Any) -> Any:
        body = environ["wsgi.file_wrapper"](io.BytesIO(b"content"))
        return (b"%s %s" % (part, str(current_tenant_or_none()).encode()) for part in body)

    def beside(environ: Any, start_response: Any) -> Any:
        if wrapper is not None:
            environ["wsgi.file_wrapper"](io.BytesIO())
        return steps()

    if wrapper is not None:
        assert list(TenantMiddleware(around, resolver=TRUSTING)(environ, start)) == [b"content acme"]
    assert list(TenantMiddleware(beside, resolver=TRUSTING)(environ, start)) == [b"acme "] * 3


@pytest.mark.parametrize("given", [{}, {"wsgi.file_wrapper": None}, {"wsgi.file_wrapper": FileWrapper}])
def test_app_sees_the_servers_own_class_or_that_there_is_none(given: dict[str, Any]) -> None:
    """Some compare types with it, or choose another way to send a file without it."""
    environ = wsgi_environ("/", ACME, "GET", None)
    del environ["wsgi.file_wrapper"]
    environ |= given
    seen: list[dict[str, Any]] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        seen.append({name: value for name, value in environ.items() if name == "wsgi.file_wrapper"})
        return []

    TenantMiddleware(app, resolver=TRUSTING)(environ, start)
    assert seen == [given]
    assert ("wsgi.file_wrapper" in environ) == ("wsgi.file_wrapper" in given)


@pytest.mark.parametrize("wrapper", [FileWrapper, lambda file: FileWrapper(file)])
def test_failing_app_leaves_the_servers_wrapper_in_its_place(wrapper: Any) -> None:
    """As if it had not been called."""
    environ = {**wsgi_environ("/", ACME, "GET", None), "wsgi.file_wrapper": wrapper}
    with pytest.raises(ZeroDivisionError):
        TenantMiddleware(lambda environ, start_response: 1 / 0, resolver=TRUSTING)(environ, start)  # type: ignore[arg-type, return-value]
    assert environ["wsgi.file_wrapper"] is wrapper


def test_sized_body_keeps_its_length_and_may_be_iterated_twice() -> None:
    """Servers count the parts before they send them."""
    body = Sized()
    response = call(lambda environ, start_response: body)
    assert len(response) == 2
    assert sum(map(len, response)) == 2
    assert b"".join(response) == b"xx"
    response.close()
    assert {tenant for _, tenant in body.seen} == {"acme"}
    assert [what for what, _ in body.seen].count("iter") == 2
    assert not hasattr(call(lambda environ, start_response: Recording()), "__len__")


def test_subclass_of_list_runs_bound() -> None:
    """What looks like a list may run code."""

    class Lazy(list[bytes]):
        def __iter__(self) -> Iterator[bytes]:
            return iter([str(current_tenant_or_none()).encode()])

    assert list(call(lambda environ, start_response: Lazy([b""]))) == [b"acme"]


def test_bare_iterator_may_be_advanced_by_hand() -> None:
    """Some middleware takes the first part with ``next``."""
    response = call(lambda environ, start_response: steps())
    assert next(response) == b"acme "
    assert b"".join(response) == b"acme acme "
    response.close()


def test_two_bodies_on_one_thread_stay_apart() -> None:
    """Their steps are interleaved, and the first one ends first."""
    first, second = call(wsgi_stream, "acme"), call(wsgi_stream, "globex")
    one, two = iter(first), iter(second)
    parts = [next(one), next(two), next(one), next(two), next(one)]
    assert next(one, None) is None
    first.close()
    parts.append(next(two))
    second.close()
    assert parts == [b"acme ", b"globex ", b"acme ", b"globex ", b"acme ", b"globex "]
    assert get_state().kind == "never set"


def wsgi_stream(environ: Any, start_response: Any) -> Iterator[bytes]:
    return steps()


def test_other_thread_may_finish_the_body() -> None:
    """Steps and close from another thread run under the tenant, and leave that thread clean."""
    body = Recording()
    response = call(lambda environ, start_response: body)
    parts = iter(response)
    next(parts)
    left: list[str] = []

    def finish() -> None:
        list(parts)
        response.close()
        left.append(get_state().kind)

    thread = threading.Thread(target=finish)
    thread.start()
    thread.join()
    assert {tenant for _, tenant in body.seen} == {"acme"}
    assert left == ["never set"]


def test_body_that_is_never_iterated_leaks_nothing() -> None:
    """Nothing is set in the server's context, whatever happens to the body."""
    for finish in (lambda response: None, lambda response: response.close()):
        response = call(wsgi_stream)
        finish(response)
        del response
        gc.collect()
        assert get_state().kind == "never set"


def test_dropped_body_ends_under_its_own_tenant() -> None:
    """A server that forgets to close it: its ``finally`` does not run as whoever comes next."""
    seen: list[object] = []

    def body() -> Iterator[bytes]:
        try:
            yield b"x"
            yield b"y"
        finally:
            seen.append(current_tenant_or_none())

    parts = iter(call(lambda environ, start_response: body()))
    next(parts)
    with unit_of_work("other"):
        del parts
        gc.collect()
    assert seen == ["acme"]


def test_body_is_closed_as_often_as_the_server_says() -> None:
    """Once more only if it was dropped open."""
    closed, dropped = Recording(), Recording()
    response = call(lambda environ, start_response: closed)
    response.close()
    del response
    assert closed.seen == [("close", "acme")]
    call(lambda environ, start_response: dropped)
    gc.collect()
    assert dropped.seen == [("close", "acme")]


def test_what_is_tied_to_the_tenant_is_told_how_it_ends() -> None:
    """Once, by an error of the app or of the first close, or without one."""
    log: list[object] = []

    class Hook:
        def __enter__(self) -> None:
            log.append("+")

        def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
            log.append((kind, error and error.args, traceback is not None))

    class Broken(Recording):
        def close(self) -> None:
            raise KeyError(current_tenant_or_none())

    remove = add_scope_hook(lambda tenant_id: Hook())
    try:
        response = call(lambda environ, start_response: Broken())
        for active in ("acme", "None"):
            with pytest.raises(KeyError, match=active):
                response.close()
        assert log == ["+", (KeyError, ("acme",), True)]
        log.clear()
        with pytest.raises(ZeroDivisionError):
            call(lambda environ, start_response: 1 / 0)
        assert log == ["+", (ZeroDivisionError, ("division by zero",), True)]
        log.clear()
        call(lambda environ, start_response: [b""])
        call(lambda environ, start_response: Recording()).close()
        assert log == ["+", (None, None, False)] * 2
    finally:
        remove()


def test_body_without_a_close_is_closed_in_silence() -> None:
    """PEP 3333: a body may have one."""

    class Bare:
        def __iter__(self) -> Iterator[bytes]:
            return steps()

    response = call(lambda environ, start_response: Bare())
    assert b"".join(response) == b"acme acme acme "
    response.close()
    assert get_state().kind == "never set"


def test_iteration_keeps_the_body_open() -> None:
    """A server that holds the iterator alone gets all parts."""
    assert b"".join(call(wsgi_stream)) == b"acme acme acme "


def test_error_in_the_body_is_the_servers() -> None:
    """It leaves through ``next``, and close still runs bound."""
    seen: list[object] = []

    class Broken:
        def __iter__(self) -> Iterator[bytes]:
            yield b"x"
            raise ZeroDivisionError

        def close(self) -> None:
            seen.append(current_tenant_or_none())
            raise KeyError("close")

    response = call(lambda environ, start_response: Broken())
    with pytest.raises(ZeroDivisionError):
        list(response)
    with pytest.raises(KeyError, match="close"):
        response.close()
    assert seen == ["acme"]
    assert get_state().kind == "never set"


def test_write_and_exc_info_reach_the_server() -> None:
    """``start_response`` is the server's own, and so is what it returns."""
    written: list[bytes] = []

    def server(status: str, headers: Any, exc_info: Any = None) -> Any:
        return written.append

    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [], None)(b"written")
        return []

    environ = wsgi_environ("/", ACME, "GET", None)
    TenantMiddleware(app, resolver=TRUSTING)(environ, server)
    assert written == [b"written"]


def test_hooks_stay_entered_until_the_body_ends() -> None:
    """What is tied to the tenant's being active ends with the body, once."""
    log: list[str] = []

    @contextlib.contextmanager
    def hook(tenant_id: str) -> Iterator[None]:
        log.append(f"+{tenant_id}")
        try:
            yield
        finally:
            log.append(f"-{tenant_id}")

    remove = add_scope_hook(hook)
    try:
        response = call(lambda environ, start_response: Recording())
        assert log == ["+acme"]
        list(response)
        assert log == ["+acme"]
        response.close()
        response.close()
        assert log == ["+acme", "-acme"]
        call(lambda environ, start_response: [b""])
        with pytest.raises(ZeroDivisionError):
            call(lambda environ, start_response: 1 / 0)
        assert log == ["+acme", "-acme"] * 3
    finally:
        remove()


def test_what_the_app_binds_and_leaves_open_stays_with_the_request() -> None:
    """A tenant that the app sets by hand reaches its own body, and nobody else's."""

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        bind_tenant("acme")
        return steps()

    environ = wsgi_environ("/", {}, "GET", None)
    middleware = TenantMiddleware(app, resolver=TRUSTING, optional=True)
    assert b"".join(middleware(environ, start)) == b"acme acme acme "
    assert get_state().kind == "never set"


# --- environs ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "aliases",
    [
        {"HTTP_X_TENANT": "acme,acme"},
        {"HTTP_X_TENANT": "acme, globex"},
        {"HTTP_X_TENANT": "acme", "HTTP_X-TENANT": "globex"},
        {"HTTP_X_TENANT": "acme", "HTTP_x_tenant": "acme"},
        {"HTTP_X-TENANT": "acme"},
        {"http_x_tenant": "acme"},
    ],
)
def test_header_that_the_server_has_merged_or_kept_twice_is_refused(aliases: dict[str, str]) -> None:
    """Whatever a server makes of duplicates and aliases."""
    environ = {**wsgi_environ("/", {}, "GET", None), **aliases}
    assert send_wsgi(TenantMiddleware(wsgi_app, resolver=TRUSTING), environ).status == 400


def test_mount_point_counts_as_path() -> None:
    """``SCRIPT_NAME`` is part of the path, as it is on ASGI."""
    environ = {**wsgi_environ("/healthz", {}, "GET", None), "SCRIPT_NAME": "/app"}
    for path, status in (("/app/healthz", 200), ("/healthz", 400)):
        app = TenantMiddleware(wsgi_app, resolver=TRUSTING, exempt=[path])
        assert send_wsgi(app, dict(environ)).status == status


def test_wsgiref_validator_has_no_complaint() -> None:
    """Both sides of the middleware keep to PEP 3333."""
    app = validator(TenantMiddleware(validator(strict_app), resolver=TRUSTING))
    for headers in (ACME, {}):
        environ = wsgi_environ("/", headers, "GET", "10.0.0.1")
        del environ["wsgi.file_wrapper"]
        body = app(environ, start)
        assert list(body)
        body.close()


def strict_app(environ: Any, start_response: Any) -> Iterator[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return steps()


# --- asynchronous callables ----------------------------------------------------------------------


async def test_asynchronous_callable_inside_a_running_loop() -> None:
    """A WSGI app that is called on the thread of a loop runs them in another thread."""

    async def verify(request: Any, tenant_id: str) -> bool:
        await asyncio.sleep(0.001)
        return tenant_id == "acme"

    app = TenantMiddleware(wsgi_app, resolver=Header("X-Tenant", verify=verify))
    for tenant, status in (("acme", 200), ("globex", 404)):
        environ = wsgi_environ("/", {"X-Tenant": tenant}, "GET", None)
        assert send_wsgi(app, environ).status == status


def test_asynchronous_callable_leaves_the_threads_event_loop_alone() -> None:
    """A loop that the thread has set stays set, and open."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:

        async def verify(request: Any, tenant_id: str) -> bool:
            return asyncio.get_running_loop() is not loop

        app = TenantMiddleware(wsgi_app, resolver=Header("X-Tenant", verify=verify))
        assert send_wsgi(app, wsgi_environ("/", ACME, "GET", None)).status == 200
        assert asyncio.get_event_loop() is loop
        assert not loop.is_closed()
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def test_on_error_that_is_no_app_fails_the_request() -> None:
    """The server answers 500."""
    app = TenantMiddleware(wsgi_app, resolver=TRUSTING, on_error=lambda request, error: "sorry")
    with pytest.raises(TypeError, match="WSGI app"):
        app(wsgi_environ("/", {}, "GET", None), start)
