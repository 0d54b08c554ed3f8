"""The start-up check: which roles and relations it refuses, on real servers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from tenantry import TenancyError
from tenantry.integrations.sqlalchemy import check, check_async

from .conftest import Database


@pytest.fixture
def owner(database: Database) -> Iterator[Callable[..., None]]:
    """Run statements as the tables' owner; what they made is dropped afterwards."""
    engine = create_engine(database.url(database.owner))
    made: list[str] = []

    def run(*statements: str, undo: str = "") -> None:
        if undo:
            made.append(undo)
        with engine.begin() as conn:
            for statement in statements:
                conn.execute(text(statement))

    yield run
    for statement in reversed(made):
        run(statement)
    engine.dispose()


@pytest.fixture
def admin(database: Database) -> Iterator[Callable[..., None]]:
    """Run statements as superuser, and their undoing afterwards."""
    engine = create_engine(database.url(database.admin.username))
    made: list[str] = []

    def run(statement: str, undo: str = "") -> None:
        if undo:
            made.append(undo)
        with engine.begin() as conn:
            conn.execute(text(statement))

    yield run
    for statement in reversed(made):
        run(statement)
    engine.dispose()


def test_application_role_on_forced_tables_passes(engine: Engine):
    """Installed, and with no tenant active: it is start-up."""
    check(engine)


async def test_async_application_role_passes(async_engine: AsyncEngine):
    """On both asyncio drivers."""
    await check_async(async_engine)


def test_superuser_is_refused(make_engine: Callable[..., Engine], database: Database):
    """Policies do not bind it, FORCE or not."""
    with pytest.raises(TenancyError, match=f"the role {database.admin.username} is a superuser"):
        check(make_engine(database.admin.username))


def test_role_with_bypassrls_is_refused(engine: Engine, database: Database, admin: Callable):
    """Named by its attribute."""
    app = database.app
    admin(f"ALTER ROLE {app} BYPASSRLS", undo=f"ALTER ROLE {app} NOBYPASSRLS")
    with pytest.raises(TenancyError, match=f"the role {app} is BYPASSRLS"):
        check(engine)


def test_role_that_can_become_a_mighty_one_is_refused(engine: Engine, database: Database, admin: Callable):
    """SET ROLE is one statement away."""
    mighty = f"mighty_{database.app}"
    admin(f"CREATE ROLE {mighty} BYPASSRLS NOLOGIN", undo=f"DROP ROLE {mighty}")
    admin(f"GRANT {mighty} TO {database.app}", undo=f"REVOKE {mighty} FROM {database.app}")
    with pytest.raises(TenancyError, match=f"can become {mighty}, which is BYPASSRLS"):
        check(engine)


def test_owner_is_refused(make_engine: Callable[..., Engine], database: Database):
    """It can say NO FORCE."""
    with pytest.raises(TenancyError, match=r"\.notes is owned by this role"):
        check(make_engine(database.owner))


def test_member_of_the_owner_is_refused(engine: Engine, database: Database, admin: Callable):
    """So can whoever can become the owner."""
    owner, app = database.owner, database.app
    admin(f"GRANT {owner} TO {app}", undo=f"REVOKE {owner} FROM {app}")
    with pytest.raises(TenancyError, match=r"notes is owned by this role or one that it can"):
        check(engine)


@pytest.mark.parametrize(
    ("statement", "undo"),
    [
        ("NO FORCE ROW LEVEL SECURITY", "FORCE ROW LEVEL SECURITY"),
        ("DISABLE ROW LEVEL SECURITY", "ENABLE ROW LEVEL SECURITY"),
    ],
)
def test_table_without_force_is_refused(engine: Engine, owner: Callable, statement: str, undo: str):
    """ENABLE alone, and FORCE alone, are not enough."""
    owner(f"ALTER TABLE notes {statement}", undo=f"ALTER TABLE notes {undo}")
    with pytest.raises(TenancyError, match=r"\.notes has no forced row-level security"):
        check(engine)


def test_new_table_is_refused_until_it_is_named_as_shared(
    engine: Engine, owner: Callable, database: Database
):
    """With or without its schema; a column's privilege is enough to be looked at."""
    owner(
        "CREATE TABLE plans (id text, price int)",
        f"GRANT SELECT (id) ON plans TO {database.app}",
        undo="DROP TABLE plans",
    )
    with pytest.raises(TenancyError, match=r"\.plans has no forced row-level security"):
        check(engine)
    check(engine, shared=["plans"])
    check(engine, shared={f"{database.owner}.plans"})


