"""The application as a server runs it: without the tenant of the test that calls it."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, TypeVar, cast

from tenantry.context import detached
from tenantry.errors import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["untenanted"]

_T = TypeVar("_T")


def untenanted(target: _T) -> _T:
    """Keep the tenant of the test out of the application, as a real server does.

    Without it a test that calls the application inside ``tenant_scope`` passes although the
    application has no middleware: test clients run the application in the test's own context.

    Args:
        target: An ASGI or WSGI application; or a client that calls one: ``httpx.Client`` or
            ``AsyncClient``, Starlette's and FastAPI's ``TestClient``, Flask's and Werkzeug's test
            clients, Django's ``Client`` and ``AsyncClient``, or any object that keeps its
            application in an attribute ``app`` or ``application``.

    Returns:
        For an application, an application that runs it in the *never set* state, streamed bodies
        included, and forwards every attribute to it. A client is changed in place and returned.

    Raises:
        TypeError: ``target`` is none of these things.

    Doing it twice is fine. The tenant of the test is active again when the application returns.
    """
    if isinstance(target, _Application):
        return target
    application = _application_of(target)
    if application is not None:
        return cast("_T", application)
    if _is_django_client(target):
        _detach_django(target)
    elif _is_http_client(target):
        _detach_http(target)
    elif not _detach_attributes(target):
        raise TypeError(
            f"untenanted takes an ASGI or WSGI application or a test client of one, not "
            f"{type(target).__name__} {shown(target)}"
        )
    return target


class _Application:
    """An application that is run detached; its attributes are those of the one inside."""

    __slots__ = ("_application",)

    def __init__(self, application: Any) -> None:
        object.__setattr__(self, "_application", application)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._application, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._application, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._application, name)

    def __repr__(self) -> str:
        return f"untenanted({self._application!r})"

    def test_client(self, *args: Any, **kwargs: Any) -> Any:
        """Return the application's own test client (Flask, Quart), untenanted as well."""
        return untenanted(self._application.test_client(*args, **kwargs))


class _Asgi(_Application):
    __slots__ = ()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await detached(self._application)(scope, receive, send)


class _Wsgi(_Application):
    __slots__ = ()

    def __call__(self, environ: Any, start_response: Any) -> Any:
        body = detached(self._application)(environ, start_response)
        return body if isinstance(body, (list, tuple)) else _Body(body)


class _Body:
    """A streamed body, each step of which runs detached."""

    def __init__(self, body: Iterable[Any]) -> None:
        self._body = body
        self._steps: Iterator[Any] | None = None

    def __iter__(self) -> _Body:
        return self

    def __next__(self) -> Any:
        if self._steps is None:
            self._steps = detached(iter)(self._body)
        return detached(next)(self._steps)

    def close(self) -> None:
        close = getattr(self._body, "close", None)
        if close is not None:
            detached(close)()


def _application_of(target: Any) -> Any:
    """Return the wrapper of an application, or ``None`` for what is none."""
    if isinstance(target, type) or not callable(target):
        return None
    if _is_coroutine_function(target):
        return _Asgi(target)
    arguments = {2: _Wsgi, 3: _Asgi}.get(_positional_arguments(target))
    return None if arguments is None else arguments(target)


def _is_coroutine_function(target: Any) -> bool:
    while isinstance(target, functools.partial):
        target = target.func
    return inspect.iscoroutinefunction(target) or inspect.iscoroutinefunction(
        getattr(type(target), "__call__", None)
    )


def _positional_arguments(target: Any) -> int:
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return 0
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(parameter.kind in kinds for parameter in parameters)


def _detach_attributes(client: Any) -> bool:
    found = False
    for name in ("app", "application"):
        application = getattr(client, name, None)
        wrapper = application if isinstance(application, _Application) else _application_of(application)
        if wrapper is not None:
            setattr(client, name, wrapper)
            found = True
    return found


def _is_http_client(client: Any) -> bool:
    # httpx, and its descendants of other names.
    return hasattr(client, "_transport") and hasattr(client, "_mounts") and hasattr(client, "send")


def _detach_http(client: Any) -> None:
    _detach_attributes(client)
    seen: set[int] = set()
    for transport in (client._transport, *client._mounts.values()):
        _detach_transport(transport, seen)


def _detach_transport(transport: Any, seen: set[int]) -> None:
    """Detach the application of a transport, or its requests; and so for transports inside it."""
    if transport is None or id(transport) in seen:
        return
    seen.add(id(transport))
    if _detach_attributes(transport):
        return
    for name in ("handle_request", "handle_async_request"):
        handle = getattr(transport, name, None)
        if handle is not None:
            setattr(transport, name, detached(handle))
    for inner in list(vars(transport).values()):
        if hasattr(inner, "handle_request") or hasattr(inner, "handle_async_request"):
            _detach_transport(inner, seen)


def _is_django_client(client: Any) -> bool:
    modules = {kind.__module__ for kind in type(client).__mro__}
    return "django.test.client" in modules and hasattr(client, "handler")


def _detach_django(client: Any) -> None:
    send = client.request
    if not isinstance(send, _DjangoRequest):
        wrapper = _AsyncDjangoRequest if _is_coroutine_function(send) else _DjangoRequest
        client.request = wrapper(send)


class _DjangoRequest:
    """The method of Django's test client that all its requests pass."""

    def __init__(self, send: Callable[..., Any]) -> None:
        self._send = detached(send)

    def __call__(self, **request: Any) -> Any:
        return _detach_stream(self._send(**request))


class _AsyncDjangoRequest(_DjangoRequest):
    async def __call__(self, **request: Any) -> Any:
        return _detach_stream(await self._send(**request))


def _detach_stream(response: Any) -> Any:
    if getattr(response, "streaming", False):
        content = response.streaming_content
        response.streaming_content = detached(content) if response.is_async else _Body(content)
    return response
