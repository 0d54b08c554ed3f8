"""How resolvers are built, and what they read, apart from any edge."""

from __future__ import annotations

import asyncio
import builtins
import ipaddress
import logging
import sys
import warnings
from datetime import timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tenantry import InvalidTenantIdError, ResolutionError, tenant_scope
from tenantry.resolvers import (
    AllAgree,
    Claim,
    Domain,
    FirstOf,
    Header,
    PathPrefix,
    Resolver,
    Session,
    Subdomain,
)
from tenantry.web.request import AsgiRequest

SECRET = "a secret key of more than thirty-two bytes"


def request(*headers: tuple[bytes, bytes], path: str = "/", **scope: Any) -> AsgiRequest:
    return AsgiRequest({"type": "http", "method": "GET", "path": path, "headers": list(headers), **scope})


def bearer(token: str | bytes) -> AsgiRequest:
    raw = token if isinstance(token, bytes) else token.encode()
    return request((b"authorization", b"Bearer " + raw))


def status_of(resolver: Any, view: Any) -> int:
    with pytest.raises(ResolutionError) as caught:
        resolver(view)
    return caught.value.status


# --- trust ---------------------------------------------------------------------------------------

CLIENT_NAMED = [
    lambda **trust: Header("X-Tenant", **trust),
    lambda **trust: Subdomain("example.com", **trust),
    lambda **trust: Domain({"a.example": "acme"}, **trust),
    lambda **trust: PathPrefix("/t", **trust),
]


@pytest.mark.parametrize("build", CLIENT_NAMED)
@pytest.mark.parametrize("trust", [{}, {"trust_client": False}, {"verify": None, "trusted_proxies": None}])
def test_client_named_source_needs_somebody_who_checks(build: Any, trust: dict[str, Any]) -> None:
    """It refuses to be built, and the error names all three ways out."""
    with pytest.raises(ValueError, match=r"(?s)verify=.*trusted_proxies=.*trust_client=True"):
        build(**trust)


@pytest.mark.parametrize("build", CLIENT_NAMED)
@pytest.mark.parametrize(
    ("trust", "error"),
    [
        ({"trust_client": "yes"}, (TypeError, ValueError)),
        ({"trust_client": 1}, (TypeError, ValueError)),
        ({"verify": True}, TypeError),
        ({"trusted_proxies": []}, ValueError),
        ({"trusted_proxies": ["localhost"]}, ValueError),
        ({"trusted_proxies": ["10.0.0.1/8"]}, ValueError),
        ({"trusted_proxies": ["*"]}, ValueError),
        ({"trusted_proxies": [""]}, ValueError),
        ({"trusted_proxies": [7]}, TypeError),
        ({"trusted_proxies": 7}, TypeError),
        ({"trusted_proxies": True}, TypeError),
        ({"trusted_proxies": [b"\x0a\x00\x00\x01"]}, TypeError),
        ({"trusted_proxies": ["10.0.0.1", "localhost"]}, ValueError),
        ({"trusted_proxies": ["10.0.0.1", 7]}, TypeError),
        ({"trusted_proxies": ["10.0.0.1"], "trust_client": "yes"}, TypeError),
        ({"verify": print, "trust_client": 1}, TypeError),
        ({"trusted_proxies": ["10.0.0.1"], "verify": "yes"}, TypeError),
    ],
)
def test_bad_trust_is_refused(build: Any, trust: dict[str, Any], error: Any) -> None:
    """Anything but the explicit forms is a mistake."""
    with pytest.raises(error, match=r"\S"):
        build(**trust)


@pytest.mark.parametrize("build", CLIENT_NAMED)
@pytest.mark.parametrize(
    "proxies",
    [
        "10.0.0.1",
        ["10.0.0.0/8", "fd00::/8"],
        [ipaddress.ip_address("10.0.0.1")],
        ipaddress.ip_address("10.0.0.1"),
        ipaddress.ip_network("10.0.0.0/8"),
        {"10.0.0.1"},
    ],
)
def test_proxies_are_addresses_and_networks(build: Any, proxies: Any) -> None:
    """As text or as objects, one or several."""
    assert build(trusted_proxies=proxies)


