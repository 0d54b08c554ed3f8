"""The migration helpers' SQL, run by Alembic and by hand on real servers."""

from __future__ import annotations

import uuid

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError

from tenantry import tenant_scope
from tenantry.integrations.sqlalchemy import (
    check,
    disable_row_security,
    enable_row_security,
    install,
    tenant_sql,
)

from .conftest import Database

ACME, GLOBEX = (str(uuid.uuid5(uuid.NAMESPACE_DNS, name)) for name in ("acme", "globex"))


@pytest.mark.parametrize("table", ["orders", 'odd "name"', "select", "Ünïcode", "semi;colon"])
@pytest.mark.parametrize(
    ("column_type", "sql_type"), [("text", "text"), ("varchar", "varchar(63)"), ("uuid", "uuid")]
)
def test_migration_up_and_down(database: Database, table: str, column_type, sql_type: str):
    """Every quoted name and column type: rows stay apart while the policy is there."""
    owner = create_engine(database.url(database.owner))
    app = create_engine(database.url())
    install(app)
    quoted = '"' + table.replace('"', '""') + '"'
    with owner.begin() as conn:
        conn.execute(
            text(
                f'CREATE TABLE {quoted} ("the tenant" {sql_type} NOT NULL '
                f"DEFAULT {tenant_sql(column_type)}, id int)"
            )
        )
        op = Operations(MigrationContext.configure(conn))
        for statement in enable_row_security(
            table, column="the tenant", column_type=column_type, policy="own rows"
        ):
            op.execute(statement)
        op.execute(f"GRANT SELECT, INSERT ON {quoted} TO {database.app}")
    try:
        for tenant, number in ((ACME, 1), (GLOBEX, 2)):
            with tenant_scope(tenant), app.begin() as conn:
                conn.execute(text(f"INSERT INTO {quoted} (id) VALUES ({number})"))
                assert conn.execute(text(f"SELECT id FROM {quoted}")).scalars().all() == [number]
        check(app)
    finally:
        with owner.begin() as conn:
            for statement in disable_row_security(table, policy="own rows"):
                conn.execute(text(statement))
            assert len(conn.execute(text(f"SELECT id FROM {quoted}")).all()) in (0, 2)
            conn.execute(text(f"DROP TABLE {quoted}"))
        owner.dispose()
        app.dispose()


def test_uuid_policy_survives_a_connection_on_which_a_tenant_was_set(database: Database):
    """After a transaction the setting is ``''``; a cast of that would fail on every later query."""
    owner = create_engine(database.url(database.owner), pool_size=1, max_overflow=0)
    with owner.begin() as conn:
        conn.execute(text("CREATE TABLE by_uuid (tenant_id uuid, id int)"))
        for statement in enable_row_security("by_uuid", column_type="uuid"):
            conn.execute(text(statement))
    try:
        install(owner)
        with tenant_scope(ACME), owner.begin() as conn:
            assert conn.execute(text("SELECT * FROM by_uuid")).all() == []
        raw = owner.raw_connection()
        cursor = raw.cursor()
        cursor.execute("SELECT * FROM by_uuid")
        assert cursor.fetchall() == []
        raw.close()
        with tenant_scope("not-a-uuid"), owner.begin() as conn, pytest.raises(DBAPIError):
            conn.execute(text("SELECT * FROM by_uuid WHERE id = 1"))
            conn.execute(text("INSERT INTO by_uuid VALUES (NULL, 1)"))
    finally:
        owner.dispose()
        plain = create_engine(database.url(database.owner))
        with plain.begin() as conn:
            conn.execute(text("DROP TABLE by_uuid"))
        plain.dispose()


def test_schema_is_quoted_apart_from_the_table(database: Database):
    """A dot belongs to whichever name it stands in."""
    statements = enable_row_security("notes", schema="a.b")
    assert statements[0] == 'ALTER TABLE "a.b"."notes" ENABLE ROW LEVEL SECURITY'
    owner = create_engine(database.url(database.owner))
    with owner.connect() as conn:
        for statement in disable_row_security("notes", schema=database.owner):
            conn.execute(text(statement))
        for statement in enable_row_security("notes", schema=database.owner):
            conn.execute(text(statement))
        conn.rollback()
    owner.dispose()
