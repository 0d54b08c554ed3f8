"""Resolvers: from a request to the tenant that it names, or to nothing, or to a refusal.

What a client names is a claim to check. A resolver whose source is the client's word refuses to be
built until it is said who checks it.

Any callable that takes a request and returns an id or ``None``, synchronously or not, is a resolver too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from importlib import import_module
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, Protocol, TypeAlias, runtime_checkable

from tenantry.errors import InvalidTenantIdError
from tenantry.ids import TenantId, ensure_tenant_id
from tenantry.web.hosts import domain_name, host_of, is_ip
from tenantry.web.problem import refusal
from tenantry.web.request import Request, single_header
from tenantry.web.steps import Steps, advance, needs_await

if TYPE_CHECKING:
    from types import ModuleType

__all__ = [
    "AllAgree",
    "Claim",
    "Domain",
    "FirstOf",
    "Header",
    "PathPrefix",
    "Resolver",
    "Session",
    "Subdomain",
]


@runtime_checkable
class Resolver(Protocol):
    """A callable from a request to a tenant id or ``None``, or to an awaitable of that.

    It may raise :class:`~tenantry.ResolutionError` to refuse the request with a status of its own. A
    callable that reads credentials says so with an attribute ``reads_credentials = True``: where it
    resolves nothing, the answer is then 401 rather than 400.
    """

    def __call__(self, request: Request, /) -> Any:
        """Return the tenant id that the request names, or ``None``."""
        ...


# --- how a resolution goes -----------------------------------------------------------------------


class Named(NamedTuple):
    """A tenant, and the source that named it."""

    source: Source
    tenant_id: TenantId


class Finding(NamedTuple):
    """What the sources of a resolver said, grammar checked, trust not yet.

    ``dissent``: of sources that must all speak, one was silent while another spoke. ``final``: no other
    source may be asked, although this one may have named nothing.
    """

    named: tuple[Named, ...] = ()
    dissent: bool = False
    final: bool = False

    @property
    def spoke(self) -> bool:
        return bool(self.named) or self.final


_NO_ID: Final = object()
_NOTHING: Final = Finding()
_NOTHING_FINAL: Final = Finding(final=True)


def resolution(source: Source, request: Request) -> Steps[TenantId | None]:
    """Resolve in the one order there is: grammar, trusted proxies, ``verify``, agreement."""
    named, dissent, _ = yield from source.find(request)
    for each in named:
        each.source.check_peer(request)
    for each in named:
        yield from each.source.check_tenant(request, each.tenant_id)
    if not named:
        return None
    if dissent or len({each.tenant_id for each in named}) > 1:
        raise refusal(403, "The sources of the tenant do not agree.", source.sources)
    return named[0].tenant_id


class Source:
    """Base of the resolvers here. ``find`` reads the request; the checks come after, in a fixed order."""

    __slots__ = ()

    reads_credentials: bool = False
    challenges: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()

    def __call__(self, request: Request, /) -> Any:
        """Return the tenant that the request names, checked, or ``None``; an awaitable if a check is one.

        Raises:
            ResolutionError: The source is present but bad.
        """
        return advance(resolution(self, request))

    def find(self, request: Request) -> Steps[Finding]:
        """Read the request and check the grammar of what it names."""
        raise NotImplementedError

    def check_peer(self, request: Request) -> None:
        """Refuse what did not come through a trusted proxy, where only those may name a tenant."""

    def check_tenant(self, request: Request, tenant_id: TenantId) -> Steps[None]:
        """Ask ``verify``."""
        yield from ()

    def _named(self, value: object) -> Finding:
        """Check the grammar of what the source named."""
        try:
            tenant_id = ensure_tenant_id(value)
        except InvalidTenantIdError:
            tenant_id = None
        if tenant_id is None:
            raise refusal(400, "The request names a tenant in a malformed way.", self.sources)
        return Finding((Named(self, tenant_id),))


def as_source(resolver: object) -> Source:
    """Return a resolver as a source; a callable of the application is one whose word is taken.

    Raises:
        TypeError: It is not callable, or a class.
    """
    if isinstance(resolver, Source):
        return resolver
    if isinstance(resolver, type):
        raise TypeError(f"a resolver is an object or a function: build one, {resolver.__name__}(...)")
    if not callable(resolver):
        raise TypeError(f"a resolver is callable with a request, {type(resolver).__name__} is not")
    return _Custom(resolver)


class _Custom(Source):
    """A callable of the application."""

    def __init__(self, resolver: Callable[[Request], Any]) -> None:
        self._resolver = resolver
        self.reads_credentials = bool(getattr(resolver, "reads_credentials", False))
        self.sources = (getattr(resolver, "__name__", type(resolver).__name__),)

    def find(self, request: Request) -> Steps[Finding]:
        try:
            value = self._resolver(request)
            if needs_await(value):
                value = yield value
        except InvalidTenantIdError:
            value = _NO_ID
        return _NOTHING if value is None else self._named(value)


# --- names that the client chooses ---------------------------------------------------------------

Verify: TypeAlias = Callable[[Request, TenantId], Any]
Network: TypeAlias = IPv4Network | IPv6Network


class Trust(NamedTuple):
    """Who vouches for a tenant that the client has named."""

    verify: Verify | None
    networks: tuple[Network, ...] | None


def _trust(what: str, verify: Verify | None, trusted_proxies: object, trust_client: object) -> Trust:
    if verify is None and trusted_proxies is None and trust_client is not True:
        raise ValueError(
            f"{what} would take a tenant on the client's word. Say who checks it: "
            "verify=(request, tenant_id) -> bool, trusted_proxies=[addresses and networks that may set "
            "it], or trust_client=True where the name is an address and no permission"
        )
    if not isinstance(trust_client, bool):
        raise TypeError(f"{what}: trust_client is True or False, not {type(trust_client).__name__}")
    if verify is not None and not callable(verify):
        raise TypeError(f"{what}: verify is callable with (request, tenant_id)")
    return Trust(verify, None if trusted_proxies is None else _networks(what, trusted_proxies))


def _networks(what: str, trusted_proxies: object) -> tuple[Network, ...]:
    # A network is itself an iterable, of its addresses.
    several = isinstance(trusted_proxies, Iterable) and not isinstance(
        trusted_proxies, str | IPv4Network | IPv6Network
    )
    entries: Iterable[Any] = trusted_proxies if several else (trusted_proxies,)  # type: ignore[assignment]
    networks = []
    for entry in entries:
        if isinstance(entry, bool | int | bytes):
            raise TypeError(f"{what}: trusted_proxies holds addresses and networks as str, not {entry!r}")
        try:
            networks.append(ip_network(entry))
        except ValueError as error:
            raise ValueError(f"{what}: trusted_proxies holds addresses and networks: {error}") from None
    if not networks:
        raise ValueError(f"{what}: trusted_proxies is empty, so that nobody could name a tenant")
    return tuple(networks)


class _ClientNamed(Source):
    """A source that the client fills in."""

    def __init__(
        self, what: str, verify: Verify | None, trusted_proxies: object, trust_client: object
    ) -> None:
        self._trust = _trust(what, verify, trusted_proxies, trust_client)
        self.sources = (what,)

    def __repr__(self) -> str:
        return self.sources[0]

    def find(self, request: Request) -> Steps[Finding]:
        value = self.read(request)
        if needs_await(value):
            value = yield value
        return _NOTHING if value is None else self._named(value)

    def read(self, request: Request) -> Any:
        """Return what the request says, or ``None``, or an awaitable of that."""
        raise NotImplementedError

    def check_peer(self, request: Request) -> None:
        networks = self._trust.networks
        if networks is not None and not _stands_in(request.peer, networks):
            raise refusal(400, "The tenant was named by a peer that may not name one.", self.sources)

    def check_tenant(self, request: Request, tenant_id: TenantId) -> Steps[None]:
        verify = self._trust.verify
        if verify is None:
            return
        answer = verify(request, tenant_id)
        if needs_await(answer):
            answer = yield answer
        if answer is not True:
            raise unknown_tenant(self.sources)


def unknown_tenant(sources: tuple[str, ...]) -> Exception:
    """Return the one refusal for "there is no such tenant" and "not yours": they look alike from outside."""
    return refusal(404, "There is no such tenant.", sources)


def _stands_in(peer: str | None, networks: tuple[Network, ...]) -> bool:
    try:
        address = ip_address(str(peer))
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return any(address in network or (mapped and mapped in network) for network in networks)


_SEEN_LIMIT: Final = 4096  # ids whose bytes are remembered, then it starts over  # pragma: no mutate (tuning)


class Header(_ClientNamed):
    """The tenant is the value of a request header.

    Args:
        name: Header name, dashes rather than underscores.
        verify: ``verify(request, tenant_id)``, synchronous or not; only ``True`` is yes.
        trusted_proxies: Addresses and networks that may set the header; from any other peer it is
            present but bad.
        trust_client: ``True``: the name is an address, not a permission.

    Raises:
        ValueError: None of the three is given; the error names them. Or the name is no header name.

    A header that was sent twice, a comma list, and an alias with underscores are malformed (400).
    """

    def __init__(
        self,
        name: str,
        *,
        verify: Verify | None = None,
        trusted_proxies: Iterable[object] | str | None = None,
        trust_client: bool = False,
    ) -> None:
        self.name = _header_name(name)
        self._wire = name.lower().encode("ascii")
        self._size = len(name)
        self._seen: dict[bytes, TenantId] = {}
        super().__init__(f"Header({name!r})", verify, trusted_proxies, trust_client)
        self.takes_any_word = self._trust == Trust(None, None)

    def read(self, request: Request) -> str | None:
        """Return the header's one value."""
        return single_header(request, self.name)

    def at_once(self, pairs: Iterable[tuple[bytes, bytes]]) -> TenantId | None:
        """Return the id in the headers of an ASGI scope where it is beyond doubt.

        ``None`` decides nothing: whatever is unusual is left to :meth:`find`.
        """
        wire, size, found = self._wire, self._size, None
        for name, value in pairs:
            # An alias is as long as the name, so that one comparison of lengths passes most headers by.
            if len(name) == size:
                if found is not None or name != wire:
                    return None
                found = value
        return None if found is None else self._seen.get(found) or self._see(found)

    def _see(self, value: bytes) -> TenantId | None:
        try:
            tenant_id = ensure_tenant_id(value.decode("ascii"))
        except ValueError:
            return None
        if len(self._seen) >= _SEEN_LIMIT:
            self._seen.clear()
        self._seen[value] = tenant_id
        return tenant_id


