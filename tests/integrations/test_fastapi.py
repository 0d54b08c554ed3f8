"""FastAPI: the dependency, and what its own dependencies do to a tenant."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any, get_args

import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, WebSocket
from fastapi.responses import PlainTextResponse, StreamingResponse
from fastapi.testclient import TestClient

from tenantry import NoTenantError, ScopeOrderError, current_tenant_or_none, tenant_scope
from tenantry.integrations.asgi import TenantMiddleware
from tenantry.integrations.fastapi import ActiveTenant
from tests.contracts.drivers import asgi_app, ask_asgi
from tests.contracts.web import TRUSTING, Ask, EdgeContract, check_import_without

ACME = {"X-Tenant": "acme"}


class TestFastApi(EdgeContract):
    """The contract of web edges, with the app mounted in FastAPI."""

    asynchronous = True

    def edge(self, **options: Any) -> Ask:
        app = FastAPI(docs_url=None, openapi_url=None, redoc_url=None)
        app.mount("/", asgi_app)
        return ask_asgi(TenantMiddleware(app, **options))

    def respond(self, status: int, body: bytes) -> Any:
        return PlainTextResponse(body, status)


def through(tenant: ActiveTenant) -> str:
    """A dependency that depends on the tenant."""
    return tenant


def client(app: FastAPI, **options: Any) -> TestClient:
    app.add_middleware(TenantMiddleware, resolver=TRUSTING, **options)
    return TestClient(app, headers=ACME)


def test_active_tenant_is_given_to_endpoints_and_dependencies() -> None:
    """Of both kinds, and to websockets; background tasks and streams see the tenant too."""
    app = FastAPI()
    seen: list[object] = []

    @app.get("/sync")
    def sync_endpoint(tenant: ActiveTenant, again: Annotated[str, Depends(through)]) -> list[str | None]:
        return [tenant, again, current_tenant_or_none()]

    @app.get("/async")
    async def async_endpoint(tenant: ActiveTenant, tasks: BackgroundTasks) -> Any:
        tasks.add_task(lambda: seen.append(current_tenant_or_none()))

        async def body() -> AsyncIterator[str]:
            yield f"{tenant} {current_tenant_or_none()}"

        return StreamingResponse(body(), background=tasks)

    @app.websocket("/socket")
    async def socket(websocket: WebSocket, tenant: ActiveTenant) -> None:
        await websocket.accept()
        await websocket.send_text(tenant)
        await websocket.close()

    with client(app) as http:
        assert http.get("/sync").json() == ["acme"] * 3
        assert http.get("/async").text == "acme acme"
        with http.websocket_connect("/socket") as connection:
            assert connection.receive_text() == "acme"
    assert seen == ["acme"]


def test_active_tenant_adds_no_parameter_to_the_schema() -> None:
    """Clients are not told of it."""
    app = FastAPI()

    @app.get("/")
    def index(tenant: ActiveTenant) -> str:
        return tenant

    assert "parameters" not in app.openapi()["paths"]["/"]["get"]


def test_active_tenant_without_one_is_an_error_of_the_service() -> None:
    """An optional or exempt route must not need one."""
    app = FastAPI()

    @app.get("/open")
    def opened(tenant: ActiveTenant) -> str:
        return tenant

    with pytest.raises(NoTenantError, match="ActiveTenant"):
        client(app, exempt=["/open"]).get("/open")
    bare = FastAPI()
    bare.get("/open")(opened)
    with pytest.raises(NoTenantError, match="no tenant was ever set"):
        TestClient(bare).get("/open")


def test_active_tenant_is_asynchronous() -> None:
    """A synchronous dependency would run in a copy of the context."""
    dependency = get_args(ActiveTenant)[1].dependency
    assert inspect.iscoroutinefunction(dependency)


def test_asynchronous_dependency_may_switch() -> None:
    """The endpoint sees the inner tenant, a synchronous one and its stream as well."""
    app = FastAPI()

    async def other() -> AsyncIterator[None]:
        with tenant_scope("globex", switch=True):
            yield

    @app.get("/", dependencies=[Depends(other)])
    def index(tenant: ActiveTenant) -> Any:
        def body() -> Iterator[str]:
            yield str(current_tenant_or_none())

        return StreamingResponse(body())

    assert client(app).get("/").text == "globex"


def test_synchronous_dependency_that_enters_a_tenant_is_refused() -> None:
    """The endpoint would else go on under the old tenant, in silence."""
    app = FastAPI()

    def other() -> Iterator[None]:
        with tenant_scope("globex", switch=True):
            yield

    @app.get("/", dependencies=[Depends(other)])
    def index() -> str:
        return str(current_tenant_or_none())

    with pytest.raises(ScopeOrderError, match="tenant_scope"):
        client(app).get("/")


def test_missing_fastapi_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """A FastAPI that is there but broken is not taken for a missing one."""
    check_import_without("fastapi", monkeypatch)