def test_proxies_and_verify_are_both_asked() -> None:
    """One does not excuse the other."""
    resolver = Header("X-Tenant", trusted_proxies="10.0.0.1", verify=lambda view, tenant_id: False)
    named = (b"x-tenant", b"acme")
    assert status_of(resolver, request(named, client=("10.0.0.1", 1))) == 404
    assert status_of(resolver, request(named, client=("10.0.0.2", 1))) == 400


@pytest.mark.parametrize(
    ("network", "peer", "trusted"),
    [
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.0.0.0/8", "::ffff:10.1.2.3", True),
        ("10.0.0.0/8", "::ffff:11.1.2.3", False),
        ("::ffff:10.0.0.0/104", "::ffff:10.1.2.3", True),
        ("fe80::/10", "fe80::1%eth0", True),
        ("10.0.0.1", "10.0.0.1:5000", False),
        ("0.0.0.0/0", "::1", False),
    ],
)
def test_network_holds_its_peers(network: str, peer: str, trusted: bool) -> None:
    """An IPv4 address that arrives in its IPv6 form is the same peer."""
    resolver = Header("X-Tenant", trusted_proxies=[network])
    view = request((b"x-tenant", b"acme"), client=(peer, 1))
    if trusted:
        assert resolver(view) == "acme"
    else:
        assert status_of(resolver, view) == 400


@pytest.mark.parametrize("client", [None, ("unix", 0), ("", 0), ("10.0.0.1 ", 0), ("10.0.0.1.evil", 0)])
def test_peer_without_an_address_is_not_trusted(client: Any) -> None:
    """A unix socket has none: the server's proxy handling has to supply it."""
    resolver = Header("X-Tenant", trusted_proxies="10.0.0.1")
    assert status_of(resolver, request((b"x-tenant", b"acme"), client=client)) == 400


@pytest.mark.parametrize(
    ("build", "error"),
    [
        (lambda: Header("", trust_client=True), ValueError),
        (lambda: Header("X_Tenant", trust_client=True), ValueError),
        (lambda: Header("X Tenant", trust_client=True), ValueError),
        (lambda: Header("X-Ténant", trust_client=True), ValueError),
        (lambda: Header(b"X-Tenant", trust_client=True), TypeError),  # type: ignore[arg-type]
        (lambda: Subdomain("", trust_client=True), ValueError),
        (lambda: Subdomain("10.0.0.1", trust_client=True), ValueError),
        (lambda: Subdomain("example.com:8000", trust_client=True), ValueError),
        (lambda: Subdomain("*.example.com", trust_client=True), ValueError),
        (lambda: Subdomain(".example.com", trust_client=True), ValueError),
        (lambda: Subdomain("https://example.com", trust_client=True), ValueError),
        (lambda: Subdomain("straße.example", trust_client=True), ValueError),
        (lambda: Subdomain(None, trust_client=True), TypeError),  # type: ignore[arg-type]
        (lambda: Subdomain("example.com", reserved="www", trust_client=True), TypeError),
        (lambda: Domain({"10.0.0.1": "acme"}, trust_client=True), ValueError),
        (lambda: Domain({"[::1]": "acme"}, trust_client=True), ValueError),
        (lambda: Domain({"a.example": "a:b"}, trust_client=True), InvalidTenantIdError),
        (lambda: Domain({"a.example": "a", "A.example.": "b"}, trust_client=True), ValueError),
        (lambda: Domain(["a.example"], trust_client=True), TypeError),  # type: ignore[arg-type]
        (lambda: PathPrefix("", trust_client=True), ValueError),
        (lambda: PathPrefix("t", trust_client=True), ValueError),
        (lambda: PathPrefix("/t//", trust_client=True), ValueError),
        (lambda: PathPrefix("/t\n", trust_client=True), ValueError),
        (lambda: PathPrefix(None, trust_client=True), TypeError),  # type: ignore[arg-type]
        (lambda: Session(""), ValueError),
        (lambda: Session(None), TypeError),  # type: ignore[arg-type]
        (lambda: Claim("", key=SECRET, algorithms=["HS256"]), ValueError),
        (lambda: Claim(None, key=SECRET, algorithms=["HS256"]), TypeError),  # type: ignore[arg-type]
        (lambda: FirstOf(), ValueError),
        (lambda: AllAgree(), ValueError),
        (lambda: FirstOf(None), TypeError),  # type: ignore[arg-type]
        (lambda: AllAgree(Header), TypeError),
    ],
)
def test_bad_construction_is_refused(build: Any, error: type[Exception]) -> None:
    """A mistake shows when the resolver is built, not when a request comes."""
    with pytest.raises(error, match=r"\S"):
        build()


