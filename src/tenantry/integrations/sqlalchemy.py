"""PostgreSQL row-level security through SQLAlchemy: each transaction belongs to one tenant.

* **Enters**: nothing; the tenant is the one that is active where a transaction begins.
* **Leaves**: ``set_config('app.tenant_id', …, true)``, the first statement of every transaction,
  which row-level security policies read. It ends with the transaction, so a pooled connection
  carries nothing over, behind PgBouncer in transaction mode included.
* **Runs bound**: no callback is bound. Every statement of Core, of the ORM and of their asyncio
  forms is compared with its transaction's tenant before it is sent.
* **Tested with**: SQLAlchemy 2.0.30 and 2.1, PostgreSQL 15 and 18, psycopg 3 and asyncpg,
  PgBouncer 1.18 in transaction mode.

What this cannot see: ``engine.raw_connection()`` and objects that an ORM session already holds.
The first finds no tenant set, so that policies show it nothing; for the second, use one session per
unit of work.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias
from weakref import WeakKeyDictionary

from tenantry.context import require_tenant
from tenantry.errors import NoTenantError, TenancyError, TenantConflictError

try:
    from sqlalchemy import event, text
    from sqlalchemy.engine import Connection, Engine
except ModuleNotFoundError as error:
    if error.name != "sqlalchemy":
        raise
    raise ImportError(
        "tenantry.integrations.sqlalchemy needs SQLAlchemy: pip install tenantry[sqlalchemy]"
    ) from error

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.ext.asyncio import AsyncEngine

    from tenantry.ids import TenantId

__all__ = [
    "check",
    "check_async",
    "disable_row_security",
    "enable_row_security",
    "install",
    "tenant_sql",
    "uninstall",
]

ColumnType: TypeAlias = Literal["text", "varchar", "uuid"]

_SETTING: Final = "app.tenant_id"
# Qualified: a search_path that puts another schema first must not choose the function.
_SET_TENANT: Final = text(f"SELECT pg_catalog.set_config('{_SETTING}', :tenant_id, true)")

# Statements that only steer a transaction touch no row; refusing them would make a transaction that
# is being unwound outside its scope impossible to roll back. SQLAlchemy sends those of savepoints
# and of two-phase commit through a cursor.
_CONTROL: Final = re.compile(
    r"(?:\s|--[^\n]*\n|/\*.*?\*/)*(?:(?P<ends>COMMIT|END|ABORT|ROLLBACK(?!\s+(?:(?:WORK|TRANSACTION)\s+)?TO\b)|PREPARE\s+TRANSACTION)"
    r"|ROLLBACK|RELEASE|BEGIN)\b[^;]*;?\s*",
    re.IGNORECASE | re.DOTALL,
)


class _Transaction:
    """What one open transaction remembers: its tenant, and how far the server knows of it."""

    __slots__ = ("progress", "tenant")

    def __init__(self, tenant: TenantId) -> None:
        self.tenant = tenant
        self.progress: Literal["unset", "setting", "set"] = "unset"


_transactions: WeakKeyDictionary[Connection, _Transaction] = WeakKeyDictionary()


def install(engine: Engine | AsyncEngine) -> None:
    """Bind every transaction of ``engine`` to the tenant that is active where it begins.

    From now on a transaction starts with ``set_config('app.tenant_id', <tenant>, true)``, and

    * beginning one with no active tenant raises, also inside ``without_tenant``: platform jobs and
      migrations use an engine of their own, under a role of their own;
    * a statement under another tenant than its transaction's raises before it is sent;
    * a statement outside a transaction (isolation level ``AUTOCOMMIT``) raises: the setting would
      end before the statement ran, and the policies would silently show nothing.

    Commit, rollback and savepoint release are never refused. Engines derived by
    ``execution_options()`` are covered. Installing twice is the same as once; connections that are
    open already are covered from their next transaction on, and refuse statements until then.

    Args:
        engine: An ``Engine`` or ``AsyncEngine`` for PostgreSQL; needs no running server.

    Raises:
        TypeError: ``engine`` is not an engine.
        ValueError: The engine's dialect is not PostgreSQL.

    Cost: one round trip per transaction; per statement, one look-up and one comparison.
    Thread and async safety: that of the engine.
    """
    target = _engine(engine)
    if target.dialect.name != "postgresql":
        raise ValueError(
            f"row-level security is PostgreSQL's, and this engine speaks {target.dialect.name}: "
            "give install() an engine for postgresql"
        )
    for name, listener in _LISTENERS.items():
        if not event.contains(target, name, listener):
            event.listen(target, name, listener)


def uninstall(engine: Engine | AsyncEngine) -> None:
    """Take :func:`install` back; policies then show the engine's transactions nothing.

    Args:
        engine: The engine that was installed; one that was not is left as it is.

    Raises:
        TypeError: ``engine`` is not an engine.
    """
    target = _engine(engine)
    for name, listener in _LISTENERS.items():
        if event.contains(target, name, listener):
            event.remove(target, name, listener)


def _engine(engine: Engine | AsyncEngine) -> Engine:
    """Return the synchronous engine inside, or refuse."""
    target = getattr(engine, "sync_engine", engine)
    if not isinstance(target, Engine):
        raise TypeError(f"expected a SQLAlchemy Engine or AsyncEngine, not {type(engine).__name__}")
    return target


# --- what listens ---------------------------------------------------------------------------------


@contextmanager
def _usable_afterwards(conn: Connection) -> Iterator[None]:
    """Leave ``conn`` able to begin again when its beginning is refused.

    ``Connection._begin_impl`` marks the connection as beginning and clears the mark only after its
    listeners returned: after an error the connection would never begin again by itself, and run
    statements outside any transaction.
    """
    try:
        yield
    except BaseException:
        _transactions.pop(conn, None)
        setattr(conn, "_Connection__in_begin", False)  # noqa: B010 - a mangled name of another class
        raise


def _begin(conn: Connection) -> None:
    with _usable_afterwards(conn):
        _set_tenant(conn, _enter(conn))


def _begin_twophase(conn: Connection, xid: object) -> None:
    # The driver has not begun yet, and psycopg refuses to where a statement ran before: the setting
    # goes out with the first statement instead.
    with _usable_afterwards(conn):
        _enter(conn)


def _enter(conn: Connection) -> _Transaction:
    _transactions.pop(conn, None)
    tenant = require_tenant("a database transaction")
    _refuse_autocommit(conn)
    transaction = _transactions[conn] = _Transaction(tenant)
    return transaction


def _set_tenant(conn: Connection, transaction: _Transaction) -> None:
    transaction.progress = "setting"
    # Never through a server-side cursor, which would run the function at its first fetch.
    result = conn.execute(
        _SET_TENANT, {"tenant_id": transaction.tenant}, execution_options={"stream_results": False}
    )
    result.close()
    transaction.progress = "set"


def _end(conn: Connection, *_: object) -> None:
    _transactions.pop(conn, None)


def _before_statement(
    conn: Connection,
    cursor: object,
    statement: str,
    parameters: object,
    context: object,
    executemany: object,
) -> None:
    transaction = _transactions.get(conn)
    if transaction is not None and transaction.progress == "setting":
        return
    control = _CONTROL.fullmatch(statement)
    if control is not None:
        if control["ends"]:
            _transactions.pop(conn, None)
        return
    tenant = require_tenant("an SQL statement")
    if transaction is None:
        raise _outside_transaction()
    if tenant != transaction.tenant:
        raise _switched(transaction.tenant, tenant)
    _refuse_autocommit(conn)
    if transaction.progress == "unset":
        _set_tenant(conn, transaction)


_LISTENERS: Final[dict[str, Callable[..., None]]] = {
    "begin": _begin,
    "begin_twophase": _begin_twophase,
    "before_cursor_execute": _before_statement,
    "commit": _end,
    "rollback": _end,
    "prepare_twophase": _end,
    "commit_twophase": _end,
    "rollback_twophase": _end,
}


def _refuse_autocommit(conn: Connection) -> None:
    # Asked of the driver's connection: the isolation level may be the engine's, the connection's,
    # or set on the driver behind SQLAlchemy's back.
    driver_connection: Any = conn.connection.dbapi_connection
    if driver_connection.autocommit:
        raise _outside_transaction()


def _outside_transaction() -> NoTenantError:
    return NoTenantError("an SQL statement", "outside a transaction")


def _switched(active: TenantId, requested: TenantId) -> TenantConflictError:
    cure = (
        "The open database transaction belongs to the tenant under which it began: commit or roll "
        "back before the other scope, or give each tenant a connection or session of its own."
    )
    return TenantConflictError(active, requested, cure)


# --- the start-up check ---------------------------------------------------------------------------

_MIGHTY_ROLES: Final = """
SELECT r.rolname, r.rolname IN (current_user, session_user), r.rolsuper
FROM pg_catalog.pg_roles r
WHERE (r.rolsuper OR r.rolbypassrls)
  AND (pg_catalog.pg_has_role(session_user, r.oid, 'MEMBER')
       OR pg_catalog.pg_has_role(current_user, r.oid, 'MEMBER'))