def _header_name(name: object) -> str:
    if not isinstance(name, str):
        raise TypeError(f"Header(name): the name is str, not {type(name).__name__}")
    if not name.replace("-", "").isalnum() or not name.isascii():
        raise ValueError(f"Header({name!r}): a header name has letters, digits and dashes")
    return name


class _HostNamed(_ClientNamed):
    """A source that reads the Host header."""

    def read(self, request: Request) -> Any:
        value = single_header(request, "host")
        if not value:
            return None
        host = host_of(value, self.sources[0])
        return None if is_ip(host) else self.of_host(host)

    def of_host(self, host: str) -> Any:
        """Return the tenant of a host that is no address, or ``None``."""
        raise NotImplementedError


class Subdomain(_HostNamed):
    """The tenant is the one label below a base domain: ``acme.example.com``.

    Args:
        base: The base domain, e.g. ``"example.com"``.
        reserved: Labels that name no tenant.
        verify: ``verify(request, tenant_id)``, synchronous or not; only ``True`` is yes.
        trusted_proxies: Addresses and networks that requests may come from.
        trust_client: ``True``: the name is an address, not a permission.

    Raises:
        ValueError: Nobody vouches for the name; or the base is no domain name.

    The host is lower-cased, its port and one trailing dot are stripped. The base itself, hosts that are
    more than one label below it, foreign hosts and addresses name nothing. ``X-Forwarded-Host`` and
    ``Forwarded`` are never read: the server's own proxy handling decides what the host is.
    """

    def __init__(
        self,
        base: str,
        *,
        reserved: Iterable[str] = ("www", "api", "admin", "static"),
        verify: Verify | None = None,
        trusted_proxies: Iterable[object] | str | None = None,
        trust_client: bool = False,
    ) -> None:
        super().__init__(f"Subdomain({base!r})", verify, trusted_proxies, trust_client)
        self._suffix = "." + domain_name(base, "the base of Subdomain")
        self._reserved = _labels(reserved)

    def of_host(self, host: str) -> str | None:
        """Return the one label below the base."""
        label = host.removesuffix(self._suffix)
        if label == host or "." in label or label in self._reserved:
            return None
        return label


