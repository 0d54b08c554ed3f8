"""What a transaction may see and do, on real servers, through Core and the ORM."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from sqlalchemy import Engine, create_engine, event, select, text
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from tenantry import (
    NoTenantError,
    TenantConflictError,
    carry_tenant,
    tenant_scope,
    without_tenant,
)
from tenantry.integrations.sqlalchemy import install, uninstall

INSERT = text("INSERT INTO notes (id, body) VALUES (:id, :body)")
BODIES = text("SELECT body FROM notes ORDER BY body")
SETTING = text("SELECT current_setting('app.tenant_id', true)")


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "notes"
    id: Mapped[str] = mapped_column(primary_key=True)
    body: Mapped[str]


def write(engine: Engine, tenant: str, body: str, id: str = "1") -> None:
    with tenant_scope(tenant), engine.begin() as conn:
        conn.execute(INSERT, {"id": id, "body": body})


def bodies(engine: Engine, tenant: str) -> list[str]:
    with tenant_scope(tenant), engine.begin() as conn:
        return list(conn.execute(BODIES).scalars())


def test_pooled_connection_never_shows_the_previous_tenants_rows(engine: Engine):
    """Two tenants with equal ids share one server process and see their own rows alone."""
    write(engine, "acme", "of acme")
    write(engine, "globex", "of globex")
    pids = set()
    for _ in range(3):
        for tenant in ("acme", "globex"):
            with tenant_scope(tenant), engine.connect() as conn:
                pids.add(conn.execute(text("SELECT pg_backend_pid()")).scalar())
                assert conn.execute(BODIES).scalars().all() == [f"of {tenant}"]
    assert len(pids) == 1


def test_foreign_rows_can_be_neither_changed_nor_deleted_nor_written(engine: Engine):
    """UPDATE and DELETE find nothing, INSERT of another tenant's row is refused by the policy."""
    write(engine, "acme", "of acme")
    with tenant_scope("globex"), engine.begin() as conn:
        assert conn.execute(text("UPDATE notes SET body = 'stolen'")).rowcount == 0
        assert conn.execute(text("DELETE FROM notes")).rowcount == 0
        with pytest.raises(ProgrammingError, match="row-level security"), conn.begin_nested():
            conn.execute(text("INSERT INTO notes VALUES ('2', 'acme', 'smuggled')"))
    assert bodies(engine, "acme") == ["of acme"]


def test_same_id_in_two_tenants_is_no_conflict(engine: Engine):
    """A key that leads with the tenant does not tell one tenant about another's ids."""
    write(engine, "acme", "a", id="same")
    write(engine, "globex", "b", id="same")
    with pytest.raises(IntegrityError, match="notes_pkey"):
        write(engine, "globex", "b", id="same")


def test_begin_without_a_tenant_raises_and_leaves_the_connection_usable(engine: Engine):
    """An explicit begin and an implicit one raise; afterwards the same connection serves a tenant."""
    with engine.connect() as conn:
        with pytest.raises(NoTenantError, match="a database transaction needs an active tenant"):
            conn.begin()
        with pytest.raises(NoTenantError, match="a database transaction needs an active tenant"):
            conn.execute(SETTING)
        assert not conn.in_transaction()
        with tenant_scope("acme"):
            assert conn.execute(SETTING).scalar() == "acme"
            assert conn.in_transaction()


def test_without_tenant_is_no_tenant(engine: Engine):
    """Platform jobs need an engine of their own."""
    with (
        without_tenant(reason="test"),
        pytest.raises(NoTenantError, match=r"without_tenant\(") as caught,
        engine.begin(),
    ):
        pass
    assert caught.value.state == "without_tenant"


def test_autocommit_raises_instead_of_showing_nothing(make_engine: Callable[..., Engine]):
    """As an engine's level, a connection's, and set on the driver behind SQLAlchemy's back."""
    engine = make_engine(isolation_level="AUTOCOMMIT")
    with tenant_scope("acme"), engine.connect() as conn:
        with pytest.raises(NoTenantError, match="outside a transaction"):
            conn.execute(BODIES)
        with pytest.raises(NoTenantError, match="outside a transaction"):
            conn.begin()


def test_autocommit_of_one_connection_raises_and_the_next_one_works(engine: Engine):
    """The level that a connection asked for is gone with it."""
    write(engine, "acme", "of acme")
    with tenant_scope("acme"), engine.connect() as conn:
        autocommit = conn.execution_options(isolation_level="AUTOCOMMIT")
        with pytest.raises(NoTenantError, match="AUTOCOMMIT"):
            autocommit.execute(BODIES)
    assert bodies(engine, "acme") == ["of acme"]


def test_autocommit_of_a_derived_engine_raises(engine: Engine):
    """An engine made by execution_options() is covered by its parent's installation."""
    derived = engine.execution_options(isolation_level="AUTOCOMMIT")
    with (
        tenant_scope("acme"),
        derived.connect() as conn,
        pytest.raises(NoTenantError, match="AUTOCOMMIT"),
    ):
        conn.execute(BODIES)