ORDER BY 2 DESC, 1
"""

_RELATIONS: Final = """
SELECT n.nspname, c.relname, c.relkind::text, c.relrowsecurity AND c.relforcerowsecurity,
       pg_catalog.pg_has_role(session_user, c.relowner, 'MEMBER')
           OR pg_catalog.pg_has_role(current_user, c.relowner, 'MEMBER'),
       c.relkind IN ('r', 'p') AND pg_catalog.has_table_privilege(c.oid, 'TRUNCATE'),
       (o.rolsuper OR o.rolbypassrls) AND NOT coalesce(
           c.reloptions && ARRAY['security_invoker=true', 'security_invoker=on',
                                 'security_invoker=1', 'security_invoker=yes'], false)
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_roles o ON o.oid = c.relowner
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
  AND c.relpersistence <> 't'
  AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
  AND pg_catalog.has_schema_privilege(n.oid, 'USAGE')
  AND (pg_catalog.has_table_privilege(c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE')
       OR pg_catalog.has_any_column_privilege(c.oid, 'SELECT, INSERT, UPDATE'))
ORDER BY 1, 2
"""


def check(engine: Engine, *, shared: Collection[str] = ()) -> None:
    """Refuse, at start, a role and tables on which row-level security would not hold.

    Refused are a role that is superuser, has ``BYPASSRLS`` or can become such a role. Of the
    relations that it may use: tables without ``FORCE ROW LEVEL SECURITY``; tables that it owns, or
    whose owner it can become, since an owner can switch the security off; ``TRUNCATE``, which asks
    no policy; and what no policy holds: materialized views, foreign tables, and views that run with
    the rights of a superuser. Functions declared ``SECURITY DEFINER`` are not looked into.

    Args:
        engine: The application's engine, installed or not; needs no active tenant.
        shared: Names of relations that hold no tenant's data, as ``"table"`` or ``"schema.table"``.

    Raises:
        TypeError: ``engine`` is not a synchronous engine, or ``shared`` is one text.
        TenancyError: At least one of the above; the message lists them all.
        sqlalchemy.exc.SQLAlchemyError: The database cannot be asked.

    Cost: one connection and two catalogue queries.
    """
    if not isinstance(engine, Engine):
        raise TypeError("check() takes an Engine; for an AsyncEngine: await check_async(engine)")
    names = _names(shared)
    with engine.connect() as conn:
        _refuse_problems(conn, names)


async def check_async(engine: AsyncEngine, *, shared: Collection[str] = ()) -> None:
    """Do what :func:`check` does, for an ``AsyncEngine``.

    Args:
        engine: The application's engine, installed or not; needs no active tenant.
        shared: Names of relations that hold no tenant's data, as ``"table"`` or ``"schema.table"``.

    Raises:
        TypeError: ``engine`` is not an ``AsyncEngine``, or ``shared`` is one text.
        TenancyError: The role or a relation is refused; the message lists everything.
        sqlalchemy.exc.SQLAlchemyError: The database cannot be asked.
    """
    if not hasattr(engine, "sync_engine"):
        raise TypeError("check_async() takes an AsyncEngine; for an Engine: check(engine)")
    names = _names(shared)
    async with engine.connect() as conn:
        await conn.run_sync(_refuse_problems, names)


def _names(shared: Collection[str]) -> frozenset[str]:
    if isinstance(shared, str):
        raise TypeError(f"shared is a collection of names: shared=({shared!r},)")
    return frozenset(shared)


def _refuse_problems(conn: Connection, shared: frozenset[str]) -> None:
    # The driver's own cursor begins no transaction of SQLAlchemy's, so it needs no tenant.
    driver_connection = conn.connection
    problems = [*_role_problems(driver_connection), *_relation_problems(driver_connection, shared)]
    if problems:
        raise TenancyError(
            "row-level security would not hold:\n" + "\n".join(f"- {problem}" for problem in problems)
        )


def _rows(connection: DBAPIConnection | Any, query: str) -> list[tuple[Any, ...]]:
    cursor = connection.cursor()
    try:
        cursor.execute(query)
        return list(cursor.fetchall())
    finally:
        cursor.close()


def _role_problems(connection: Any) -> Iterator[str]:
    for role, itself, superuser in _rows(connection, _MIGHTY_ROLES):
        kind = "a superuser" if superuser else "BYPASSRLS"
        if itself:
            yield f"the role {role} is {kind}: connect as a role that policies bind"
            return
        yield f"the role can become {role}, which is {kind}: REVOKE that membership"


def _relation_problems(connection: Any, shared: frozenset[str]) -> Iterator[str]:
    for schema, name, kind, forced, owned, truncates, mighty in _rows(connection, _RELATIONS):
        if name in shared or f"{schema}.{name}" in shared:
            continue
        relation = f"{schema}.{name}"
        if kind in "mf":
            yield f"{relation} cannot carry policies: REVOKE it, or name it in shared="
        elif kind == "v":
            if mighty:
                yield f"view {relation} runs as a role that no policy binds: set security_invoker"
        else:
            yield from _table_problems(relation, forced=forced, owned=owned, truncates=truncates)


def _table_problems(relation: str, *, forced: bool, owned: bool, truncates: bool) -> Iterator[str]:
    if owned:
        yield f"{relation} is owned by this role or one that it can become: give it another owner"
    elif truncates:
        yield f"{relation} can be truncated by this role, which asks no policy: REVOKE TRUNCATE"
    if not forced:
        yield f"{relation} has no forced row-level security: FORCE it, or name it in shared="


# --- SQL for migrations ---------------------------------------------------------------------------


def tenant_sql(column_type: ColumnType = "text") -> str:
    """Return the SQL expression for the transaction's tenant, ``NULL`` where there is none.

    Use it as a column's server default, so that no statement has to name the tenant.
    After a transaction the setting is ``''`` on that connection rather than unset; ``nullif`` keeps
    the cast to ``uuid`` from failing then.

    Args:
        column_type: Type of the tenant column: ``"text"`` (default), ``"varchar"`` or ``"uuid"``.

    Raises:
        ValueError: Another type.
    """
    if column_type not in ("text", "varchar", "uuid"):
        raise ValueError(f"a tenant column is of type text, varchar or uuid, not {column_type!r}")
    expression = f"nullif(current_setting('{_SETTING}', true), '')"
    return f"{expression}::uuid" if column_type == "uuid" else expression


def enable_row_security(
    table: str,
    *,
    schema: str | None = None,
    column: str = "tenant_id",
    column_type: ColumnType = "text",
    policy: str = "tenant_isolation",
) -> tuple[str, ...]:
    """Return the statements that put ``table`` under forced row-level security, for a migration.

    Rows of another tenant are invisible and cannot be written, by the table's owner neither, and
    with no tenant no row is. One statement each, since some drivers take no more at once.

    Args:
        table: Name of the table, one identifier without schema; quoted, so it is taken as written.
        schema: Its schema; default: whatever ``search_path`` says.
        column: Name of the column that holds the tenant id.
        column_type: Its type: ``"text"`` (default), ``"varchar"`` or ``"uuid"``.
        policy: Name of the policy.

    Raises:
        ValueError: A name that is no PostgreSQL identifier (empty, NUL, above 63 bytes), or
            another type.
    """
    relation, name = _relation(schema, table), _identifier(policy)
    own = f"{_identifier(column)} = {tenant_sql(column_type)}"
    return (
        f"ALTER TABLE {relation} ENABLE ROW LEVEL SECURITY",
        f"ALTER TABLE {relation} FORCE ROW LEVEL SECURITY",
        f"CREATE POLICY {name} ON {relation} USING ({own}) WITH CHECK ({own})",
    )


def disable_row_security(
    table: str, *, schema: str | None = None, policy: str = "tenant_isolation"
) -> tuple[str, ...]:
    """Return the statements that take :func:`enable_row_security` back, for a downgrade.

    Args:
        table: Name of the table, one identifier without schema.
        schema: Its schema; default: whatever ``search_path`` says.
        policy: Name of the policy.

    Raises:
        ValueError: A name that is no PostgreSQL identifier.
    """
    relation, name = _relation(schema, table), _identifier(policy)
    return (
        f"DROP POLICY IF EXISTS {name} ON {relation}",
        f"ALTER TABLE {relation} NO FORCE ROW LEVEL SECURITY",
        f"ALTER TABLE {relation} DISABLE ROW LEVEL SECURITY",
    )


def _relation(schema: str | None, table: str) -> str:
    return _identifier(table) if schema is None else f"{_identifier(schema)}.{_identifier(table)}"


def _identifier(name: str) -> str:
    if not name or "\x00" in name or len(name.encode()) > 63:
        raise ValueError(f"not a PostgreSQL identifier of 1 to 63 bytes: {name!r:.40}")
    return '"' + name.replace('"', '""') + '"'