@pytest.mark.parametrize("name", ["", "X_Tenant", "X Tenant", "X-Ténant", "X-²"])
def test_header_that_has_no_such_name_says_what_one_has(name: str) -> None:
    """The message is for whoever wrote the option."""
    with pytest.raises(ValueError, match="has letters, digits and dashes"):
        Header(name, trust_client=True)
    with pytest.raises(TypeError, match="the name is str, not bytes"):
        Header(name.encode(), trust_client=True)  # type: ignore[arg-type]


def test_a_resolver_is_any_callable() -> None:
    """The protocol is a call; those here and a function fulfil it."""
    assert isinstance(Header("X-Tenant", trust_client=True), Resolver)
    assert isinstance(lambda view: None, Resolver)


def test_resolver_may_be_called_by_another() -> None:
    """A resolver of the application may use one of these: it checks all that it checks elsewhere."""
    header = Header("X-Tenant", verify=lambda view, tenant_id: tenant_id == "acme")
    assert header(request((b"x-tenant", b"acme"))) == "acme"
    assert header(request()) is None
    assert status_of(header, request((b"x-tenant", b"globex"))) == 404

    async def verify(view: Any, tenant_id: str) -> bool:
        await asyncio.sleep(0)
        return True

    promised = Header("X-Tenant", verify=verify)(request((b"x-tenant", b"acme")))
    assert asyncio.run(promised) == "acme"


def test_resolver_reads_a_view_of_another_edge() -> None:
    """An edge of the user's own may show any object with the attributes of a request."""
    view = SimpleNamespace(
        method="GET",
        path="/t/acme",
        headers={"X-Tenant": "acme"},
        peer="10.0.0.1",
        session={"t": "acme"},
        raw=None,
    )
    for resolver in (
        Header("X-Tenant", trusted_proxies="10.0.0.1"),
        PathPrefix("/t", trust_client=True),
        Session("t"),
    ):
        assert resolver(view) == "acme"


def test_resolver_that_finds_an_invalid_id_is_400() -> None:
    """An application's resolver may validate by itself; what it finds is malformed all the same."""

    def resolver(view: Any) -> str:
        with tenant_scope("a:b") as tenant_id:
            return tenant_id

    assert status_of(FirstOf(resolver), request()) == 400


def test_errors_name_their_sources_and_no_value() -> None:
    """``.tried`` says who was asked."""
    resolver = FirstOf(Header("X-Tenant", trust_client=True), Claim("tenant", claims=lambda view: None))
    with pytest.raises(ResolutionError) as caught:
        resolver(request((b"x-tenant", b"s3cret:value")))
    assert caught.value.tried == ("Header('X-Tenant')",)
    assert "s3cret" not in repr(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert repr(resolver) == "FirstOf(Header('X-Tenant'), Claim('tenant'))"


def test_error_of_the_applications_resolver_names_it() -> None:
    """A function by its name, an object by its class."""

    class ByTable:
        def __call__(self, view: Any) -> str:
            return "a:b"

    def by_table(view: Any) -> str:
        return "a:b"

    for resolver, name in ((by_table, "by_table"), (ByTable(), "ByTable")):
        with pytest.raises(ResolutionError) as caught:
            FirstOf(resolver)(request())
        assert caught.value.tried == (name,)


# --- headers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        [(b"x-tenant", b"acme"), (b"x-tenant", b"acme")],
        [(b"X-Tenant", b"acme"), (b"x-tenant", b"globex")],
        [(b"x-tenant", b"acme"), (b"x_tenant", b"acme")],
        [(b"x_tenant", b"acme"), (b"x-tenant", b"acme")],
        [(b"X_TENANT", b"acme")],
        [(b"x-tenant", b"acme,")],
        [(b"x-tenant", b",acme")],
    ],
)
def test_header_that_servers_merge_differently_is_refused(headers: Any) -> None:
    """Twice, under an alias, or as a list."""
    assert status_of(Header("X-Tenant", trust_client=True), request(*headers)) == 400


def test_header_name_counts_in_any_case() -> None:
    """The name of the option and the name on the wire."""
    assert Header("x-TENANT", trust_client=True)(request((b"X-Tenant", b"acme"))) == "acme"