def test_autocommit_set_on_the_driver_raises(engine: Engine):
    """The driver is asked, not SQLAlchemy's idea of it."""
    with tenant_scope("acme"), engine.connect() as conn:
        driver_connection = conn.connection.dbapi_connection
        driver_connection.autocommit = True
        try:
            with pytest.raises(NoTenantError, match="outside a transaction"):
                conn.execute(BODIES)
        finally:
            driver_connection.autocommit = False


@pytest.mark.parametrize(
    "end", ["COMMIT", "  rollback ;", "END", "ABORT", "-- x\nCOMMIT", "/* x */ COMMIT AND CHAIN"]
)
def test_statement_after_a_textual_end_raises(engine: Engine, end: str):
    """SQLAlchemy does not notice that its transaction is over; the setting is gone with it."""
    with tenant_scope("acme"), engine.connect() as conn:
        conn.execute(SETTING)
        conn.execute(text(end))
        with pytest.raises(NoTenantError, match="outside a transaction"):
            conn.execute(BODIES)
        conn.rollback()
        assert conn.execute(SETTING).scalar() == "acme"


def test_switch_inside_an_open_transaction_raises_and_the_transaction_goes_on(engine: Engine):
    """Nothing is read as another tenant; under its own, the transaction is as it was."""
    with tenant_scope("acme"), engine.begin() as conn:
        conn.execute(INSERT, {"id": "1", "body": "of acme"})
        with (
            tenant_scope("globex", switch=True),
            pytest.raises(TenantConflictError, match="globex") as caught,
        ):
            conn.execute(BODIES)
        assert (caught.value.active, caught.value.requested) == ("acme", "globex")
        assert "commit or roll back" in str(caught.value)
        assert conn.execute(BODIES).scalars().all() == ["of acme"]
    assert bodies(engine, "acme") == ["of acme"]


def test_statement_after_the_scope_raises_but_commit_and_rollback_do_not(engine: Engine):
    """A transaction can always be ended, wherever its scope went."""
    conn = engine.connect()
    with tenant_scope("acme"):
        conn.execute(INSERT, {"id": "1", "body": "of acme"})
    with pytest.raises(NoTenantError, match="an SQL statement needs an active tenant"):
        conn.execute(BODIES)
    conn.commit()
    conn.close()
    assert bodies(engine, "acme") == ["of acme"]


def test_session_switch_raises_at_the_flush(engine: Engine):
    """An object added under one tenant is not written under another."""
    with tenant_scope("acme"), Session(engine) as session:
        session.execute(SETTING)
        with tenant_scope("globex", switch=True):
            session.add(Note(id="1", body="whose?"))
            with pytest.raises(TenantConflictError, match="acme"):
                session.commit()
        session.rollback()
    assert bodies(engine, "acme") == bodies(engine, "globex") == []


def test_session_works_after_commit(engine: Engine):
    """Each of a session's transactions is set anew: a refresh after commit finds its row."""
    with tenant_scope("acme"), Session(engine) as session:
        note = Note(id="1", body="first")
        session.add(note)
        session.commit()
        assert note.body == "first"
        note.body = "second"
        session.commit()
        assert session.scalars(select(Note.body)).all() == ["second"]


def test_orm_bulk_insert_is_checked_batch_by_batch(engine: Engine):
    """Insertmanyvalues sends its batches by a path of its own."""
    with tenant_scope("acme"), Session(engine) as session:
        session.add_all([Note(id=str(n), body=str(n)) for n in range(3)])
        session.flush()
        with tenant_scope("globex", switch=True), pytest.raises(TenantConflictError, match="acme"):
            session.execute(Note.__table__.insert().returning(Note.id), [{"id": "8", "body": "8"}])


def test_savepoint_keeps_the_tenant_and_refuses_a_switch(engine: Engine):
    """Rollback and release leave the setting what it was."""
    with tenant_scope("acme"), engine.begin() as conn:
        with pytest.raises(ZeroDivisionError), conn.begin_nested():
            raise ZeroDivisionError
        assert conn.execute(SETTING).scalar() == "acme"
        with conn.begin_nested():
            conn.execute(INSERT, {"id": "1", "body": "kept"})
        assert conn.execute(SETTING).scalar() == "acme"
        with tenant_scope("globex", switch=True), pytest.raises(TenantConflictError, match="acme"):
            conn.begin_nested()
        assert conn.execute(BODIES).scalars().all() == ["kept"]


def test_savepoint_can_be_undone_and_released_outside_its_scope(engine: Engine):
    """Unwinding touches no row, so it needs no tenant."""
    with tenant_scope("acme"):
        conn = engine.connect()
        conn.execute(INSERT, {"id": "1", "body": "kept"})
        undone = conn.begin_nested()
        conn.execute(INSERT, {"id": "2", "body": "undone"})
    undone.rollback()
    with tenant_scope("acme"):
        released = conn.begin_nested()
        conn.execute(INSERT, {"id": "3", "body": "released"})
    released.commit()
    conn.commit()
    conn.close()
    assert bodies(engine, "acme") == ["kept", "released"]


