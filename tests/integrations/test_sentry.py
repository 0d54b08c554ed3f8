"""The tenant on Sentry's events: right under concurrency, gone afterwards, never an exception."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import sentry_sdk
from sentry_sdk.transport import Transport

from tenantry import current_tenant, tenant_scope, without_tenant
from tenantry.context import unit_of_work
from tenantry.integrations import sentry
from tenantry.integrations.sentry import install, uninstall


class Sent(Transport):
    """Keeps the events that would be sent."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[dict[str, Any]] = []

    def capture_envelope(self, envelope: Any) -> None:
        event = envelope.get_event()
        if event is not None:
            self.events.append(json.loads(json.dumps(event)))

    def tags(self) -> list[str | None]:
        return [(event.get("tags") or {}).get("tenant") for event in self.events]


@pytest.fixture
def sent() -> Iterator[Sent]:
    """A client of this test, in an isolation scope of this test."""
    transport = Sent()
    client = sentry_sdk.Client(
        dsn="http://key@localhost/1",
        transport=transport,
        default_integrations=False,
        auto_enabling_integrations=False,
    )
    with sentry_sdk.isolation_scope() as scope:
        scope.set_client(client)
        install()
        yield transport
        uninstall()
    client.close(timeout=0)


def tag() -> object:
    return sentry_sdk.get_isolation_scope()._tags.get("tenant")


def test_install_tags_the_isolation_scope_while_a_tenant_is_active(sent: Sent) -> None:
    """The tag comes with the tenant and goes with it; a switch shows the inner one and restores the outer."""
    with tenant_scope("acme"):
        assert tag() == "acme"
        with tenant_scope("acme"):
            assert tag() == "acme"
        assert tag() == "acme"
        with tenant_scope("globex", switch=True):
            assert tag() == "globex"
        assert tag() == "acme"
    assert tag() is None


def test_events_carry_the_tag(sent: Sent) -> None:
    """Messages and errors, by whatever scope they are captured."""
    with tenant_scope("acme"):
        sentry_sdk.capture_message("a")
        with sentry_sdk.new_scope():
            sentry_sdk.capture_message("b")
        with sentry_sdk.isolation_scope():
            sentry_sdk.capture_message("c")
    sentry_sdk.capture_message("d")
    assert sent.tags() == ["acme", "acme", "acme", None]


def test_a_region_without_tenant_is_not_tagged(sent: Sent) -> None:
    """Where an edge resolved nothing, or deliberately, the outer tenant is not blamed."""
    with tenant_scope("acme"):
        with without_tenant(reason="a test"):
            sentry_sdk.capture_message("a")
        with unit_of_work(None):
            sentry_sdk.capture_message("b")
    assert sent.tags() == [None, None]


def test_an_unhandled_error_carries_the_tenant_that_it_left(sent: Sent) -> None:
    """Sentry's middleware captures outside of the scope; the most important event has its tenant."""
    with pytest.raises(ValueError, match="boom"):
        with tenant_scope("acme"), tenant_scope("globex", switch=True):
            raise ValueError("boom")
    try:
        with unit_of_work("acme"):
            raise ValueError("boom")
    except ValueError as error:
        sentry_sdk.capture_exception(error)
        with tenant_scope("globex"):
            sentry_sdk.capture_exception(error)
    assert sent.tags() == ["acme", "globex"]


def test_an_error_that_takes_no_attributes_is_captured_all_the_same(sent: Sent) -> None:
    """Only its tenant is not known outside."""

    class Closed(Exception):
        @property
        def __dict__(self) -> Any:  # type: ignore[override]
            raise RuntimeError("closed")

    try:
        with tenant_scope("acme"):
            raise Closed
    except Closed as error:
        sentry_sdk.capture_exception(error)
    assert sent.tags() == [None]


async def test_concurrent_tasks_of_one_isolation_scope_are_told_apart(sent: Sent) -> None:
    """First entered leaves first; each event has its own task's tenant, and no dead tag comes back."""
    a_is_in, b_is_in, a_is_out = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def a() -> None:
        with tenant_scope("acme"):
            a_is_in.set()
            await b_is_in.wait()
            sentry_sdk.capture_message(current_tenant())
        a_is_out.set()

    async def b() -> None:
        await a_is_in.wait()
        with tenant_scope("globex"):
            b_is_in.set()
            await a_is_out.wait()
            sentry_sdk.capture_message(current_tenant())

    await asyncio.gather(a(), b())
    sentry_sdk.capture_message("after")
    assert [(event["message"], t) for event, t in zip(sent.events, sent.tags(), strict=True)] == [
        ("acme", "acme"),
        ("globex", "globex"),
        ("after", None),
    ]
    assert tag() is None