def _labels(reserved: Iterable[str]) -> frozenset[str]:
    if isinstance(reserved, str):
        raise TypeError("reserved is a collection of labels, not one str")
    return frozenset(domain_name(label, "a reserved label of Subdomain") for label in reserved)


class Domain(_HostNamed):
    """The tenant is what a whole host maps to: ``shop.acme-stores.com``.

    Args:
        domains: A mapping host → tenant id, copied; or ``fn(host)`` → id or ``None``, synchronous or
            not, called with the host in lower case, port and one trailing dot stripped.
        verify: ``verify(request, tenant_id)``, synchronous or not; only ``True`` is yes.
        trusted_proxies: Addresses and networks that requests may come from.
        trust_client: ``True``: the name is an address, not a permission.

    Raises:
        ValueError: Nobody vouches for the name; or a key of the mapping is no domain name.
        InvalidTenantIdError: A value of the mapping is no tenant id.

    Addresses name nothing.
    """

    def __init__(
        self,
        domains: Mapping[str, str] | Callable[[str], Any],
        *,
        verify: Verify | None = None,
        trusted_proxies: Iterable[object] | str | None = None,
        trust_client: bool = False,
    ) -> None:
        super().__init__("Domain", verify, trusted_proxies, trust_client)
        if isinstance(domains, Mapping):
            self._tenant_of: Callable[[str], Any] = _domains(domains).get
        elif callable(domains):
            self._tenant_of = domains
        else:
            raise TypeError("Domain takes a mapping host -> tenant id, or a callable")

    def of_host(self, host: str) -> Any:
        """Return what the host maps to."""
        return self._tenant_of(host)


