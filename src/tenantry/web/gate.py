"""The decision: from an edge's options and a request to the tenant, to none, or to a refusal."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from tenantry.errors import ResolutionError
from tenantry.lookup import Lookup
from tenantry.resolvers import Header, Resolver, as_source, resolution, unknown_tenant
from tenantry.web.problem import problem_of, refusal
from tenantry.web.request import Request
from tenantry.web.steps import Steps, advance, needs_await

if TYPE_CHECKING:
    from tenantry.ids import TenantId

__all__ = ["Gate"]

_log: Final = logging.getLogger("tenantry")

Exempt: TypeAlias = Iterable[str] | Callable[[Request], Any]
OnError: TypeAlias = Callable[[Request, ResolutionError], Any]


class Gate:
    """The options of an edge, validated, and the decision that they make.

    Args:
        resolver: Where the tenant comes from; one of :mod:`tenantry.resolvers` or a callable.
        lookup: A :class:`~tenantry.lookup.Lookup`, or a function that it is made of. Default: a resolved
            tenant is not looked up.
        exempt: Exact paths, or a predicate of the request; nothing is resolved for them.
        optional: Serve requests that name no tenant, with none active. Excuses nothing else.
        on_error: ``on_error(request, error)`` → the host's own response to a refusal. Default: a
            problem document.
        asynchronous: Whether the edge awaits; a synchronous lookup function then runs in a thread.

    Raises:
        TypeError: An option is of the wrong type.
        ValueError: An exempt path does not begin with a slash.

    ``resolve`` and ``answer`` have to be called with no tenant active. Thread-safe.
    """

    __slots__ = (
        "_asynchronous",
        "_challenge",
        "_lookup",
        "_on_error",
        "_optional",
        "_paths",
        "_predicate",
        "_source",
    )

    def __init__(
        self,
        *,
        resolver: Resolver,
        lookup: Lookup | Callable[[TenantId], Any] | None = None,
        exempt: Exempt = (),
        optional: bool = False,
        on_error: OnError | None = None,
        asynchronous: bool,
    ) -> None:
        self._source = as_source(resolver)
        self._lookup = lookup if lookup is None or isinstance(lookup, Lookup) else Lookup(lookup)
        self._predicate = exempt if callable(exempt) else None
        self._paths = frozenset() if callable(exempt) else _paths(exempt)
        if not isinstance(optional, bool):
            raise TypeError(f"optional is True or False, not {type(optional).__name__}")
        self._optional = optional
        if on_error is not None and not callable(on_error):
            raise TypeError("on_error is callable with (request, error)")
        self._on_error = on_error
        self._asynchronous = asynchronous
        self._challenge = ", ".join(self._source.challenges) or "Bearer"

    def trusted_header(self) -> Header | None:
        """Return the resolver, if it is a header whose word is taken and nothing else has to be asked."""
        alone = self._lookup is None and self._predicate is None and not self._paths
        source = self._source
        return source if alone and type(source) is Header and source.takes_any_word else None

    def resolve(self, request: Request) -> Any:
        """Return the tenant under which the request runs, or ``None``; or an awaitable of that.

        Raises:
            ResolutionError: The request is refused. Show the error to :meth:`answer`.
        """
        return advance(self._decision(request))

    def answer(self, request: Request, error: ResolutionError) -> Any:
        """Return the answer to a refusal: a :class:`Problem`, or what ``on_error`` says; or an awaitable.

        Whether ``on_error`` returned a response is for the edge to say.
        """
        self.log_refusal(error)
        if self._on_error is None:
            return problem_of(error, self._challenge)
        return self._on_error(request, error)

    def log_refusal(self, error: ResolutionError) -> None:
        """Log that a request was refused, and nothing of what it said."""
        _log.info("request refused with %s by %s", error.status, ", ".join(self._source.sources))

    def _decision(self, request: Request) -> Steps[TenantId | None]:
        exempt = self._is_exempt(request)
        if needs_await(exempt):
            exempt = yield exempt
        if exempt:
            return None
        tenant_id = yield from resolution(self._source, request)
        if tenant_id is None:
            if self._optional:
                return None
            raise self._nothing_resolved()
        if self._lookup is not None:
            yield from self._look_up(self._lookup, tenant_id)
        return tenant_id

    def _is_exempt(self, request: Request) -> Any:
        if self._paths and request.path in self._paths:
            return True
        if request.method == "OPTIONS" and _is_preflight(request):
            return True
        return self._predicate is not None and self._predicate(request)

    def _look_up(self, lookup: Lookup, tenant_id: TenantId) -> Steps[None]:
        known, active = yield from lookup.check(tenant_id, asynchronous=self._asynchronous)
        if not known:
            raise unknown_tenant(self._source.sources)
        if not active:
            raise refusal(403, "The tenant is not active.", self._source.sources)

    def _nothing_resolved(self) -> ResolutionError:
        status = 401 if self._source.reads_credentials else 400
        return refusal(status, "The request names no tenant.", self._source.sources)


def _paths(exempt: Iterable[str]) -> frozenset[str]:
    paths = (exempt,) if isinstance(exempt, str) else tuple(exempt)
    for path in paths:
        if not isinstance(path, str):
            raise TypeError(f"exempt holds paths as str, not {type(path).__name__}")
        if not path.startswith("/"):
            raise ValueError(f"exempt holds exact paths such as '/healthz', not {path!r}")
    return frozenset(paths)


def _is_preflight(request: Request) -> bool:
    """Tell a CORS preflight, which carries no credentials, from another ``OPTIONS``."""
    get = request.headers.get
    return get("origin") is not None and get("access-control-request-method") is not None