def test_uuid_is_an_id() -> None:
    """A callable may return one; the id is its text."""
    uuid = UUID("12345678-1234-5678-1234-567812345678")
    assert FirstOf(lambda view: uuid)(request()) == str(uuid)


# --- hosts ---------------------------------------------------------------------------------------


def test_two_hosts_are_refused() -> None:
    """A request with two Host headers is malformed."""
    hosts = ((b"host", b"acme.example.com"), (b"host", b"acme.example.com"))
    assert status_of(Subdomain("example.com", trust_client=True), request(*hosts)) == 400


@pytest.mark.parametrize(
    "host", [b"127.0.0.1", b"127.1", b"0x7f.1", b"acme.1", b"[::1]", b"[::ffff:127.0.0.1]:80", b"1"]
)
def test_address_names_nothing(host: bytes) -> None:
    """Not even where it ends like the base."""
    asked: list[str] = []
    assert Domain(asked.append, trust_client=True)(request((b"host", host))) is None
    assert not asked


def test_base_of_several_labels_and_of_one() -> None:
    """The base is a suffix at a dot, whatever its length."""
    deep = Subdomain("eu.example.co.uk", trust_client=True)
    assert deep(request((b"host", b"acme.eu.example.co.uk"))) == "acme"
    assert deep(request((b"host", b"acme.example.co.uk"))) is None
    local = Subdomain("localhost", trust_client=True)
    assert local(request((b"host", b"acme.localhost:8000"))) == "acme"
    assert local(request((b"host", b"localhost:8000"))) is None


def test_internationalised_base_is_compared_as_it_is_sent() -> None:
    """Browsers send A-labels."""
    resolver = Subdomain("Bücher.example", trust_client=True)
    assert resolver(request((b"host", b"acme.xn--bcher-kva.example"))) == "acme"
    assert status_of(resolver, request((b"host", "acme.bücher.example".encode()))) == 400


def test_reserved_labels_may_be_chosen() -> None:
    """They replace the default ones; case does not matter."""
    resolver = Subdomain("example.com", reserved=["Status"], trust_client=True)
    assert resolver(request((b"host", b"status.example.com"))) is None
    assert resolver(request((b"host", b"www.example.com"))) == "www"


# --- tokens --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({}, "exactly one"),
        ({"key": SECRET, "claims": dict}, "exactly one"),
        ({"key": SECRET}, "algorithms="),
        ({"key": SECRET, "algorithms": []}, "algorithms="),
        ({"key": SECRET, "algorithms": ["none"]}, "none"),
        ({"key": SECRET, "algorithms": ["HS256", "None"]}, "none"),
        ({"key": SECRET, "algorithms": "NONE"}, "none"),
        ({"key": SECRET, "algorithms": [None]}, "none"),
        ({"key": SECRET, "algorithms": ["HS257"]}, "does not know"),
        ({"key": "", "algorithms": ["HS256"]}, "blank"),
        ({"key": b" ", "algorithms": ["HS256"]}, "blank"),
        ({"key": SECRET, "algorithms": ["HS256"], "leeway": -1}, "leeway"),
        ({"claims": dict, "algorithms": ["HS256"]}, "for key="),
        ({"claims": dict, "audience": "api"}, "for key="),
        ({"claims": dict, "issuer": "me"}, "for key="),
        ({"claims": dict, "leeway": 1}, "for key="),
    ],
)
def test_claim_refuses_doubtful_options(options: dict[str, Any], match: str) -> None:
    """Exactly one of key and claims, and no default for what decides."""
    with pytest.raises(ValueError, match=match):
        Claim("tenant", **options)


def test_claims_has_to_be_callable() -> None:
    """A mapping is not one."""
    with pytest.raises(TypeError, match="claims is callable"):
        Claim("tenant", claims={"tenant": "acme"})  # type: ignore[arg-type]


def token(key: Any = SECRET, algorithm: str | None = "HS256", **claims: Any) -> str:
    return jwt.encode({"tenant": "acme", **claims}, key, algorithm=algorithm)