def _domains(mapping: Mapping[str, str]) -> dict[str, TenantId]:
    domains: dict[str, TenantId] = {}
    for host, value in mapping.items():
        name, tenant_id = domain_name(host, "a host of Domain"), ensure_tenant_id(value)
        if domains.setdefault(name, tenant_id) != tenant_id:
            raise ValueError(f"Domain maps {name!r} to two tenants")
    return domains


class PathPrefix(_ClientNamed):
    """The tenant is the path segment after a prefix: ``/t/acme/orders`` under ``PathPrefix("/t")``.

    Args:
        prefix: The path before the tenant, beginning with a slash.
        verify: ``verify(request, tenant_id)``, synchronous or not; only ``True`` is yes.
        trusted_proxies: Addresses and networks that requests may come from.
        trust_client: ``True``: the name is an address, not a permission.

    Raises:
        ValueError: Nobody vouches for the name; or the prefix is no path.

    The path is the decoded one, mount point included. It is not rewritten.
    """

    def __init__(
        self,
        prefix: str,
        *,
        verify: Verify | None = None,
        trusted_proxies: Iterable[object] | str | None = None,
        trust_client: bool = False,
    ) -> None:
        if not isinstance(prefix, str):
            raise TypeError(f"PathPrefix(prefix): the prefix is str, not {type(prefix).__name__}")
        if not prefix.startswith("/") or "//" in prefix or not prefix.isprintable():
            raise ValueError(f"PathPrefix({prefix!r}): the prefix is a path such as '/t'")
        super().__init__(f"PathPrefix({prefix!r})", verify, trusted_proxies, trust_client)
        self._prefix = prefix.rstrip("/") + "/"

    def read(self, request: Request) -> str | None:
        """Return the segment after the prefix."""
        path = request.path
        if not path.startswith(self._prefix) or path == self._prefix:
            return None
        return path[len(self._prefix) :].partition("/")[0]


# --- names that were proved ----------------------------------------------------------------------

_ABSENT: Final[Any] = object()


