"""WSGI: Flask, Django, Pyramid, Bottle, bare apps.

*Enters*: with every request, as the resolver says.
*Leaves*: nowhere; the tenant ends when the server closes the response body.
*Runs bound*: the app, each step of a streamed body and its ``close``. List bodies and
``wsgi.file_wrapper`` bodies are handed to the server as they are. Everything that decides runs with none.
*Tested with*: gunicorn 27.0 (sync, gthread, gevent), waitress 3.0, wsgiref, gevent 26.9.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tenantry.web.gate import Exempt, Gate, OnError
from tenantry.web.request import WsgiRequest
from tenantry.web.wsgi import as_wsgi_app, serve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tenantry.ids import TenantId
    from tenantry.lookup import Lookup
    from tenantry.resolvers import Resolver
    from tenantry.web.wsgi import WsgiApp

__all__ = ["TenantMiddleware"]


class TenantMiddleware:
    """Run each request of a WSGI app under the tenant that it names.

    Args:
        app: The WSGI app.
        resolver: Where the tenant comes from; one of :mod:`tenantry.resolvers` or a callable.
        lookup: A :class:`~tenantry.lookup.Lookup`, or a function from tenant id to record or ``None``.
            Default: a resolved tenant is not looked up.
        exempt: Exact paths, or a predicate of the request; nothing is resolved for them.
        optional: Serve requests that name no tenant, with none active. Excuses nothing else.
        on_error: ``on_error(request, error)`` → a WSGI app, such as a Werkzeug response, that answers a
            refusal. Default: a problem document.

    Raises:
        TypeError: An option is missing, unknown or of the wrong type.
        ValueError: An exempt path does not begin with a slash.

    Each request runs in a context of its own: nothing is left for the server's next one. Asynchronous
    callables are run to their end, each on an event loop of its own.
    """

    def __init__(
        self,
        app: WsgiApp,
        *,
        resolver: Resolver,
        lookup: Lookup | Callable[[TenantId], Any] | None = None,
        exempt: Exempt = (),
        optional: bool = False,
        on_error: OnError | None = None,
    ) -> None:
        self.app = app
        self._gate = Gate(
            resolver=resolver,
            lookup=lookup,
            exempt=exempt,
            optional=optional,
            on_error=on_error,
            asynchronous=False,
        )

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Serve one request."""
        return serve(self._gate, WsgiRequest(environ), self.app, start_response, as_wsgi_app)
