"""One WSGI call under a tenant, and the body that outlives it."""

from __future__ import annotations

from contextlib import suppress
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, Final

from tenantry.context import unit_of_work
from tenantry.errors import ResolutionError
from tenantry.web.problem import Problem
from tenantry.web.steps import needs_await, run_to_end

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager

    from tenantry.ids import TenantId
    from tenantry.web.gate import Gate
    from tenantry.web.request import WsgiRequest

    WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

__all__ = ["as_wsgi_app", "serve"]


def serve(
    gate: Gate,
    request: WsgiRequest,
    app: WsgiApp,
    start_response: Callable[..., Any],
    as_app: Callable[[Any], WsgiApp],
) -> Iterable[bytes]:
    """Run a WSGI app under the tenant of the request, in a context of its own.

    Nothing is set in the server's context, so nothing can be left there: not by a body that is never
    closed, not by one that another thread finishes, not by two that are interleaved on one thread.
    """
    context = copy_context()
    return context.run(_serve, context, gate, request, app, start_response, as_app)


def _serve(
    context: Context,
    gate: Gate,
    request: WsgiRequest,
    app: WsgiApp,
    start_response: Callable[..., Any],
    as_app: Callable[[Any], WsgiApp],
) -> Iterable[bytes]:
    with unit_of_work(None):
        try:
            tenant_id: TenantId | None = _settled(gate.resolve(request))
        except ResolutionError as error:
            tenant_id, app = None, as_app(_settled(gate.answer(request, error)))
    scope = unit_of_work(tenant_id)
    scope.__enter__()
    try:
        body, is_finished = _called(app, request.raw, start_response)
    except BaseException as error:
        scope.__exit__(type(error), error, error.__traceback__)
        raise
    if is_finished:
        scope.__exit__(None, None, None)
        return body
    kind = _SizedBody if hasattr(body, "__len__") else _Body
    return kind(body, context, scope)


def _settled(result: Any) -> Any:
    return run_to_end(result) if needs_await(result) else result


def as_wsgi_app(answer: Any) -> WsgiApp:
    """Return the answer to a refusal as a WSGI app.

    Raises:
        TypeError: ``on_error`` returned something that is none.
    """
    if isinstance(answer, Problem):
        return _problem_app(answer)
    if not callable(answer):
        raise TypeError(f"on_error has to return a WSGI app, not {type(answer).__name__}")
    app: WsgiApp = answer
    return app


def _problem_app(problem: Problem) -> WsgiApp:
    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        start_response(problem.status_line, [(name.title(), value) for name, value in problem.headers])
        return [] if environ.get("REQUEST_METHOD") == "HEAD" else [problem.body]

    return app


_FILE_WRAPPER: Final = "wsgi.file_wrapper"


def _called(
    app: WsgiApp, environ: dict[str, Any], start_response: Callable[..., Any]
) -> tuple[Iterable[bytes], bool]:
    """Call an app, and tell a body that the server sends by itself: its parts are there, or it is a file."""
    wrapper = environ.get(_FILE_WRAPPER)
    if wrapper is None or isinstance(wrapper, type):
        body = app(environ, start_response)
        return body, type(body) in (list, tuple) or (wrapper is not None and isinstance(body, wrapper))
    # A function, as uWSGI and mod_wsgi have: they know what it has returned, and so does this one.
    files: list[object] = []

    def file_wrapper(*args: Any) -> Any:
        files.append(wrapper(*args))
        return files[-1]

    environ[_FILE_WRAPPER] = file_wrapper
    try:
        body = app(environ, start_response)
    finally:
        environ[_FILE_WRAPPER] = wrapper
    return body, type(body) in (list, tuple) or any(body is file for file in files)


class _Body:
    """A WSGI body whose every step, and whose end, run in the context of its request."""

    __slots__ = ("__weakref__", "_body", "_context", "_scope")

    def __init__(self, body: Any, context: Context, scope: AbstractContextManager[None]) -> None:
        self._body = body
        self._context = context
        self._scope: AbstractContextManager[None] | None = scope

    def __iter__(self) -> Iterator[bytes]:
        return _Iterator(self, self._context.run(iter, self._body), self._context)

    def __next__(self) -> bytes:
        part: bytes = self._context.run(next, self._body)
        return part

    def close(self) -> None:
        self._context.run(self._close)

    def _close(self) -> None:
        scope, self._scope = self._scope, None
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        except BaseException as error:
            if scope is not None:
                scope.__exit__(type(error), error, error.__traceback__)
            raise
        if scope is not None:
            scope.__exit__(None, None, None)

    def __del__(self) -> None:
        # A server that drops a body without closing it would else have its generator finalised in
        # whatever context the collector runs in, which may be another request's.
        if self._scope is not None:
            with suppress(Exception):
                self.close()


class _SizedBody(_Body):
    """A body that tells its number of parts: servers read the length, and some iterate twice."""

    __slots__ = ()

    def __len__(self) -> int:
        return self._context.run(len, self._body)


class _Iterator:
    """One iteration of a body. It holds the body, which is closed when nobody holds it any more."""

    __slots__ = ("_body", "_context", "_parts")

    def __init__(self, body: _Body, parts: Iterator[bytes], context: Context) -> None:
        self._body = body
        self._parts = parts
        self._context = context

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return self._context.run(next, self._parts)
