"""Two-phase transactions: the setting has to wait for the driver's own beginning."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, create_engine

from tenantry import NoTenantError, TenantConflictError, tenant_scope
from tenantry.integrations.sqlalchemy import install

from .conftest import Database
from .test_row_security import BODIES, INSERT, bodies


@pytest.fixture
def engine(embedded_database: Database) -> Iterator[Engine]:
    """An installed engine on a server that allows prepared transactions."""
    engine = create_engine(embedded_database.url())
    install(engine)
    yield engine
    engine.dispose()


def test_prepared_and_committed_rows_belong_to_the_tenant(engine: Engine):
    """The first statement of a two-phase transaction brings the setting along."""
    with tenant_scope("acme"), engine.connect() as conn:
        transaction = conn.begin_twophase()
        conn.execute(INSERT, {"id": "1", "body": "of acme"})
        transaction.prepare()
        transaction.commit()
    assert bodies(engine, "acme") == ["of acme"]
    assert bodies(engine, "globex") == []


def test_rolled_back_transaction_leaves_nothing(engine: Engine):
    """Prepared or not, and outside the scope."""
    for prepares in (True, False):
        with engine.connect() as conn:
            with tenant_scope("acme"):
                transaction = conn.begin_twophase()
                conn.execute(INSERT, {"id": "1", "body": "of acme"})
            if prepares:
                transaction.prepare()
            transaction.rollback()
    assert bodies(engine, "acme") == []


def test_no_tenant_and_a_switch_raise(engine: Engine):
    """The rules of every other transaction."""
    with engine.connect() as conn:
        with pytest.raises(NoTenantError, match="a database transaction"):
            conn.begin_twophase()
        with tenant_scope("acme"):
            transaction = conn.begin_twophase()
            with (
                tenant_scope("globex", switch=True),
                pytest.raises(TenantConflictError, match="acme"),
            ):
                conn.execute(BODIES)
            transaction.rollback()


def test_statement_after_prepare_raises(engine: Engine):
    """The transaction is the coordinator's then, and its setting is gone."""
    with tenant_scope("acme"), engine.connect() as conn:
        transaction = conn.begin_twophase()
        conn.execute(INSERT, {"id": "1", "body": "of acme"})
        transaction.prepare()
        with pytest.raises(NoTenantError, match="outside a transaction"):
            conn.execute(BODIES)
        transaction.rollback()