async def test_overlapping_tasks_keep_no_history(sent: Sent) -> None:
    """Tasks that always overlap do not chain their tags for ever."""

    async def one(before: asyncio.Event, mine: asyncio.Event, after: asyncio.Event) -> None:
        await before.wait()
        with tenant_scope("acme"):
            mine.set()
            await after.wait()

    steps = [asyncio.Event() for _ in range(52)]
    steps[0].set()
    tasks = [asyncio.create_task(one(*steps[n : n + 3])) for n in range(50)]
    await steps[49].wait()
    newest: Any = tag()
    length = 0
    while newest is not None:
        newest = newest.previous
        length += 1
    assert length <= 5
    steps[51].set()
    await asyncio.gather(*tasks)
    assert tag() is None


def test_the_application_s_own_tag_stays(sent: Sent) -> None:
    """What was there before comes back, and what the application writes inside is not overwritten."""
    sentry_sdk.set_tag("tenant", "mine")
    with tenant_scope("acme"):
        sentry_sdk.capture_message("a")
        sentry_sdk.set_tag("tenant", "inner")
        sentry_sdk.capture_message("b")
    sentry_sdk.capture_message("c")
    sentry_sdk.set_tag("tenant", "mine")
    with tenant_scope("acme"):
        pass
    sentry_sdk.capture_message("d")
    assert sent.tags() == ["acme", "inner", "inner", "mine"]


def test_the_scope_of_the_entry_is_the_one_that_is_restored(sent: Sent) -> None:
    """An isolation scope that code inside began and left open does not keep ours from being restored."""
    outer = sentry_sdk.get_isolation_scope()
    with tenant_scope("acme"):
        sentry_sdk.Scope.set_isolation_scope(sentry_sdk.Scope())
    assert outer._tags == {}
    sentry_sdk.Scope.set_isolation_scope(outer)


def test_install_works_without_a_client() -> None:
    """Neither a missing client nor a missing tenant raises."""
    remove = install()
    with tenant_scope("acme"):
        sentry_sdk.capture_message("x")
    remove()


def test_a_broken_scope_does_not_end_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Telemetry never raises into what it describes."""

    def broken() -> None:
        raise RuntimeError("broken")

    remove = install()
    monkeypatch.setattr(sentry_sdk, "get_isolation_scope", broken)
    try:
        with tenant_scope("acme"):
            assert current_tenant() == "acme"
    finally:
        remove()


def test_install_twice_is_once_and_uninstall_stops_it(sent: Sent) -> None:
    """One call of the remover is enough, and a second one is fine."""
    remove = install()
    assert install() is remove
    with tenant_scope("acme"):
        remove()
        remove()
    with tenant_scope("globex"):
        assert tag() is None
        sentry_sdk.capture_message("x")
    assert sent.tags() == [None]
    assert sentry._remove_hook is None


BEHIND_STARLETTE = """
import json, sentry_sdk
from sentry_sdk.integrations.starlette import StarletteIntegration
from sentry_sdk.transport import Transport
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route
from starlette.testclient import TestClient
from tenantry import current_tenant
from tenantry.integrations.asgi import TenantMiddleware
from tenantry.integrations.sentry import install
from tenantry.resolvers import Header

events = []

class Sent(Transport):
    def capture_envelope(self, envelope):
        events.append(envelope.get_event())

async def fail(request):
    raise ValueError(current_tenant())

def fail_in_thread(request):
    raise ValueError(current_tenant())

sentry_sdk.init(
    dsn="http://key@localhost/1", transport=Sent,
    integrations=[StarletteIntegration()], auto_enabling_integrations=False,
)
install()
tenants = Middleware(TenantMiddleware, resolver=Header("X-Tenant", trust_client=True))
routes = [Route("/fail", fail), Route("/thread", fail_in_thread)]
client = TestClient(Starlette(routes=routes, middleware=[tenants]), raise_server_exceptions=False)
for path, tenant in [("/fail", "acme"), ("/thread", "globex"), ("/fail", "initech")]:
    assert client.get(path, headers={"X-Tenant": tenant}).status_code == 500
print(json.dumps([(e["exception"]["values"][-1]["value"], e["tags"]["tenant"]) for e in events]))
"""


def test_unhandled_errors_behind_sentry_s_own_middleware_carry_their_tenant() -> None:
    """Sentry's integration for Starlette captures outside of our middleware. It patches for good: a process."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BEHIND_STARLETTE], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    tenants = ["acme", "globex", "initech"]
    assert json.loads(done.stdout) == [[tenant, tenant] for tenant in tenants]
