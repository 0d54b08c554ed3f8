"""Django: ``MIDDLEWARE = [..., "tenantry.integrations.django.TenantMiddleware", ...]``.

*Enters*: with every request, as the resolver says; after the middleware that it builds on (sessions,
authentication) in the list.
*Leaves*: nowhere; the tenant ends with the response, or with the last step of its streamed body.
*Runs bound*: views, synchronous and not, inner middleware, exception handling, streamed bodies and their
closers. Outer middleware and ``request_finished`` run without; so does everything that decides.
*Tested with*: Django 5.2 and 6.1, WSGI and ASGI.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tenantry.context import unit_of_work
from tenantry.errors import ResolutionError
from tenantry.web.gate import Exempt, Gate, OnError
from tenantry.web.problem import Problem
from tenantry.web.request import AsgiHeaders, WsgiHeaders
from tenantry.web.steps import needs_await, run_to_end

try:
    import django  # noqa: F401 - asked first, so that a broken Django is not taken for a missing one
except ModuleNotFoundError as error:
    if error.name != "django":
        raise
    raise ImportError(
        "tenantry.integrations.django needs Django: pip install tenantry[django]", name="django"
    ) from error

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.module_loading import import_string

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping

    from tenantry.ids import TenantId
    from tenantry.lookup import Lookup
    from tenantry.resolvers import Resolver

__all__ = ["TenantMiddleware"]


class TenantMiddleware:
    """Run each request of a Django project under the tenant that it names.

    Args:
        get_response: The next handler; given by Django.
        resolver: Where the tenant comes from; one of :mod:`tenantry.resolvers` or a callable.
        lookup: A :class:`~tenantry.lookup.Lookup`, or a function from tenant id to record or ``None``.
            Default: a resolved tenant is not looked up.
        exempt: Exact paths, or a predicate of the request; nothing is resolved for them.
        optional: Serve requests that name no tenant, with none active. Excuses nothing else.
        on_error: ``on_error(request, error)`` → an ``HttpResponse`` that answers a refusal. Default: a
            problem document.

    Raises:
        TypeError: An option is unknown or of the wrong type.
        ValueError: An exempt path does not begin with a slash.
        ImproperlyConfigured: No option is given, and ``settings.TENANTRY`` is missing or wrong.

    Without options it reads ``settings.TENANTRY``, a dict of ``RESOLVER``, ``LOOKUP``, ``EXEMPT``,
    ``OPTIONAL`` and ``ON_ERROR``: objects, or dotted paths to them.

    Under ASGI callables may be asynchronous; synchronous ones run on the event loop, where Django
    refuses the ORM. Under WSGI asynchronous ones are run to their end.
    """

    async_capable = True

    def __init__(
        self,
        get_response: Callable[[HttpRequest], Any],
        *,
        resolver: Resolver | None = None,
        lookup: Lookup | Callable[[TenantId], Any] | None = None,
        exempt: Exempt = (),
        optional: bool = False,
        on_error: OnError | None = None,
    ) -> None:
        self.get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)
        options: dict[str, Any] = {
            "resolver": resolver,
            "lookup": lookup,
            "exempt": exempt,
            "optional": optional,
            "on_error": on_error,
        }
        if (resolver, lookup, exempt, optional, on_error) != (None, None, (), False, None):
            self._gate = Gate(**options, asynchronous=self._is_async)
        else:
            self._gate = _gate_of_settings(asynchronous=self._is_async)

    def __call__(self, request: HttpRequest) -> Any:
        """Serve one request; a coroutine where the next handler is asynchronous."""
        if self._is_async:
            return self._serve_async(request)
        with unit_of_work(None):
            view = DjangoRequest(request, asynchronous=False)
            try:
                tenant_id = _settled(self._gate.resolve(view))
            except ResolutionError as error:
                return _bound(_response(_settled(self._gate.answer(view, error)), request), None)
        with unit_of_work(tenant_id):
            return _bound(self.get_response(request), tenant_id)

    async def _serve_async(self, request: HttpRequest) -> HttpResponseBase:
        with unit_of_work(None):
            view = DjangoRequest(request, asynchronous=True)
            try:
                tenant_id = self._gate.resolve(view)
                if needs_await(tenant_id):
                    tenant_id = await tenant_id
            except ResolutionError as error:
                answer = self._gate.answer(view, error)
                if needs_await(answer):
                    answer = await answer
                return _bound(_response(answer, request), None)
        with unit_of_work(tenant_id):
            return _bound(await self.get_response(request), tenant_id)


def _settled(result: Any) -> Any:
    return run_to_end(result) if needs_await(result) else result


class DjangoRequest:
    """A Django request."""

    __slots__ = ("_is_async", "raw")

    def __init__(self, request: HttpRequest, *, asynchronous: bool) -> None:
        self.raw = request
        self._is_async = asynchronous

    @property
    def method(self) -> str:
        """The method, upper case."""
        return self.raw.method or "GET"

    @property
    def path(self) -> str:
        """The decoded path, mount point included, query excluded."""
        return self.raw.path

    @property
    def headers(self) -> AsgiHeaders | WsgiHeaders:
        """The headers as the server gave them; what Django merges or drops is still told apart here."""
        scope = getattr(self.raw, "scope", None)
        return WsgiHeaders(self.raw.META) if scope is None else AsgiHeaders(scope.get("headers", ()))

    @property
    def peer(self) -> str | None:
        """``REMOTE_ADDR``, or ``None`` where the server has none."""
        return self.raw.META.get("REMOTE_ADDR") or None

    @property
    def session(self) -> Any:
        """The session, or ``None`` where ``SessionMiddleware`` does not stand before this middleware."""
        return getattr(self.raw, "session", None)

    def session_value(self, key: str, default: Any) -> Any:
        """Return a value of the session, or the promise of one where reading it may not block."""
        session = self.session
        if session is None:
            return default
        return session.aget(key, default) if self._is_async else session.get(key, default)


def _response(answer: Any, request: HttpRequest) -> HttpResponseBase:
    if isinstance(answer, Problem):
        body = b"" if request.method == "HEAD" else answer.body
        headers = {name.title(): value for name, value in answer.headers}
        return HttpResponse(body, status=answer.status, headers=headers)
    if not isinstance(answer, HttpResponseBase):
        raise TypeError(f"on_error has to return an HttpResponse, not {type(answer).__name__}")
    return answer


# --- streamed bodies -----------------------------------------------------------------------------


def _bound(response: Any, tenant_id: TenantId | None) -> HttpResponseBase:
    """Bind what a streaming response does after it was returned: its steps, and its closers."""
    if response.streaming:
        closers = response._resource_closers
        closers[:] = [_bound_closer(closer, tenant_id) for closer in closers]
        # Not through the setter of streaming_content, which takes from a file response the file that
        # the server may send by itself.
        steps = _async_steps if response.is_async else _steps
        response._iterator = steps(response._iterator, tenant_id)
    bound: HttpResponseBase = response
    return bound


def _bound_closer(closer: Callable[[], Any], tenant_id: TenantId | None) -> Callable[[], None]:
    def close() -> None:
        with unit_of_work(tenant_id):
            closer()

    return close


def _steps(parts: Iterator[Any], tenant_id: TenantId | None) -> Iterator[Any]:
    while True:
        with unit_of_work(tenant_id):
            try:
                part = next(parts)
            except StopIteration:
                return
        yield part


async def _async_steps(parts: AsyncIterator[Any], tenant_id: TenantId | None) -> AsyncIterator[Any]:
    try:
        while True:
            with unit_of_work(tenant_id):
                try:
                    part = await anext(parts)
                except StopAsyncIteration:
                    return
            yield part
    finally:
        # Django closes no asynchronous iterator: after a disconnect the event loop finalises this one.
        aclose = getattr(parts, "aclose", None)
        if aclose is not None:
            with unit_of_work(tenant_id):
                await aclose()


# --- settings ------------------------------------------------------------------------------------

_OPTIONS = {
    "RESOLVER": "resolver",
    "LOOKUP": "lookup",
    "EXEMPT": "exempt",
    "OPTIONAL": "optional",
    "ON_ERROR": "on_error",
}


def _gate_of_settings(*, asynchronous: bool) -> Gate:
    configured = getattr(settings, "TENANTRY", None)
    if not isinstance(configured, dict):
        raise ImproperlyConfigured("settings.TENANTRY has to be a dict with at least RESOLVER")
    options = _options_of(configured)
    try:
        return Gate(**options, asynchronous=asynchronous)
    except (TypeError, ValueError) as error:
        raise ImproperlyConfigured(f"settings.TENANTRY: {error}") from error


def _options_of(configured: Mapping[Any, Any]) -> dict[str, Any]:
    unknown = [repr(name) for name in configured if name not in _OPTIONS]
    if unknown:
        raise ImproperlyConfigured(
            f"settings.TENANTRY has unknown options: {', '.join(unknown)}; known are {', '.join(_OPTIONS)}"
        )
    if configured.get("RESOLVER") is None:
        raise ImproperlyConfigured("settings.TENANTRY has no RESOLVER")
    return {_OPTIONS[name]: _imported(name, value) for name, value in configured.items()}


def _imported(name: str, value: Any) -> Any:
    """Return what a dotted path names; a path of a URL is none."""
    if not isinstance(value, str) or value.startswith("/"):
        return value
    try:
        return import_string(value)
    except ImportError as error:
        raise ImproperlyConfigured(f"settings.TENANTRY[{name!r}]: {error}") from error
