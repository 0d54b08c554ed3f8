"""Whatever a client sends, no tenant runs that it did not prove, and nothing fails.

Requests are made of hosts, headers, paths and tokens, honest, foreign, damaged and arbitrary. The app
behind the edge must only ever run under a tenant for which the request holds a proof, and every answer is
one of the documented statuses. So that the corpus is not all noise, a share of it has to reach ``verify``.
"""

from __future__ import annotations

import string
from dataclasses import dataclass, field
from typing import Any

import jwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenantry import current_tenant_or_none
from tenantry.integrations.asgi import TenantMiddleware as AsgiMiddleware
from tenantry.integrations.wsgi import TenantMiddleware as WsgiMiddleware
from tenantry.resolvers import AllAgree, Claim, Domain, FirstOf, Header, PathPrefix, Subdomain

SECRET = "a secret key of more than thirty-two bytes"
TENANTS = ("acme", "globex", "initech", "t-1", "xn--bcher-kva")
PROXY, STRANGER = "10.0.0.1", "192.0.2.1"

# --- the requests --------------------------------------------------------------------------------

latin = st.text(st.characters(max_codepoint=255), max_size=70)
visible = st.text(string.printable.strip() + " \t\x80\xff", max_size=70)
tenants = st.sampled_from(TENANTS)


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """An id with something inserted, doubled, cut or changed in case."""
    name = draw(tenants)
    at = draw(st.integers(0, len(name)))
    insert = draw(
        st.sampled_from(
            ["", ",", ", globex", "\n", " ", ":", ".", "%2e", "\x00", "é", "ﬁ", "/", "@", "A" * 64]
        )
    )
    changed = name[:at] + insert + name[at:]
    return draw(st.sampled_from([changed, changed.upper(), changed * 2, changed[1:]]))


names = st.one_of(tenants, tenants, tenants, tenants, damaged(), visible, latin)
hosts = st.one_of(
    st.builds(
        "{}{}{}".format,
        names,
        st.sampled_from([".example.com", ".EXAMPLE.com", ".example.com.", ".evil.com"]),
        st.sampled_from(["", "", ":80", ":", ":99999", ":x", "."]),
    ),
    st.sampled_from(
        [
            "example.com",
            "www.example.com",
            "acme.example.com.evil.com",
            "evil-example.com",
            "[::1]",
            "10.0.0.1",
            "shop.acme.test",
            "SHOP.acme.test:443",
            "acme.example.com,globex.example.com",
            "",
        ]
    ),
    visible,
)
claims = st.one_of(
    tenants, tenants, damaged(), st.none(), st.integers(), st.booleans(), st.lists(tenants, max_size=2)
)


@st.composite
def tokens(draw: st.DrawFn) -> tuple[str, object]:
    """A token, and the claim that it proves (or ``None``)."""
    claim = draw(claims)
    kind = draw(st.sampled_from(["good", "good", "good", "forged", "none", "expired", "damaged", "text"]))
    if kind == "text":
        return draw(visible), None
    payload: dict[str, Any] = {"tenant": claim} | ({"exp": 1} if kind == "expired" else {})
    if kind == "none":
        return jwt.encode(payload, "", algorithm=None), None
    key = SECRET if kind != "forged" else SECRET[::-1]
    token = jwt.encode(payload, key, algorithm="HS256")
    if kind == "damaged":
        at = draw(st.integers(0, len(token) - 2))
        damaged_token = token[:at] + draw(st.sampled_from([".", "A", "-", ""])) + token[at + 1 :]
        return damaged_token, claim if damaged_token == token else None
    return token, claim if kind == "good" else None


@dataclass
class Case:
    """A request, and what it proves."""

    headers: list[tuple[str, str]] = field(default_factory=list)
    path: str = "/"
    peer: str | None = PROXY
    member_of: frozenset[str] = frozenset()
    claimed: object = None
    verified: set[str] = field(default_factory=set)
    asked: bool = False