def test_after_commit_the_setting_is_empty_text_and_shows_nothing(engine: Engine):
    """Not NULL: a plain cast to uuid would fail on every later statement of the connection."""
    write(engine, "acme", "of acme")
    raw = engine.raw_connection()
    try:
        cursor = raw.cursor()
        cursor.execute("SELECT current_setting('app.tenant_id', true)")
        assert cursor.fetchone() == ("",)
        cursor.execute("SELECT * FROM notes")
        assert cursor.fetchall() == []
    finally:
        raw.close()


def test_server_side_cursors_see_the_tenant(engine: Engine):
    """With stream_results, the setting still goes out as a statement of its own."""
    write(engine, "acme", "of acme")
    with tenant_scope("acme"), engine.connect() as conn:
        streamed = conn.execution_options(stream_results=True, yield_per=1)
        assert [row.body for row in streamed.execute(BODIES)] == ["of acme"]


def test_quotes_in_a_setting_are_no_sql(engine: Engine):
    """The id travels as a bound parameter."""
    with tenant_scope("a.b-c_d"), engine.begin() as conn:
        assert conn.execute(SETTING).scalar() == "a.b-c_d"


def test_lost_connection_raises_as_ever_and_the_connection_begins_again(engine: Engine):
    """A server process that is gone shows at the setting, and costs one transaction."""
    with tenant_scope("acme"), engine.connect() as conn:
        pid = conn.execute(text("SELECT pg_backend_pid()")).scalar()
        conn.rollback()
        killer = create_engine(engine.url)
        with killer.begin() as other:
            other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
        killer.dispose()
        with pytest.raises(OperationalError) as caught:
            conn.execute(SETTING)
        assert caught.value.connection_invalidated
        conn.rollback()
        assert conn.execute(SETTING).scalar() == "acme"


def test_other_listeners_may_run_statements_as_a_transaction_begins(engine: Engine):
    """Their statements run inside the transaction, and are checked."""
    seen: list[str] = []

    @event.listens_for(engine, "begin")
    def timeout(conn) -> None:
        seen.append(conn.execute(SETTING).scalar())

    with tenant_scope("acme"), engine.begin():
        pass
    assert seen == ["acme"]


def test_threads_with_their_own_tenants_do_not_meet(make_engine: Callable[..., Engine]):
    """Eight threads of four tenants over two connections, each seeing its own rows alone."""
    engine = make_engine(pool_size=2, pool_timeout=60)
    tenants = [f"t{n}" for n in range(4)]
    for tenant in tenants:
        write(engine, tenant, f"of {tenant}")
    seen: list[tuple[str, list[str]]] = []

    def look(tenant: str) -> None:
        for _ in range(20):
            seen.append((tenant, bodies_here()))

    def bodies_here() -> list[str]:
        with engine.begin() as conn:
            return list(conn.execute(BODIES).scalars())

    threads = []
    for tenant in tenants * 2:
        with tenant_scope(tenant):
            threads.append(threading.Thread(target=carry_tenant(look), args=(tenant,)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 160
    assert all(found == [f"of {tenant}"] for tenant, found in seen)


def test_install_covers_open_connections_from_their_next_transaction_on(
    make_engine: Callable[..., Engine],
):
    """A transaction that was begun before is refused, not guessed at."""
    engine = make_engine(installed=False)
    with tenant_scope("acme"), engine.connect() as conn:
        conn.execute(SETTING)
        install(engine)
        with pytest.raises(NoTenantError, match="outside a transaction"):
            conn.execute(SETTING)
        conn.rollback()
        assert conn.execute(SETTING).scalar() == "acme"


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_ended_transaction_vouches_for_no_later_one(engine: Engine, end: str):
    """What was begun while tenantry was away is not taken for the transaction before it."""
    with tenant_scope("acme"), engine.connect() as conn:
        conn.execute(SETTING)
        getattr(conn, end)()
        uninstall(engine)
        conn.execute(SETTING)
        install(engine)
        with pytest.raises(NoTenantError, match="outside a transaction"):
            conn.execute(SETTING)


def test_install_twice_sets_once_and_uninstall_ends_it(engine: Engine):
    """The second call changes nothing; after uninstall the policies show nothing."""
    write(engine, "acme", "of acme")
    install(engine)
    statements: list[str] = []

    @event.listens_for(engine, "before_cursor_execute")
    def record(conn, cursor, statement, *rest) -> None:
        statements.append(statement)

    assert bodies(engine, "acme") == ["of acme"]
    assert sum("set_config" in statement for statement in statements) == 1
    uninstall(engine)
    uninstall(engine)
    with engine.begin() as conn:
        assert conn.execute(BODIES).scalars().all() == []
