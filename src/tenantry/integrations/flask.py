"""Flask.

*Enters*: with every request, as the resolver says; ``app.wsgi_app`` is wrapped.
*Leaves*: nowhere; the tenant ends when the server closes the response body.
*Runs bound*: views (asynchronous ones too), ``before_request``, ``teardown_request``, error handlers,
generator bodies, ``stream_with_context``, ``call_on_close``. Everything that decides runs with none.
*Tested with*: Flask 3.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tenantry.web.gate import Exempt, Gate, OnError
from tenantry.web.request import WsgiRequest
from tenantry.web.steps import needs_await, run_to_end
from tenantry.web.wsgi import as_wsgi_app, serve

try:
    import flask
except ModuleNotFoundError as error:
    if error.name != "flask":
        raise
    raise ImportError(
        "tenantry.integrations.flask needs Flask: pip install tenantry[flask]", name="flask"
    ) from error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tenantry.errors import ResolutionError
    from tenantry.ids import TenantId
    from tenantry.lookup import Lookup
    from tenantry.resolvers import Resolver
    from tenantry.web.request import Request
    from tenantry.web.wsgi import WsgiApp

__all__ = ["init_app"]

_EXTENSION = "tenantry"
_PRESERVE = "werkzeug.debug.preserve_context"
_UNOPENED: Any = object()


def init_app(
    app: flask.Flask,
    *,
    resolver: Resolver,
    lookup: Lookup | Callable[[TenantId], Any] | None = None,
    exempt: Exempt = (),
    optional: bool = False,
    on_error: OnError | None = None,
) -> None:
    """Run each request of a Flask app under the tenant that it names.

    Args:
        app: The Flask app; its ``wsgi_app`` is replaced.
        resolver: Where the tenant comes from; one of :mod:`tenantry.resolvers` or a callable.
        lookup: A :class:`~tenantry.lookup.Lookup`, or a function from tenant id to record or ``None``.
            Default: a resolved tenant is not looked up.
        exempt: Exact paths, or a predicate of the request; nothing is resolved for them.
        optional: Serve requests that name no tenant, with none active. Excuses nothing else.
        on_error: ``on_error(request, error)`` → whatever a Flask view may return; called in a request
            context. Default: a problem document.

    Raises:
        TypeError: The app or an option is missing, unknown or of the wrong type.
        ValueError: An exempt path does not begin with a slash.
        RuntimeError: The app has been initialised before.

    ``request.session`` of the resolvers is the session of this app, opened when it is first read.
    """
    if not isinstance(app, flask.Flask):
        raise TypeError(f"init_app takes a Flask app, not {type(app).__name__}")
    if _EXTENSION in app.extensions:
        raise RuntimeError("tenantry is initialised on this Flask app already; options cannot be merged")
    gate = Gate(
        resolver=resolver,
        lookup=lookup,
        exempt=exempt,
        optional=optional,
        on_error=None if on_error is None else _in_request_context(app, on_error),
        asynchronous=False,
    )
    app.extensions[_EXTENSION] = gate
    inner: WsgiApp = app.wsgi_app

    def wsgi_app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        preserve = environ.get(_PRESERVE)
        if preserve is not None:
            environ[_PRESERVE] = lambda context: preserve(_copied(context))
        return serve(gate, FlaskRequest(app, environ), inner, start_response, as_wsgi_app)

    app.wsgi_app = wsgi_app  # type: ignore[method-assign]


def _in_request_context(app: flask.Flask, on_error: OnError) -> OnError:
    """Give ``on_error`` what a view has: a request context, and a free choice of what to return."""
    if not callable(on_error):
        raise TypeError("on_error is callable with (request, error)")

    def respond(request: Request, error: ResolutionError) -> flask.Response:
        with app.request_context(request.raw):
            answer = on_error(request, error)
            if needs_await(answer):
                answer = run_to_end(answer)
            return app.make_response(answer)

    return respond


def _copied(context: Any) -> Any:
    """Return a copy of a context of Flask, for who pushes it outside of the context that the request runs in.

    That is the test client in its ``with`` block, and the debugger. A context of Flask is popped where it
    was pushed last, which must not be there while a stream of the request has it pushed in here.
    """
    if isinstance(context, flask.ctx.RequestContext):
        copied: Any = context.copy()
        copied.flashes = context.flashes
    else:
        copied = context.app.app_context()
        copied.g = context.g
    return copied


class FlaskRequest(WsgiRequest):
    """A WSGI environ, and the session that a Flask app reads from it."""

    __slots__ = ("_app", "_session")

    def __init__(self, app: flask.Flask, environ: dict[str, Any]) -> None:
        super().__init__(environ)
        self._app = app
        self._session = _UNOPENED

    @property
    def session(self) -> Any:
        """The session of the app, opened when it is first read; ``None`` where it has no secret key."""
        if self._session is _UNOPENED:
            app = self._app
            with app.app_context():
                request = app.request_class(self.raw)
                self._session = app.session_interface.open_session(app, request)
        return self._session
