"""What every web edge has to do. Each edge's tests inherit these classes and say how to drive the edge.

The app behind each edge answers on four paths: ``/`` with the active tenant, ``/stream`` with one part
per step, each the tenant of that step, ``/boom`` with an exception, and every other path like ``/``.
"""

from __future__ import annotations

import asyncio
import importlib.abc
import importlib.util
import json
import logging
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import jwt
import pytest

from tenantry import ResolutionError, current_tenant_or_none
from tenantry.context import get_state, unit_of_work
from tenantry.lookup import Lookup
from tenantry.resolvers import (
    AllAgree,
    Claim,
    Domain,
    FirstOf,
    Header,
    PathPrefix,
    Session,
    Subdomain,
)

SECRET = "a secret key of more than thirty-two bytes"
TRUSTING = Header("X-Tenant", trust_client=True)
CLAIM = Claim("tenant", key=SECRET, algorithms=["HS256"])


def bearer(**claims: Any) -> dict[str, str]:
    return {"Authorization": "Bearer " + jwt.encode(claims, SECRET, algorithm="HS256")}


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Ask(Protocol):
    """Send one request through an edge."""

    def __call__(
        self,
        path: str = "/",
        headers: dict[str, str] | None = None,
        *,
        method: str = "GET",
        peer: str | None = "10.0.0.1",
        session: dict[str, Any] | None = None,
    ) -> Answer: ...


def is_problem(answer: Answer, status: int) -> bool:
    document = answer.json
    return (
        answer.status == document["status"] == status
        and answer.headers["content-type"] == "application/problem+json"
        and answer.headers["cache-control"] == "no-store"
        and ("www-authenticate" in answer.headers) == (status == 401)
        and set(document) <= {"type", "title", "status", "detail"}
        and isinstance(document["title"], str)
    )