class Claim(Source):
    """The tenant is a claim of the caller's verified token: the recommended source.

    Args:
        name: The claim, e.g. ``"tenant"``.
        key: The key that verifies the bearer token of ``Authorization``, for PyJWT. Needs
            ``pip install tenantry[jwt]``.
        algorithms: Which algorithms the key is for, e.g. ``["RS256"]``; no default, never ``none``.
        audience: Who the token has to be for. Default: a token with an audience is refused.
        issuer: Who has to have issued it. Default: anybody who has the key.
        leeway: Seconds of clock difference, or a ``timedelta``.
        claims: Instead of a key, ``claims(request)`` → mapping that the framework has verified, or
            ``None``; synchronous or not.

    Raises:
        ValueError: Not exactly one of ``key`` and ``claims``; no algorithms, or ``none`` among them;
            options for the key beside ``claims``.
        ImportError: PyJWT is not installed.

    A token that does not verify is a 401. A claim that is present but is not one valid id is present but
    bad (400). A valid token without the claim resolves nothing, and ``FirstOf`` does not go on.
    """

    reads_credentials = True
    challenges: ClassVar[tuple[str, ...]] = ("Bearer",)  # type: ignore[misc]

    def __init__(
        self,
        name: str,
        *,
        key: Any = None,
        algorithms: Sequence[str] | None = None,
        audience: str | Iterable[str] | None = None,
        issuer: str | Sequence[str] | None = None,
        leeway: float | timedelta = 0,
        claims: Callable[[Request], Any] | None = None,
    ) -> None:
        _claim_name(name)
        if (key is None) == (claims is None):
            raise ValueError(
                "Claim takes exactly one of key= (the token is verified here) and claims= (the framework "
                "has verified it)"
            )
        self.name = name
        self.sources = (f"Claim({name!r})",)
        if claims is None:
            self._claims: Callable[[Request], Any] = _Bearer(
                key, algorithms, audience, issuer, leeway, self.sources
            )
            return
        if (algorithms, audience, issuer) != (None, None, None) or leeway != 0:
            raise ValueError(
                "Claim: algorithms=, audience=, issuer= and leeway= are for key=; with claims= the "
                "framework has to check them"
            )
        if not callable(claims):
            raise TypeError("Claim: claims is callable with a request and returns a mapping or None")
        self._claims = claims

    def __repr__(self) -> str:
        return self.sources[0]

    def find(self, request: Request) -> Steps[Finding]:
        """Read the claim of the verified token."""
        claims = self._claims(request)
        if needs_await(claims):
            claims = yield claims
        if claims is None:
            return _NOTHING
        if not isinstance(claims, Mapping):
            raise TypeError(
                f"{self.sources[0]}: claims= has to return a mapping or None, not {type(claims).__name__}"
            )
        value = claims.get(self.name, _ABSENT)
        return _NOTHING_FINAL if value is _ABSENT else self._named(value)


def _claim_name(name: object) -> None:
    if not isinstance(name, str):
        raise TypeError(f"Claim(name): the name is str, not {type(name).__name__}")
    if not name.strip():
        raise ValueError("Claim(name): the name is blank")


class _Bearer:
    """The claims of a request's bearer token (RFC 6750), verified by PyJWT."""

    __slots__ = ("_decode", "_sources")

    def __init__(
        self,
        key: Any,
        algorithms: Sequence[str] | None,
        audience: str | Iterable[str] | None,
        issuer: str | Sequence[str] | None,
        leeway: float | timedelta,
        sources: tuple[str, ...],
    ) -> None:
        jwt = _pyjwt()
        if isinstance(key, str | bytes) and not key.strip():
            raise ValueError("Claim: key is blank, so that anybody could sign")
        seconds = leeway.total_seconds() if isinstance(leeway, timedelta) else leeway
        if not 0 <= seconds < float("inf"):
            raise ValueError("Claim: leeway is a number of seconds, 0 or more")
        self._sources = sources
        self._decode: Callable[[str], Any] = partial(
            jwt.decode,
            key=key,
            algorithms=_algorithms(jwt, algorithms),
            audience=audience,
            issuer=issuer,
            leeway=leeway,
        )

    def __call__(self, request: Request) -> Any:
        token = self._token(request)
        if token is None:
            return None
        with suppress(Exception):  # whatever a token makes the parser raise, it does not verify
            return self._decode(token)
        raise refusal(401, "The token does not verify.", self._sources)

    def _token(self, request: Request) -> str | None:
        value = single_header(request, "authorization")
        if value is None:
            return None
        if "," in value and "bearer" in value.lower():
            raise refusal(400, "More than one Authorization header was sent.", self._sources)
        # At any white space, since the code behind may split so: what it may take for a token is one.
        scheme, *rest = value.split() or [""]
        return " ".join(rest) if scheme.lower() == "bearer" else None