def test_algorithm_of_the_key_alone_is_accepted() -> None:
    """Neither ``none`` nor another algorithm, nor the public key as an HMAC secret."""
    private = rsa.generate_private_key(65537, 2048)
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    claim = Claim("tenant", key=public, algorithms=["RS256"])
    assert claim(bearer(token(private, "RS256"))) == "acme"
    as_object = Claim("tenant", key=private.public_key(), algorithms=["RS256"])
    assert as_object(bearer(token(private, "RS256"))) == "acme"
    assert status_of(claim, bearer(token("", None))) == 401
    assert status_of(claim, bearer(token(SECRET, "HS256"))) == 401
    assert status_of(claim, bearer(token(private, "RS512"))) == 401
    both = Claim("tenant", key=public, algorithms=["RS256", "HS256"])
    forged = token("x" * 40, "HS256").rpartition(".")[0]
    signature = jwt.get_algorithm_by_name("HS256").sign(forged.encode(), public)
    confused = forged.encode() + b"." + jwt.utils.base64url_encode(signature)
    assert status_of(both, bearer(confused)) == 401


def test_audience_issuer_and_time_are_checked() -> None:
    """As the options say; a token for somebody else is not for us."""
    claim = Claim(
        "tenant", key=SECRET, algorithms=["HS256"], audience="api", issuer="me", leeway=timedelta(hours=1)
    )
    good = {"aud": "api", "iss": "me"}
    assert claim(bearer(token(**good))) == "acme"
    assert status_of(claim, bearer(token(iss="me"))) == 401
    assert status_of(claim, bearer(token(aud="api"))) == 401
    assert status_of(claim, bearer(token(**{**good, "aud": "other"}))) == 401
    assert status_of(claim, bearer(token(**{**good, "iss": "other"}))) == 401
    assert status_of(claim, bearer(token(**good, exp=1))) == 401
    assert status_of(claim, bearer(token(**good, nbf=2**33))) == 401
    plain = Claim("tenant", key=SECRET, algorithms="HS256")
    assert status_of(plain, bearer(token(aud="api"))) == 401


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"x",
        b"a.b.c",
        b"...",
        b"\xff\xfe",
        b"e30.e30.e30",
        b"bnVsbA.bnVsbA.bnVsbA",
        b"W10.W10.W10",
        b"a b",
        jwt.utils.base64url_encode(b"[" * 100_000) + b".e30.e30",
        jwt.utils.base64url_encode(b'{"alg":' + b"1" * 5000 + b"}") + b".e30.e30",
    ],
)
def test_hostile_token_is_401(raw: bytes) -> None:
    """Whatever a token makes the parser raise, it does not verify."""
    assert status_of(Claim("tenant", key=SECRET, algorithms=["HS256"]), bearer(raw)) == 401


def test_token_of_another_shape_is_never_a_tenant() -> None:
    """Every change of one byte of a valid token is refused."""
    claim = Claim("tenant", key=SECRET, algorithms=["HS256"])
    good = token()
    assert claim(bearer(good)) == "acme"
    for index in range(0, len(good), 3):
        changed = good[:index] + ("A" if good[index] != "A" else "B") + good[index + 1 :]
        # The last character of a base64 text carries bits that nobody reads.
        if index != len(good) - 1:
            assert status_of(claim, bearer(changed)) == 401


@pytest.mark.parametrize(
    ("value", "outcome"),
    [
        (b"Basic dXNlcjpwYXNz", None),
        (b'Digest username="a", realm="b"', None),
        (b"", None),
        (b"Bearer", 401),
        (b"bearer ", 401),
        (b"Bearer\tx.y.z", 401),
        (b"Bearer\x0bx.y.z", 401),
        (b"Bearer\xa0x.y.z", 401),
        (b"Basic dXNlcjpwYXNz,Bearer x.y.z", 400),
        (b"Bearer x.y.z, Bearer x.y.z", 400),
    ],
)
def test_authorization_of_other_schemes(value: bytes, outcome: int | None) -> None:
    """Another scheme names nothing; two of them in one header are malformed."""
    claim = Claim("tenant", key=SECRET, algorithms=["HS256"])
    view = request((b"authorization", value))
    if outcome is None:
        assert claim(view) is None
    else:
        assert status_of(claim, view) == outcome


def test_scheme_counts_in_any_case_and_twice_is_refused() -> None:
    """RFC 9110: the scheme is case-insensitive; a repeated header is malformed."""
    claim = Claim("tenant", key=SECRET, algorithms=["HS256"])
    header = (b"authorization", b"bEARER " + token().encode())
    assert claim(request(header)) == "acme"
    assert status_of(claim, request(header, header)) == 400