def check_import_without(dependency: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its edge names the extra where the dependency is missing, and hides no broken one."""
    name = f"tenantry.integrations.{dependency}"

    def load() -> None:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        spec.loader.exec_module(importlib.util.module_from_spec(spec))

    class Broken(importlib.abc.MetaPathFinder):
        def find_spec(self, fullname: str, path: object, target: object = None) -> None:
            if fullname == dependency:
                raise ModuleNotFoundError("No module named 'other'", name="other")

    load()
    monkeypatch.setitem(sys.modules, dependency, None)
    with pytest.raises(ImportError, match=rf"pip install tenantry\[{dependency}\]") as caught:
        load()
    assert caught.value.name == dependency
    monkeypatch.delitem(sys.modules, dependency)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(ModuleNotFoundError, match="^No module named 'other'$"):
        load()


class EdgeContract:
    """Inherit, and implement ``edge`` and ``respond``."""

    build_errors: tuple[type[Exception], ...] = (TypeError, ValueError)
    asynchronous = False

    def edge(self, **options: Any) -> Ask:
        """Build the edge with these options over the app, and return how to ask it."""
        raise NotImplementedError

    def respond(self, status: int, body: bytes) -> Any:
        """Return the host's own response, as ``on_error`` does."""
        raise NotImplementedError

    # --- binding -----------------------------------------------------------------------------

    def test_request_runs_under_its_tenant_and_leaves_nothing(self) -> None:
        """The tenant is there in the app and gone afterwards."""
        answer = self.edge(resolver=TRUSTING)("/", {"X-Tenant": "acme"})
        assert (answer.status, answer.json) == (200, "acme")
        assert get_state().kind == "never set"

    def test_streamed_body_runs_under_the_tenant(self) -> None:
        """Each step of a streamed body sees the tenant."""
        answer = self.edge(resolver=TRUSTING)("/stream", {"X-Tenant": "acme"})
        assert answer.body.split() == [b"acme", b"acme", b"acme"]
        assert get_state().kind == "never set"

    def test_error_of_the_app_leaves_nothing(self) -> None:
        """After an exception of the app nothing is active, and the next request is served."""
        ask = self.edge(resolver=TRUSTING)
        try:
            assert ask("/boom", {"X-Tenant": "acme"}).status == 500
        except ZeroDivisionError:
            pass
        assert get_state().kind == "never set"
        assert ask("/", {"X-Tenant": "globex"}).json == "globex"

    @pytest.mark.parametrize("path", ["/healthz", "/stream"])
    def test_exempt_entry_overwrites_a_stale_tenant(self, path: str) -> None:
        """What was active when a request enters is not active in an exempt route, nor in its stream."""
        ask = self.edge(resolver=TRUSTING, exempt=["/healthz", "/stream"])
        with unit_of_work("stale"):
            answer = ask(path)
            assert current_tenant_or_none() == "stale"
        assert b"stale" not in answer.body
        assert answer.status == 200

    def test_requests_do_not_see_each_other(self) -> None:
        """Fifty requests of five tenants on several threads each see only their own tenant."""
        ask = self.edge(resolver=TRUSTING)
        wrong: list[object] = []

        def work(number: int) -> None:
            tenant = f"t{number % 5}"
            for path in ("/", "/stream"):
                body = ask(path, {"X-Tenant": tenant}).body
                if set(body.replace(b'"', b"").split()) != {tenant.encode()}:
                    wrong.append((tenant, body))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong

    # --- refusals ----------------------------------------------------------------------------

    def test_nothing_resolved_is_400(self) -> None:
        """A request that names no tenant is refused; the app does not run."""
        assert is_problem(self.edge(resolver=TRUSTING)("/"), 400)

    def test_nothing_resolved_is_401_where_credentials_are_read(self) -> None:
        """A resolver that reads credentials makes it a 401 with a challenge."""
        answer = self.edge(resolver=FirstOf(TRUSTING, CLAIM))("/")
        assert is_problem(answer, 401)
        assert answer.headers["www-authenticate"] == "Bearer"

    @pytest.mark.parametrize(
        "value", ["acme,globex", "acme, acme", "a" * 64, "acm\xe9", "-acme", "null", "a b", ""]
    )
    def test_malformed_header_is_400_and_not_echoed(self, value: str) -> None:
        """What is not one valid id is refused, and nothing of it is told."""
        answer = self.edge(resolver=TRUSTING)("/", {"X-Tenant": value})
        assert is_problem(answer, 400)
        assert not value or value.encode() not in answer.body

    def test_alias_of_a_header_is_never_its_value(self) -> None:
        """``X_Tenant`` names nothing, or is malformed; a server that merges it makes a comma list."""
        ask = self.edge(resolver=TRUSTING)
        assert ask("/", {"X_Tenant": "acme"}).status in (200, 400)
        answer = ask("/", {"X-Tenant": "acme", "X_Tenant": "globex"})
        assert answer.status == 400 or answer.json == "acme"

    def test_token_that_does_not_verify_is_401(self) -> None:
        """A forged, an expired and an unreadable token look alike."""
        ask = self.edge(resolver=CLAIM)
        forged = jwt.encode(
            {"tenant": "acme"}, "another secret key of thirty-two bytes and more", algorithm="HS256"
        )
        for token in (forged, jwt.encode({"tenant": "acme", "exp": 1}, SECRET), "x.y.z", ""):
            assert is_problem(ask("/", {"Authorization": f"Bearer {token}"}), 401)
        assert ask("/", bearer(tenant="acme")).json == "acme"

    @pytest.mark.parametrize("value", ["a:b", 7, None, ["acme"], {"id": "acme"}, True, "", "null"])
    def test_claim_that_is_no_id_is_400(self, value: object) -> None:
        """A claim that is present but not one valid id is present but bad; optional does not excuse it."""
        assert is_problem(
            self.edge(resolver=FirstOf(CLAIM, TRUSTING), optional=True)("/", bearer(tenant=value)), 400
        )

    def test_sources_that_disagree_are_403(self) -> None:
        """Two names, or one source silent while the other speaks."""
        ask = self.edge(resolver=AllAgree(TRUSTING, CLAIM))
        assert is_problem(ask("/", {**bearer(tenant="acme"), "X-Tenant": "globex"}), 403)
        assert is_problem(ask("/", bearer(tenant="acme")), 403)
        assert is_problem(ask("/", {**bearer(), "X-Tenant": "acme"}), 403)
        assert is_problem(ask("/"), 401)
        assert ask("/", {**bearer(tenant="acme"), "X-Tenant": "acme"}).json == "acme"

    def test_unknown_and_forbidden_look_alike(self) -> None:
        """A tenant that is not there and one that is not the caller's give the same answer, byte for byte."""
        resolver = Header("X-Tenant", verify=lambda request, tenant_id: tenant_id != "globex")
        ask = self.edge(resolver=resolver, lookup={"acme": 1, "globex": 1}.get)
        unknown, forbidden = ask("/", {"X-Tenant": "nobody"}), ask("/", {"X-Tenant": "globex"})
        assert is_problem(unknown, 404)
        assert (unknown.status, unknown.body) == (forbidden.status, forbidden.body)
        assert unknown.headers == forbidden.headers
        assert ask("/", {"X-Tenant": "acme"}).json == "acme"

    @pytest.mark.parametrize("answer", [None, 0, 1, "yes", [1], object()])
    def test_only_true_is_yes(self, answer: object) -> None:
        """``verify`` has to say ``True``."""
        ask = self.edge(resolver=Header("X-Tenant", verify=lambda request, tenant_id: answer))
        assert is_problem(ask("/", {"X-Tenant": "acme"}), 404)

    def test_inactive_and_down_are_told_to_members_only(self) -> None:
        """403 and 503 go to who may act for the tenant; everyone else sees the 404."""

        def find(tenant_id: str) -> object:
            if tenant_id == "down":
                raise StopIteration
            return tenant_id

        lookup = Lookup(find, active=lambda record: record != "idle")
        member = Header(
            "X-Tenant", verify=lambda request, tenant_id: request.headers.get("x-member") == "yes"
        )
        ask = self.edge(resolver=member, lookup=lookup)
        inside = {"X-Member": "yes"}
        assert is_problem(ask("/", {"X-Tenant": "idle", **inside}), 403)
        assert is_problem(ask("/", {"X-Tenant": "down", **inside}), 503)
        assert is_problem(ask("/", {"X-Tenant": "idle"}), 404)
        assert is_problem(ask("/", {"X-Tenant": "down"}), 404)
        assert ask("/", {"X-Tenant": "acme", **inside}).json == "acme"

    def test_record_is_remembered_between_requests(self) -> None:
        """The function is asked once per tenant; what it said counts for the next request too."""
        asked: list[str] = []

        def find(tenant_id: str) -> object:
            asked.append(tenant_id)
            return None if tenant_id == "nobody" else tenant_id

        lookup = Lookup(find, active=lambda record: record != "idle")
        ask = self.edge(resolver=TRUSTING, lookup=lookup)
        for tenant, status in (("acme", 200), ("nobody", 404), ("idle", 403)):
            assert [ask("/", {"X-Tenant": tenant}).status for _ in range(3)] == [status] * 3
        assert asked == ["acme", "nobody", "idle"]
        lookup.invalidate("acme")
        assert ask("/", {"X-Tenant": "acme"}).json == "acme"
        assert asked == ["acme", "nobody", "idle", "acme"]

    def test_failing_active_is_503(self) -> None:
        """A tenant that is not known to be active is not served."""

        def fail(record: object) -> bool:
            raise StopIteration

        ask = self.edge(resolver=TRUSTING, lookup=Lookup(lambda tenant_id: 1, active=fail))
        assert is_problem(ask("/", {"X-Tenant": "acme"}), 503)

    def test_refusal_is_logged_without_its_value(self, caplog: pytest.LogCaptureFixture) -> None:
        """The log says that a request was refused, and nothing of what it said."""
        with caplog.at_level(logging.DEBUG, "tenantry"):
            self.edge(resolver=TRUSTING)("/", {"X-Tenant": "s3cret\u00e9value"})
        mine = [record.getMessage() for record in caplog.records if record.name.startswith("tenantry")]
        assert mine
        assert not [message for message in mine if "s3cret" in message]

    def test_head_has_no_body(self) -> None:
        """A refused ``HEAD`` has headers only."""
        answer = self.edge(resolver=TRUSTING)("/", method="HEAD")
        assert (answer.status, answer.body) == (400, b"")

    # --- trust -------------------------------------------------------------------------------

    def test_trusted_proxies_are_the_peers_that_may_name_a_tenant(self) -> None:
        """From any other peer the name is present but bad, also where it is optional."""
        resolver = FirstOf(Header("X-Tenant", trusted_proxies=["10.0.0.0/8", "::1"]), TRUSTING)
        ask = self.edge(resolver=resolver, optional=True)
        assert ask("/", {"X-Tenant": "acme"}, peer="10.9.9.9").json == "acme"
        assert ask("/", {"X-Tenant": "acme"}, peer="::ffff:10.9.9.9").json == "acme"
        assert ask("/", {"X-Tenant": "acme"}, peer="::1").json == "acme"
        for peer in ("192.0.2.1", "unix", "::2", None):
            assert is_problem(ask("/", {"X-Tenant": "acme"}, peer=peer), 400)
        assert ask("/", peer="192.0.2.1").json is None

    def test_order_of_the_checks(self) -> None:
        """Grammar, then trusted proxies, then verify, then agreement, then lookup; a refusal ends it."""
        asked: list[str] = []

        def verify(request: Any, tenant_id: str) -> bool:
            asked.append(f"verify {tenant_id}")
            return tenant_id != "forbidden"

        def find(tenant_id: str) -> object:
            asked.append(f"lookup {tenant_id}")
            return None

        proxied = Header("X-Tenant", verify=verify, trusted_proxies="10.0.0.1")
        ask = self.edge(resolver=AllAgree(proxied, Header("X-Other", verify=verify)), lookup=find)

        def statuses(tenant: str, other: str, peer: str = "10.0.0.1") -> tuple[int, list[str]]:
            asked.clear()
            answer = ask("/", {"X-Tenant": tenant, "X-Other": other}, peer=peer)
            return answer.status, list(asked)

        assert statuses("forbidden", "b:d", "192.0.2.1") == (400, [])
        assert statuses("forbidden", "acme", "192.0.2.1") == (400, [])
        assert statuses("forbidden", "acme") == (404, ["verify forbidden"])
        assert statuses("acme", "globex") == (403, ["verify acme", "verify globex"])
        assert statuses("acme", "acme") == (404, ["verify acme", "verify acme", "lookup acme"])

    # --- options -----------------------------------------------------------------------------

    def test_optional_excuses_nothing_resolved_alone(self) -> None:
        """Without a name the app runs with no tenant; a bad name is refused as ever."""
        ask = self.edge(resolver=FirstOf(CLAIM, TRUSTING), optional=True)
        assert ask("/").json is None
        assert ask("/", bearer()).json is None
        assert is_problem(ask("/", {"X-Tenant": "a:b"}), 400)
        assert is_problem(ask("/", {"Authorization": "Bearer x.y.z"}), 401)

    def test_valid_token_without_the_claim_ends_the_search(self) -> None:
        """``FirstOf`` does not go on to what the client says."""
        ask = self.edge(resolver=FirstOf(CLAIM, TRUSTING))
        assert is_problem(ask("/", {**bearer(sub="jane"), "X-Tenant": "acme"}), 401)
        assert ask("/", {"X-Tenant": "acme"}).json == "acme"

    def test_credentials_that_the_application_reads_are_asked_for(self) -> None:
        """A 401 names a challenge, whoever reads the credentials; each of ours names its own."""

        def own(request: Any) -> None: ...

        own.reads_credentials = True  # type: ignore[attr-defined]
        for resolver, challenge in (
            (own, "Bearer"),
            (FirstOf(CLAIM, Session("tenant")), "Bearer, Cookie"),
            (AllAgree(TRUSTING, Session("tenant")), "Cookie"),
        ):
            answer = self.edge(resolver=resolver)("/")
            assert is_problem(answer, 401)
            assert answer.headers["www-authenticate"] == challenge
        assert is_problem(self.edge(resolver=lambda request: None)("/"), 400)

    def test_exempt_by_path_and_by_predicate(self) -> None:
        """Exact paths, or what the predicate says; a resolver is not asked."""
        ask = self.edge(resolver=TRUSTING, exempt=("/healthz",))
        assert ask("/healthz", {"X-Tenant": "acme"}).json is None
        assert is_problem(ask("/healthz/"), 400)
        ask = self.edge(resolver=TRUSTING, exempt="/healthz")
        assert ask("/healthz", {"X-Tenant": "acme"}).json is None
        assert is_problem(ask("/"), 400)
        ask = self.edge(resolver=TRUSTING, exempt=lambda request: request.path.startswith("/public"))
        assert ask("/public/a", {"X-Tenant": "a:b"}).json is None
        assert ask("/public/a", {"X-Tenant": "acme"}).json is None
        assert ask("/private", {"X-Tenant": "acme"}).json == "acme"
        assert is_problem(ask("/private"), 400)

    def test_preflight_is_exempt_and_plain_options_is_not(self) -> None:
        """A preflight carries no credentials."""
        ask = self.edge(resolver=TRUSTING)
        preflight = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
        assert ask("/", preflight, method="OPTIONS").json is None
        assert ask("/", {**preflight, "X-Tenant": "acme"}, method="OPTIONS").json is None
        assert ask("/", {**preflight, "X-Tenant": "a:b"}, method="OPTIONS").status == 200
        assert ask("/", {"X-Tenant": "acme"}, method="OPTIONS").json == "acme"
        assert is_problem(ask("/", {"Origin": "https://a.example"}, method="OPTIONS"), 400)
        assert is_problem(ask("/", {"Access-Control-Request-Method": "POST"}, method="OPTIONS"), 400)
        assert is_problem(ask("/", method="OPTIONS"), 400)
        assert is_problem(ask("/", preflight, method="POST"), 400)

    def test_on_error_answers_refusals(self) -> None:
        """It gets the request and the error, runs with no tenant, and its response is sent as it is."""
        seen: list[object] = []

        def on_error(request: Any, error: ResolutionError) -> Any:
            seen.append((request.path, error.status, current_tenant_or_none()))
            return self.respond(418, b"teapot")

        ask = self.edge(resolver=TRUSTING, on_error=on_error)
        with unit_of_work("stale"):
            answer = ask("/x")
        assert (answer.status, answer.body) == (418, b"teapot")
        assert seen == [("/x", 400, None)]

    def test_on_error_that_fails_fails_the_request(self) -> None:
        """The app does not run, whatever ``on_error`` does."""

        def fail(request: Any, error: ResolutionError) -> Any:
            raise ZeroDivisionError

        for on_error in (fail, lambda request, error: None):
            try:
                answer = self.edge(resolver=TRUSTING, on_error=on_error)("/")
            except (ZeroDivisionError, TypeError):
                continue
            assert answer.status == 500

    def test_missing_resolver_and_unknown_option_raise_when_built(self) -> None:
        """A mistake in the options shows before the first request."""
        bad: list[dict[str, Any]] = [
            {},
            {"resolver": None, "optional": True},
            {"resolver": "X-Tenant"},
            {"resolver": Header},
            {"resolver": TRUSTING, "exempted": ["/"]},
            {"resolver": TRUSTING, "exempt": ["healthz"]},
            {"resolver": TRUSTING, "exempt": [None]},
            {"resolver": TRUSTING, "optional": "no"},
            {"resolver": TRUSTING, "lookup": 7},
            {"resolver": TRUSTING, "on_error": "sorry"},
        ]
        for options in bad:
            with pytest.raises(self.build_errors, match=r"\S"):
                self.edge(**options)

    # --- callables ---------------------------------------------------------------------------

    def test_everything_that_decides_runs_with_no_tenant(self) -> None:
        """Also when a stale tenant was active when the request entered."""
        seen: list[tuple[str, str]] = []

        def note(name: str, answer: Any) -> Callable[..., Any]:
            def noted(*_: Any) -> Any:
                seen.append((name, get_state().kind))
                return answer

            return noted

        lookup = Lookup(note("lookup", 1), active=note("active", True))
        resolver = AllAgree(
            note("resolver", "acme"),
            Header("X-Tenant", verify=note("verify", True)),
            Claim("tenant", claims=note("claims", {"tenant": "acme"})),
        )
        ask = self.edge(resolver=resolver, lookup=lookup, exempt=note("exempt", False))
        with unit_of_work("stale"):
            assert ask("/", {"X-Tenant": "acme"}).json == "acme"
        assert {name for name, _ in seen} == {"lookup", "active", "resolver", "verify", "claims", "exempt"}
        assert {kind for _, kind in seen} == {"explicitly none"}

    def test_asynchronous_callables_are_awaited(self) -> None:
        """A coroutine is never taken for a value: all of them may be asynchronous."""

        async def later(value: Any) -> Any:
            await asyncio.sleep(0.001)
            return value

        lookup = Lookup(lambda tenant_id: later(tenant_id), active=lambda record: later(record == "acme"))
        resolver = AllAgree(
            lambda request: later(request.headers.get("x-tenant")),
            Header("X-Tenant", verify=lambda request, tenant_id: later(tenant_id != "globex")),
            Claim("tenant", claims=lambda request: later({"tenant": request.headers.get("x-tenant")})),
            Domain(lambda host: later(host.partition(".")[0]), trust_client=True),
        )
        ask = self.edge(
            resolver=resolver,
            lookup=lookup,
            exempt=lambda request: later(request.path == "/open"),
            on_error=lambda request, error: later(self.respond(error.status, b"mine")),
        )

        def status(tenant: str, path: str = "/") -> int:
            return ask(path, {"X-Tenant": tenant, "Host": f"{tenant}.example.com"}).status

        assert ask("/", {"X-Tenant": "acme", "Host": "acme.example.com"}).json == "acme"
        assert (status("globex"), status("idle"), status("acme")) == (404, 403, 200)
        assert ask("/open").json is None

    def test_asynchronous_functions_are_awaited(self) -> None:
        """So are plain ``async def`` ones, and callable objects with an asynchronous call."""

        class Find:
            async def __call__(self, tenant_id: str) -> object:
                await asyncio.sleep(0)
                return None if tenant_id == "nobody" else 1

        async def verify(request: Any, tenant_id: str) -> bool:
            await asyncio.sleep(0)
            return False if tenant_id == "globex" else True

        ask = self.edge(resolver=Header("X-Tenant", verify=verify), lookup=Find())
        assert ask("/", {"X-Tenant": "acme"}).json == "acme"
        assert ask("/", {"X-Tenant": "globex"}).status == 404
        assert ask("/", {"X-Tenant": "nobody"}).status == 404

    def test_synchronous_lookup_runs_in_the_thread_of_the_request_unless_that_has_a_loop(self) -> None:
        """What the application holds per thread is there; an event loop is not blocked."""
        threads: list[threading.Thread] = []

        def find(tenant_id: str) -> str:
            threads.append(threading.current_thread())
            return tenant_id

        assert self.edge(resolver=TRUSTING, lookup=find)("/", {"X-Tenant": "acme"}).json == "acme"
        assert (threads == [threading.current_thread()]) is not self.asynchronous

    def test_failing_callable_never_runs_the_app(self) -> None:
        """A resolver or ``verify`` that raises fails the request; it never reaches the app."""

        def fail(*_: Any) -> Any:
            raise ZeroDivisionError

        def stop(*_: Any) -> Any:
            raise StopIteration

        for bad in (fail, stop):
            for resolver in (bad, Header("X-Tenant", verify=bad), Claim("tenant", claims=bad)):
                try:
                    answer = self.edge(resolver=resolver)("/", {"X-Tenant": "acme"})
                except (ZeroDivisionError, RuntimeError, StopIteration):
                    continue
                assert answer.status == 500

    def test_resolver_may_refuse_with_a_status_of_its_own(self) -> None:
        """A ``ResolutionError`` of the application's resolver is the answer."""

        def resolver(request: Any) -> None:
            raise ResolutionError(451, "Unavailable For Legal Reasons")

        answer = self.edge(resolver=FirstOf(resolver, TRUSTING))("/", {"X-Tenant": "acme"})
        assert is_problem(answer, 451)

    @pytest.mark.parametrize("value", [b"acme", 7, True, "a:b", "", object(), ("acme",)])
    def test_resolver_that_returns_no_id_is_400(self, value: object) -> None:
        """What a resolver of the application returns has to be an id or ``None``."""
        assert is_problem(self.edge(resolver=lambda request: value)("/"), 400)

    def test_request_view(self) -> None:
        """The view says the same on every edge."""
        seen: list[Any] = []

        def resolver(request: Any) -> str:
            seen.append(request)
            view = {
                "method": request.method,
                "path": request.path,
                "x": request.headers.get("X-Some"),
                "X": request.headers.get("x-SOME"),
                "none": request.headers.get("X-None"),
                "type": request.headers.get("Content-Type"),
                "host": request.headers.get("Host"),
                "peer": request.peer,
                "raw": request.raw is not None,
            }
            seen.append(view)
            return "acme"

        headers = {"X-Some": "value", "Content-Type": "text/x", "Host": "a.example"}
        self.edge(resolver=resolver)("/t/\u00e9t\u00e9", headers, method="PUT")
        assert seen[1] == {
            "method": "PUT",
            "path": "/t/\u00e9t\u00e9",
            "x": "value",
            "X": "value",
            "none": None,
            "type": "text/x",
            "host": "a.example",
            "peer": "10.0.0.1",
            "raw": True,
        }

    # --- hosts and paths ---------------------------------------------------------------------

    @pytest.mark.parametrize(
        ("host", "status", "tenant"),
        [
            ("acme.example.com", 200, "acme"),
            ("ACME.Example.COM", 200, "acme"),
            ("acme.example.com:8443", 200, "acme"),
            ("acme.example.com.", 200, "acme"),
            ("acme.example.com.:80", 200, "acme"),
            ("xn--bcher-kva.example.com", 200, "xn--bcher-kva"),
            ("example.com", 200, None),
            ("www.example.com", 200, None),
            ("API.example.com", 200, None),
            ("evil-example.com", 200, None),
            ("a.b.example.com", 200, None),
            ("acme.example.com.evil.com", 200, None),
            ("127.0.0.1", 200, None),
            ("[::1]:8000", 200, None),
            ("localhost", 200, None),
            ("acme.example.com..", 400, None),
            (".example.com", 400, None),
            ("acme..example.com", 400, None),
            ("acme.example.com:80:80", 400, None),
            ("acme.example.com:http", 400, None),
            ("user@acme.example.com", 400, None),
            ("acme.example.com/x", 400, None),
            ("acme.example.com, b.example.com", 400, None),
            ("acm\xe9.example.com", 400, None),
            ("a b.example.com", 400, None),
            ("[::1", 400, None),
            ("null.example.com", 400, None),
            ("a" * 64 + ".example.com", 400, None),
            ("a%2eb.example.com", 400, None),
        ],
    )
    def test_subdomain(self, host: str, status: int, tenant: str | None) -> None:
        """Exactly one label below the base; malformed hosts are refused, foreign ones name nothing."""
        ask = self.edge(resolver=Subdomain("Example.com", trust_client=True), optional=True)
        answer = ask(
            "/", {"Host": host, "X-Forwarded-Host": "evil.example.com", "Forwarded": "host=evil.example.com"}
        )
        assert answer.status == status
        assert status != 200 or answer.json == tenant

    def test_domain(self) -> None:
        """A whole host maps to a tenant, by mapping or callable; addresses never do."""
        asked: list[str] = []

        def find(host: str) -> str | None:
            asked.append(host)
            return {"shop.acme.test": "acme"}.get(host)

        for domains in ({"Shop.Acme.test.": "acme"}, find):
            ask = self.edge(resolver=Domain(domains, trust_client=True), optional=True)
            assert ask("/", {"Host": "SHOP.acme.test:443"}).json == "acme"
            assert ask("/", {"Host": "shop.acme.test.evil.test"}).json is None
            assert ask("/", {"Host": "10.0.0.1:80"}).json is None
            assert ask("/", {"Host": "[::1]"}).json is None
        assert asked == ["shop.acme.test", "shop.acme.test.evil.test"]

    @pytest.mark.parametrize(
        ("path", "status", "tenant"),
        [
            ("/t/acme", 200, "acme"),
            ("/t/acme/", 200, "acme"),
            ("/t/acme/orders/7", 200, "acme"),
            ("/t", 200, None),
            ("/t/", 200, None),
            ("/tt/acme", 200, None),
            ("/", 200, None),
            ("/x/t/acme", 200, None),
            ("/T/acme", 200, None),
            ("/t//acme", 400, None),
            ("/t/../acme", 400, None),
            ("/t/\u00e9", 400, None),
            ("/t/a:b", 400, None),
            ("/t/acme,globex", 400, None),
        ],
    )
    def test_path_prefix(self, path: str, status: int, tenant: str | None) -> None:
        """The segment after the prefix, as the app's router sees the path."""
        answer = self.edge(resolver=PathPrefix("/t", trust_client=True), optional=True)(path)
        assert answer.status == status
        assert status != 200 or answer.json == tenant