def _algorithms(jwt: ModuleType, algorithms: Sequence[Any] | None) -> list[str]:
    names = [algorithms] if isinstance(algorithms, str) else list(algorithms or ())
    if not names:
        raise ValueError("Claim: key= needs algorithms=, e.g. ['RS256']; there is no default")
    known = jwt.PyJWS().get_algorithms()
    for name in names:
        if not isinstance(name, str) or name.lower() == "none":
            raise ValueError("Claim: the algorithm 'none' verifies nothing")
        if name not in known:
            raise ValueError(f"Claim: PyJWT does not know the algorithm {name!r}")
    return names


def _pyjwt() -> ModuleType:
    try:
        return import_module("jwt")
    except ModuleNotFoundError as error:
        if error.name != "jwt":
            raise
        raise ImportError("Claim(key=…) needs PyJWT: pip install tenantry[jwt]", name="jwt") from error


class Session(Source):
    """The tenant is a value of the framework's session.

    Args:
        key: The session key, e.g. ``"tenant"``.

    On ASGI a session middleware has to stand outside of the tenant middleware; on Django
    ``SessionMiddleware`` before it; on Flask the edge opens the session itself. Where there is no session
    nothing is resolved. A value that is present but not one valid id is present but bad (400).
    """

    reads_credentials = True
    challenges: ClassVar[tuple[str, ...]] = ("Cookie",)  # type: ignore[misc]

    def __init__(self, key: str) -> None:
        if not isinstance(key, str):
            raise TypeError(f"Session(key): the key is str, not {type(key).__name__}")
        if not key.strip():
            raise ValueError("Session(key): the key is blank")
        self._key = key
        self.sources = (f"Session({key!r})",)

    def __repr__(self) -> str:
        return self.sources[0]

    def find(self, request: Request) -> Steps[Finding]:
        """Read the session's value."""
        read = getattr(request, "session_value", None)
        if read is None:
            session = request.session
            value = _ABSENT if session is None else session.get(self._key, _ABSENT)
        else:
            value = read(self._key, _ABSENT)
        if needs_await(value):
            value = yield value
        return _NOTHING if value is _ABSENT else self._named(value)


# --- several sources -----------------------------------------------------------------------------


class _Several(Source):
    def __init__(self, *resolvers: Resolver) -> None:
        name = type(self).__name__
        if not resolvers:
            raise ValueError(f"{name} needs at least one resolver")
        self._members = tuple(as_source(resolver) for resolver in resolvers)
        self.sources = tuple(label for member in self._members for label in member.sources)
        self.reads_credentials = any(member.reads_credentials for member in self._members)
        self.challenges = tuple(dict.fromkeys(each for member in self._members for each in member.challenges))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self.sources)})"


class FirstOf(_Several):
    """The first source that names a tenant decides.

    Args:
        resolvers: In the order in which they are asked.

    Raises:
        ValueError: There is none.
        TypeError: One is not callable.

    It never goes on past a source that is present but bad, nor past a valid token without the claim.
    """

    def find(self, request: Request) -> Steps[Finding]:
        """Ask one after the other, until one has spoken."""
        for member in self._members:
            finding = yield from member.find(request)
            if finding.spoke:
                return finding
        return _NOTHING


class AllAgree(_Several):
    """Every source must name a tenant, and the same one; else the request is refused (403).

    Args:
        resolvers: All are asked.

    Raises:
        ValueError: There is none.
        TypeError: One is not callable.

    Where all are silent, nothing is resolved.
    """

    def find(self, request: Request) -> Steps[Finding]:
        """Ask all."""
        findings: list[Finding] = []
        for member in self._members:
            finding = yield from member.find(request)
            findings.append(finding)
        named = tuple(each for finding in findings for each in finding.named)
        silent = any(finding.dissent or not finding.named for finding in findings)
        return Finding(named, dissent=silent, final=any(each.final for each in findings))
