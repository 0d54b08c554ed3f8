"""The SQLAlchemy edge without a server: what it refuses to be built on, and the SQL it writes."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("sqlalchemy")

from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine

from tenantry.integrations import sqlalchemy as edge
from tenantry.integrations.sqlalchemy import (
    disable_row_security,
    enable_row_security,
    install,
    tenant_sql,
    uninstall,
)


@pytest.mark.parametrize("value", [None, "postgresql://localhost/x", object(), 1])
def test_install_refuses_what_is_no_engine(value: object):
    """Named by its type."""
    with pytest.raises(TypeError, match=f"not {type(value).__name__}"):
        install(value)
    with pytest.raises(TypeError, match=f"not {type(value).__name__}"):
        uninstall(value)


def test_install_refuses_another_database():
    """There is no row-level security to rely on."""
    with pytest.raises(ValueError, match="sqlite"):
        install(create_engine("sqlite://"))


def test_install_needs_no_server():
    """Engines connect when they are used."""
    for engine in (
        create_engine("postgresql+psycopg://nobody@127.0.0.1:1/none"),
        create_async_engine("postgresql+asyncpg://nobody@127.0.0.1:1/none"),
    ):
        install(engine)
        install(engine)
        uninstall(engine)
        uninstall(engine)


def test_policy_reads_the_setting_so_that_empty_is_none():
    """The form that neither fails open nor fails on the cast."""
    assert enable_row_security("memories", column_type="uuid") == (
        'ALTER TABLE "memories" ENABLE ROW LEVEL SECURITY',
        'ALTER TABLE "memories" FORCE ROW LEVEL SECURITY',
        (
            'CREATE POLICY "tenant_isolation" ON "memories" '
            "USING (\"tenant_id\" = nullif(current_setting('app.tenant_id', true), '')::uuid) "
            "WITH CHECK (\"tenant_id\" = nullif(current_setting('app.tenant_id', true), '')::uuid)"
        ),
    )
    assert tenant_sql() == "nullif(current_setting('app.tenant_id', true), '')"


def test_policy_is_taken_back_in_reverse():
    """Policy first; the table is open to its owner at the end."""
    assert disable_row_security("memories", schema="app") == (
        'DROP POLICY IF EXISTS "tenant_isolation" ON "app"."memories"',
        'ALTER TABLE "app"."memories" NO FORCE ROW LEVEL SECURITY',
        'ALTER TABLE "app"."memories" DISABLE ROW LEVEL SECURITY',
    )


@pytest.mark.parametrize("name", ["", "nul\x00", "x" * 64, "é" * 32])
def test_names_that_postgres_would_cut_or_refuse_are_refused(name: str):
    """Above 63 bytes PostgreSQL cuts in silence, and the policy would stand on another name."""
    with pytest.raises(ValueError, match="identifier"):
        enable_row_security(name)
    with pytest.raises(ValueError, match="identifier"):
        enable_row_security("t", schema=name)
    with pytest.raises(ValueError, match="identifier"):
        enable_row_security("t", column=name)
    with pytest.raises(ValueError, match="identifier"):
        enable_row_security("t", policy=name)
    with pytest.raises(ValueError, match="identifier"):
        disable_row_security("t", policy=name)


@pytest.mark.parametrize("column_type", ["int", "", None, "TEXT", "uuid; drop table x"])
def test_other_column_types_are_refused(column_type: object):
    """A tenant id is text or a UUID."""
    with pytest.raises(ValueError, match="text, varchar or uuid"):
        enable_row_security("t", column_type=column_type)


@pytest.mark.parametrize(
    ("statement", "is_control", "ends"),
    [
        ("COMMIT", True, True),
        ("commit prepared 'x'", True, True),
        ("ROLLBACK", True, True),
        ("rollback work to savepoint s", True, False),
        ("ROLLBACK TO SAVEPOINT s", True, False),
        ("RELEASE SAVEPOINT s", True, False),
        ("BEGIN", True, False),
        ("/* a */ -- b\n END;", True, True),
        ("PREPARE TRANSACTION 'x'", True, True),
        ("PREPARE x AS SELECT 1", False, False),
        ("SAVEPOINT s", False, False),
        ("COMMIT; SELECT * FROM notes", False, False),
        ("ROLLBACK TO s; SELECT * FROM notes", False, False),
        ("COMMITTED", False, False),
        ("SELECT 1", False, False),
        ("/* COMMIT */ SELECT 1", False, False),
    ],
)
def test_statements_that_steer_a_transaction_are_told_apart(statement, is_control, ends):
    """They alone need no tenant, and nothing can ride along."""
    found = edge._CONTROL.fullmatch(statement)
    assert (found is not None) == is_control
    assert bool(found and found["ends"]) == ends


def test_missing_sqlalchemy_is_named_with_its_extra():
    """And a broken import inside SQLAlchemy is not mistaken for it."""
    script = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name == blocked:
            raise ModuleNotFoundError("no " + name, name=name)
blocked = sys.argv[1]
sys.meta_path.insert(0, Blocker())
import tenantry.integrations.sqlalchemy
"""
    missing = subprocess.run([sys.executable, "-c", script, "sqlalchemy"], capture_output=True, text=True)
    assert "pip install tenantry[sqlalchemy]" in missing.stderr
    broken = subprocess.run(
        [sys.executable, "-c", script, "typing_extensions"], capture_output=True, text=True
    )
    assert "pip install tenantry[sqlalchemy]" not in broken.stderr
    assert "no typing_extensions" in broken.stderr