@st.composite
def honest_cases(draw: st.DrawFn) -> Case:
    """A member who says the same everywhere, or leaves some of it out."""
    who = draw(tenants)
    case = Case(member_of=frozenset({who}))
    parts = draw(st.sets(st.sampled_from(["header", "host", "path", "token"]), min_size=2))
    if "header" in parts:
        case.headers.append(("X-Tenant", who))
    if "host" in parts:
        case.headers.append(("Host", f"{who}.example.com"))
    if "path" in parts:
        case.path = f"/t/{who}"
    if "token" in parts:
        case.claimed = who
        case.headers.append(
            ("Authorization", "Bearer " + jwt.encode({"tenant": who}, SECRET, algorithm="HS256"))
        )
    return case


@st.composite
def altered_cases(draw: st.DrawFn) -> Case:
    """An honest request of which one thing was changed."""
    case = draw(honest_cases())
    change = draw(st.sampled_from(["add", "replace", "path", "peer", "stranger"]))
    other = draw(st.sampled_from(["X-Tenant", "X_Tenant", "Host", "Authorization"]))
    value = draw({"Host": hosts}.get(other, names))
    if change == "add" or (change == "replace" and not case.headers):
        case.headers.insert(draw(st.integers(0, len(case.headers))), (other, value))
    elif change == "replace":
        at = draw(st.integers(0, len(case.headers) - 1))
        name, _ = case.headers[at]
        if name == "Authorization":
            case.claimed = None
        case.headers[at] = (name, draw(hosts if name == "Host" else names))
    elif change == "path":
        case.path = f"/t/{draw(names)}"
    elif change == "peer":
        case.peer = draw(st.sampled_from([STRANGER, None]))
    else:
        case.member_of = frozenset({draw(tenants)})
    return case


@st.composite
def wild_cases(draw: st.DrawFn) -> Case:
    """Anything at all, several times."""
    case = Case()
    for _ in range(draw(st.sampled_from([0, 1, 1, 1, 1, 1, 2]))):
        name = draw(st.sampled_from(["X-Tenant", "X-Tenant", "X-Tenant", "x-tenant", "X_Tenant", "X-TENANT"]))
        case.headers.append((name, draw(names)))
    for _ in range(draw(st.sampled_from([0, 1, 1, 1, 2]))):
        case.headers.append(("Host", draw(hosts)))
    if draw(st.booleans()):
        token, case.claimed = draw(tokens())
        scheme = draw(st.sampled_from(["Bearer ", "Bearer ", "bearer ", "Basic ", ""]))
        case.headers.append(("Authorization", scheme + token))
    if draw(st.booleans()):
        case.headers.append(("X-Forwarded-Host", "initech.example.com"))
    case.path = draw(
        st.one_of(st.just("/"), st.builds("/t/{}".format, names), st.builds("/t/{}/x".format, tenants))
    )
    case.peer = draw(st.sampled_from([PROXY, PROXY, STRANGER, None]))
    case.member_of = draw(st.frozensets(tenants, min_size=1))
    case.headers = list(draw(st.permutations(case.headers)))
    return case


cases = st.one_of(honest_cases(), altered_cases(), altered_cases(), wild_cases())


# --- the resolvers, and what proves a tenant to each ---------------------------------------------

CURRENT: list[Case] = []


def verify(request: Any, tenant_id: str) -> bool:
    case = CURRENT[-1]
    case.asked = True
    if tenant_id in case.member_of:
        case.verified.add(tenant_id)
        return True
    return False


HEADER = Header("X-Tenant", verify=verify)
HOST = Subdomain("example.com", verify=verify)
SHOP = Domain({"shop.acme.test": "acme"}, verify=verify)
PATH = PathPrefix("/t", verify=verify)
PROXIED = Header("X-Tenant", trusted_proxies=["10.0.0.0/8"], verify=verify)
CLAIM = Claim("tenant", key=SECRET, algorithms=["HS256"])