def test_claims_of_the_framework() -> None:
    """A mapping that was verified elsewhere, or ``None`` for nobody."""
    assert Claim("tenant", claims=lambda view: {"tenant": "acme"})(request()) == "acme"
    assert Claim("tenant", claims=lambda view: None)(request()) is None
    assert Claim("tenant", claims=lambda view: {})(request()) is None
    assert status_of(Claim("tenant", claims=lambda view: {"tenant": None}), request()) == 400
    with pytest.raises(TypeError, match="mapping or None"):
        Claim("tenant", claims=lambda view: "acme")(request())


def test_claims_that_are_empty_end_the_search() -> None:
    """Somebody is logged in, for no tenant; ``None`` says that nobody is."""
    header = Header("X-Tenant", trust_client=True)
    named = request((b"x-tenant", b"acme"))
    assert FirstOf(Claim("tenant", claims=lambda view: {}), header)(named) is None
    assert FirstOf(Claim("tenant", claims=lambda view: None), header)(named) == "acme"
    agreed = AllAgree(Claim("tenant", claims=lambda view: {}), Header("X-Other", trust_client=True))
    assert FirstOf(agreed, header)(named) is None
    assert FirstOf(AllAgree(header, Header("X-Other", trust_client=True)), header)(request()) is None


def test_missing_pyjwt_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """And a PyJWT that is there but broken is not taken for a missing one."""
    monkeypatch.setitem(sys.modules, "jwt", None)
    with pytest.raises(ImportError, match=r"pip install tenantry\[jwt\]"):
        Claim("tenant", key=SECRET, algorithms=["HS256"])
    assert Claim("tenant", claims=dict)
    monkeypatch.delitem(sys.modules, "jwt")
    real = builtins.__import__

    def broken(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "jwt":
            raise ModuleNotFoundError("No module named 'other'", name="other")
        return real(name, *args, **kwargs)

    monkeypatch.setattr("tenantry.resolvers.import_module", lambda name: broken(name))
    with pytest.raises(ModuleNotFoundError, match="other"):
        Claim("tenant", key=SECRET, algorithms=["HS256"])


# --- several -------------------------------------------------------------------------------------

A = Header("X-A", trust_client=True)
B = Header("X-B", trust_client=True)
C = Header("X-C", trust_client=True)


def ask(resolver: Any, **named: str) -> Any:
    view = request(*((f"x-{name}".encode(), value.encode()) for name, value in named.items()))
    try:
        return resolver(view)
    except ResolutionError as error:
        return error.status


def test_first_of_takes_the_first_that_speaks() -> None:
    """And goes on past silence only."""
    assert ask(FirstOf(A, B), a="x", b="y") == "x"
    assert ask(FirstOf(A, B), b="y") == "y"
    assert ask(FirstOf(A, B)) is None
    assert ask(FirstOf(A, B), a="x:", b="y") == 400
    assert ask(FirstOf(A, B), a="x", b="y:") == "x"


async def test_each_kind_of_source_may_have_to_be_awaited() -> None:
    """A promise of a tenant is waited for, and its absence is told from it."""

    async def own(view: Any) -> str | None:
        return view.headers.get("x-own")

    async def tenant_of(host: str) -> str | None:
        return {"a.example": "acme"}.get(host)

    async def verify(view: Any, tenant_id: str) -> bool:
        return tenant_id == "acme"

    async def claims(view: Any) -> dict[str, str] | None:
        return {"tenant": "acme"} if view.headers.get("cookie") else None

    several = FirstOf(own, Domain(tenant_of, verify=verify), Claim("tenant", claims=claims))
    assert await several(request()) is None
    assert await several(request((b"x-own", b"globex"))) == "globex"
    assert await several(request((b"host", b"a.example"))) == "acme"
    assert await several(request((b"host", b"b.example"))) is None
    assert await several(request((b"host", b"b.example"), (b"cookie", b"c"))) == "acme"
    with pytest.raises(ResolutionError, match="400"):
        await several(request((b"x-own", b"a:b"), (b"host", b"a.example")))


def test_repr_tells_the_source() -> None:
    """As it was written, without who vouches for it."""
    sources = {
        "Header('X-Tenant')": Header("X-Tenant", trust_client=True),
        "Subdomain('example.com')": Subdomain("example.com", trust_client=True),
        "Domain": Domain({}, trust_client=True),
        "PathPrefix('/t')": PathPrefix("/t", trust_client=True),
        "Claim('tenant')": Claim("tenant", claims=lambda view: None),
        "Session('tenant')": Session("tenant"),
    }
    assert [repr(source) for source in sources.values()] == list(sources)
    assert repr(FirstOf(Session("a"), AllAgree(Session("b")))) == "FirstOf(Session('a'), Session('b'))"


def test_first_of_does_not_go_on_past_a_refused_source() -> None:
    """Whatever check refuses it."""
    refusing = Header("X-A", verify=lambda view, tenant_id: False)
    assert ask(FirstOf(refusing, B), a="x", b="y") == 404
    proxied = Header("X-A", trusted_proxies="10.0.0.1")
    assert ask(FirstOf(proxied, B), a="x", b="y") == 400
    assert ask(FirstOf(proxied, B), b="y") == "y"


def test_all_agree_wants_every_source() -> None:
    """The same tenant from each."""
    both = AllAgree(A, B)
    assert ask(both, a="x", b="x") == "x"
    assert ask(both, a="x", b="y") == 403
    assert ask(both, a="x") == 403
    assert ask(both, b="x") == 403
    assert ask(both) is None
    assert ask(both, a="x:", b="y") == 400
    assert ask(both, a="x", b="X") == 403


def test_nested() -> None:
    """Agreement inside a choice and a choice inside an agreement."""
    choice = FirstOf(AllAgree(A, B), C)
    assert ask(choice, c="z") == "z"
    assert ask(choice, a="x", c="z") == 403
    assert ask(choice, a="x", b="y", c="z") == 403
    assert ask(choice, a="x", b="x", c="z") == "x"
    agreed = AllAgree(FirstOf(A, B), C)
    assert ask(agreed, a="x", c="x") == "x"
    assert ask(agreed, b="x", c="x") == "x"
    assert ask(agreed, a="x", b="y", c="y") == 403
    assert ask(agreed, c="x") == 403
    deep = AllAgree(AllAgree(A, B), C)
    assert ask(deep, a="x", b="x", c="x") == "x"
    assert ask(deep, a="x", c="x") == 403
    assert ask(deep, a="x", b="x") == 403
    assert ask(deep, c="x") == 403
    assert ask(deep, a="x", b="x", c="y") == 403
    assert ask(deep) is None


def test_credentials_are_known_through_nesting() -> None:
    """Whether silence is a 401 depends on all sources."""
    assert AllAgree(A, FirstOf(B, Session("t"))).reads_credentials
    assert not AllAgree(A, FirstOf(B, C)).reads_credentials
    assert not FirstOf(A, lambda view: None).reads_credentials

    def own(view: Any) -> None: ...

    own.reads_credentials = True  # type: ignore[attr-defined]
    assert FirstOf(A, own).reads_credentials


# --- sessions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, "", 7, "a:b", ["acme"], True])
def test_session_value_that_is_no_id_is_400(value: object) -> None:
    """It is present, and bad."""
    assert status_of(Session("t"), request(session={"t": value})) == 400


def test_session() -> None:
    """The value of the key; no key and no session name nothing."""
    assert Session("t")(request(session={"t": "acme"})) == "acme"
    assert Session("t")(request(session={"u": "acme"})) is None
    assert Session("t")(request()) is None


async def test_session_of_a_host_that_may_have_to_wait_for_it() -> None:
    """Such a view is asked for the value alone, and may promise it."""

    def at_once(key: str, default: Any) -> Any:
        return {"t": "acme"}.get(key, default)

    async def later(key: str, default: Any) -> Any:
        return at_once(key, default)

    assert Session("t")(SimpleNamespace(session_value=at_once)) == "acme"
    assert Session("u")(SimpleNamespace(session_value=at_once)) is None
    assert await Session("t")(SimpleNamespace(session_value=later)) == "acme"
    assert await Session("u")(SimpleNamespace(session_value=later)) is None


def test_no_warning_and_no_log_on_the_way(caplog: pytest.LogCaptureFixture) -> None:
    """A resolution is silent."""
    with warnings.catch_warnings(), caplog.at_level(logging.DEBUG):
        warnings.simplefilter("error")
        Claim("tenant", key=SECRET, algorithms=["HS256"])(bearer(token()))
    assert not caplog.records
