"""ASGI: Starlette, FastAPI, Quart, Litestar, Django's ASGI handler, bare apps.

*Enters*: with every http and websocket connection, as the resolver says.
*Leaves*: nowhere; the tenant ends with the connection.
*Runs bound*: endpoints (in the threadpool too), streamed bodies, background tasks, exception handlers,
websocket accept, receive and close; wrapped outside of the app, its 500 handler too. Lifespan and unknown
scope types run with explicitly none, and so does everything that decides.
*Tested with*: Starlette 1.10, FastAPI 0.165; uvicorn 0.54 (h11, httptools; asyncio, uvloop),
hypercorn 0.18, granian 2.8.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any, TypeAlias

from tenantry.context import begin_unit, end_unit, unit_of_work
from tenantry.errors import ResolutionError
from tenantry.web.gate import Exempt, Gate, OnError
from tenantry.web.problem import Problem
from tenantry.web.request import AsgiRequest
from tenantry.web.steps import needs_await

if TYPE_CHECKING:
    from tenantry.ids import TenantId
    from tenantry.lookup import Lookup
    from tenantry.resolvers import Resolver

__all__ = ["TenantMiddleware"]

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]


class TenantMiddleware:
    """Run each request and websocket of an ASGI app under the tenant that it names.

    Args:
        app: The ASGI app.
        resolver: Where the tenant comes from; one of :mod:`tenantry.resolvers` or a callable.
        lookup: A :class:`~tenantry.lookup.Lookup`, or a function from tenant id to record or ``None``.
            Default: a resolved tenant is not looked up.
        exempt: Exact paths, or a predicate of the request; nothing is resolved for them.
        optional: Serve requests that name no tenant, with none active. Excuses nothing else.
        on_error: ``on_error(request, error)`` → an ASGI app, such as a Starlette response, that answers a
            refusal. Default: a problem document. Not asked for websockets, which are refused before they
            are accepted, with code 1008.

    Raises:
        TypeError: An option is missing, unknown or of the wrong type.
        ValueError: An exempt path does not begin with a slash.

    What is active when a connection enters is always overwritten, since servers hand one request a copy
    of the context of another (python/cpython#140947). Callables may be synchronous or not.
    """

    def __init__(
        self,
        app: App,
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
            asynchronous=True,
        )
        header = self._gate.trusted_header()
        self._at_once = None if header is None else header.at_once

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        at_once = self._at_once
        if at_once is not None and scope["type"] == "http" and scope.get("method") != "OPTIONS":
            # The common case, for a fraction of what the decision costs: nothing is called that could
            # see a stale tenant, and whatever is in doubt takes the way below.
            tenant_id = at_once(scope.get("headers", ()))
            if tenant_id is not None:
                begun = begin_unit(tenant_id)
                try:
                    await self.app(scope, receive, send)
                except BaseException as error:
                    end_unit(begun, error)
                    raise
                end_unit(begun)
                return
        await self._serve(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            with unit_of_work(None):
                await self.app(scope, receive, send)
            return
        with unit_of_work(None):
            request = AsgiRequest(scope)
            try:
                tenant_id = self._gate.resolve(request)
                if needs_await(tenant_id):
                    tenant_id = await tenant_id
            except ResolutionError as error:
                await self._refuse(request, error, receive, send)
                return
        with unit_of_work(tenant_id):
            await self.app(scope, receive, send)

    async def _refuse(
        self, request: AsgiRequest, error: ResolutionError, receive: Receive, send: Send
    ) -> None:
        if request.raw["type"] == "websocket":
            self._gate.log_refusal(error)
            await send({"type": "websocket.close", "code": 1008, "reason": ""})
            return
        answer = self._gate.answer(request, error)
        if needs_await(answer):
            answer = await answer
        if isinstance(answer, Problem):
            await _send_problem(answer, request, send)
        elif callable(answer):
            await answer(request.raw, receive, send)
        else:
            raise TypeError(f"on_error has to return an ASGI app, not {type(answer).__name__}")


async def _send_problem(problem: Problem, request: AsgiRequest, send: Send) -> None:
    headers = [(name.encode("ascii"), value.encode("latin-1")) for name, value in problem.headers]
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    body = b"" if request.method == "HEAD" else problem.body
    await send({"type": "http.response.body", "body": body})