def was_verified(case: Case, tenant: str) -> bool:
    return tenant in case.verified


def was_claimed(case: Case, tenant: str) -> bool:
    return case.claimed == tenant


RESOLVERS: dict[str, tuple[Any, Any]] = {
    "header": (HEADER, was_verified),
    "host": (HOST, was_verified),
    "path": (PATH, was_verified),
    "proxied": (PROXIED, lambda case, tenant: case.peer == PROXY and was_verified(case, tenant)),
    "claim": (CLAIM, was_claimed),
    "first": (
        FirstOf(CLAIM, HEADER, SHOP, HOST, PATH),
        lambda case, tenant: was_claimed(case, tenant) or was_verified(case, tenant),
    ),
    "agree": (AllAgree(HEADER, HOST), was_verified),
    "agree claim": (
        AllAgree(FirstOf(HEADER, HOST, PATH), FirstOf(CLAIM, SHOP)),
        lambda case, tenant: was_verified(case, tenant) or was_claimed(case, tenant),
    ),
}
STATUSES = {200, 400, 401, 403, 404}


def through_asgi(resolver: Any, case: Case) -> tuple[int, list[object], bytes]:
    ran: list[object] = []
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        ran.append(current_tenant_or_none())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(name.lower().encode(), value.encode("latin-1", "ignore")) for name, value in case.headers]
    scope = {
        "type": "http",
        "method": "GET",
        "path": case.path,
        "headers": headers,
        "client": case.peer and (case.peer, 1),
    }
    call = AsgiMiddleware(app, resolver=resolver)(scope, send, send)
    with pytest.raises(StopIteration):
        call.send(None)
    return sent[0]["status"], ran, sent[1]["body"]


def through_wsgi(resolver: Any, case: Case) -> tuple[int, list[object], bytes]:
    ran: list[object] = []
    started: list[str] = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        ran.append(current_tenant_or_none())
        start_response("200 OK", [])
        return [b""]

    environ: dict[str, Any] = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": case.path.encode().decode("latin-1"),
        "REMOTE_ADDR": case.peer or "",
    }
    for name, value in case.headers:
        # As the most careless server does it: aliases and duplicates are merged.
        key = "HTTP_" + name.upper().replace("-", "_")
        text = value.encode("latin-1", "ignore").decode("latin-1")
        environ[key] = f"{environ[key]},{text}" if key in environ else text
    body = WsgiMiddleware(app, resolver=resolver)(environ, lambda status, headers: started.append(status))
    return int(started[0].split()[0]), ran, b"".join(body)


@pytest.mark.parametrize("through", [through_asgi, through_wsgi])
@pytest.mark.parametrize("examples", [200, pytest.param(10_000, marks=pytest.mark.deep)])
def test_no_tenant_without_a_proof(through: Any, examples: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Over hosts, headers, paths and tokens, for each kind of resolver."""
    counted = {"requests": 0, "reached verify": 0, "ran": 0}

    @settings(max_examples=examples, deadline=None)
    @given(cases)
    def check(case: Case) -> None:
        for resolver, proves in RESOLVERS.values():
            case.verified, case.asked = set(), False
            CURRENT[:] = [case]
            status, ran, body = through(resolver, case)
            assert status in STATUSES
            assert (status == 200) == bool(ran)
            for tenant in ran:
                assert isinstance(tenant, str)
                assert proves(case, tenant)
            assert current_tenant_or_none() is None
            assert b"tenant_id" not in body
            counted["requests"] += 1
            counted["reached verify"] += case.asked
            counted["ran"] += bool(ran)

    check()
    share = counted["reached verify"] / counted["requests"]
    with capsys.disabled():
        print(f"\n{through.__name__}: {counted}, {share:.0%} reached verify")
    assert share >= 0.3
    assert counted["ran"] >= 0.1 * counted["requests"]