def test_table_that_the_role_may_not_use_is_not_looked_at(engine: Engine, owner: Callable):
    """It is none of the application's."""
    owner("CREATE TABLE secrets (id text)", undo="DROP TABLE secrets")
    check(engine)


def test_partition_that_the_role_may_use_needs_its_own_security(
    engine: Engine, owner: Callable, database: Database
):
    """Policies of the parent do not hold where a partition is named."""
    owner(
        "CREATE TABLE days (tenant_id text, day int) PARTITION BY RANGE (day)",
        "CREATE TABLE days_1 PARTITION OF days FOR VALUES FROM (1) TO (2)",
        "ALTER TABLE days ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE days FORCE ROW LEVEL SECURITY",
        f"GRANT SELECT ON days_1, days TO {database.app}",
        undo="DROP TABLE days",
    )
    with pytest.raises(TenancyError, match=r"\.days_1 has no forced") as caught:
        check(engine)
    assert ".days has" not in str(caught.value)


def test_truncate_is_refused(engine: Engine, owner: Callable, database: Database):
    """It asks no policy."""
    owner(
        f"GRANT TRUNCATE ON notes TO {database.app}",
        undo=f"REVOKE TRUNCATE ON notes FROM {database.app}",
    )
    with pytest.raises(TenancyError, match=r"\.notes can be truncated"):
        check(engine)


def test_materialized_view_is_refused(engine: Engine, owner: Callable, database: Database):
    """It was filled under one tenant or none, and is read under all."""
    owner(
        "CREATE MATERIALIZED VIEW counts AS SELECT count(*) FROM notes",
        f"GRANT SELECT ON counts TO {database.app}",
        undo="DROP MATERIALIZED VIEW counts",
    )
    with pytest.raises(TenancyError, match=r"\.counts cannot carry policies"):
        check(engine)


def test_view_of_a_superuser_is_refused_unless_it_asks_as_its_invoker(
    engine: Engine, admin: Callable, owner: Callable, database: Database
):
    """A view of the owner is bound by FORCE; a superuser's is bound by nothing."""
    schema, app = database.owner, database.app
    owner(
        "CREATE VIEW mine AS SELECT * FROM notes",
        f"GRANT SELECT ON mine TO {app}",
        undo="DROP VIEW mine",
    )
    check(engine)
    admin(
        f"CREATE VIEW {schema}.everything AS SELECT * FROM {schema}.notes",
        undo=f"DROP VIEW {schema}.everything",
    )
    admin(f"GRANT SELECT ON {schema}.everything TO {app}")
    with pytest.raises(TenancyError, match=r"view \w+\.everything runs as a role"):
        check(engine)
    admin(f"ALTER VIEW {schema}.everything SET (security_invoker = true)")
    check(engine)


def test_all_problems_are_listed(make_engine: Callable[..., Engine], owner: Callable, database):
    """One start, one list."""
    owner("CREATE TABLE plans (id text)", undo="DROP TABLE plans")
    with pytest.raises(TenancyError, match="would not hold") as caught:
        check(make_engine(database.owner))
    assert "plans is owned" in str(caught.value)
    assert "plans has no forced" in str(caught.value)
    assert "notes is owned" in str(caught.value)


async def test_async_check_refuses(database: Database):
    """The same list through asyncio."""
    engine = create_async_engine(database.url(database.admin.username, driver="asyncpg"))
    with pytest.raises(TenancyError, match="is a superuser"):
        await check_async(engine)
    await engine.dispose()


async def test_wrong_engines_and_one_text_are_type_errors(engine: Engine, async_engine):
    """A check that is not awaited would pass in silence, so each engine has its own."""
    with pytest.raises(TypeError, match="check_async"):
        check(async_engine)
    with pytest.raises(TypeError, match=r"check\(engine\)"):
        await check_async(engine)
    with pytest.raises(TypeError, match="collection of names"):
        check(engine, shared="plans")
    with pytest.raises(TypeError, match="collection of names"):
        await check_async(async_engine, shared="plans")
