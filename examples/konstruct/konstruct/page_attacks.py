"""The attacks that the page offers: each runs here, on the live servers, and says what refused it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from celery import Celery
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from konstruct import database, orchestrator, storage
from konstruct.settings import settings
from tenantry import TenancyError, keys, tenant_scope
from tenantry.integrations.celery import quarantine

ME, OTHER = "acme", "globex"
MESSAGE = orchestrator.Incoming(
    message_id="attack", thread_id="T1", agent_id="concierge", user_id="U1", text="hello"
)


@dataclass(frozen=True, slots=True)
class Attack:
    """What is tried, in code as a person would write it, and who stands in the way."""

    title: str
    code: str
    layer: str
    run: Callable[[], str]


def _refused(deed: Callable[[], object]) -> str:
    try:
        deed()
    except TenancyError as error:
        return f"{type(error).__name__}: {error}"
    except DBAPIError as error:
        return f"{type(error.orig).__name__}: {str(error.orig).splitlines()[0]}"
    raise AssertionError("it was not refused")


def _as_me(deed: Callable[[], object]) -> Callable[[], str]:
    def attack() -> str:
        with tenant_scope(ME):
            return _refused(deed)

    return attack


def _sql(statement: str) -> None:
    with database.engine.begin() as connection:
        connection.execute(text(statement))


def _bare_thread() -> str:
    outcome: list[str] = []
    with tenant_scope(ME):
        target = lambda: outcome.append(_refused(lambda: keys.session("T1")))  # noqa: E731
        thread = threading.Thread(target=target)
        thread.start()
        thread.join()
    return outcome[0]


def _plain_client() -> str:
    """Send a message without a header, find it in the quarantine, and take it out again."""
    with Celery(broker=settings.broker_url, set_as_current=False) as client:
        sent = client.send_task("konstruct.respond", args=(MESSAGE,), queue="konstruct")
    kept = quarantine(orchestrator.app)
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        for entry in kept.list():
            if entry.task_id == sent.id:
                kept.discard(entry.id, reason="attack from the page")
                return f"quarantined by {entry.worker}: {entry.reason}"
        time.sleep(0.1)
    raise AssertionError("it is not in the quarantine")


def _where() -> str:
    with tenant_scope(ME), database.engine.begin() as connection:
        statement = text(f"SELECT * FROM conversation_embeddings WHERE tenant_id = '{OTHER}'")
        rows = connection.execute(statement).all()
    assert rows == [], "it was not refused"
    return "0 rows: the policy is part of every query"


def _switch() -> None:
    with database.engine.begin() as connection:
        connection.execute(text("SELECT 1"))
        with tenant_scope(OTHER, switch=True):
            connection.execute(text("SELECT content FROM conversation_embeddings"))


def _autocommit() -> None:
    with database.engine.connect() as connection:
        level = connection.execution_options(isolation_level="AUTOCOMMIT")
        level.execute(text("SELECT content FROM conversation_embeddings"))


WINDOW = f"{OTHER}:memory:short:concierge:U1"
INSERT = (
    "INSERT INTO conversation_embeddings (tenant_id, message_id, agent_id, user_id, content, embedding)"
    f" VALUES ('{OTHER}', 'x', 'concierge', 'U1', 'planted', array_fill(0.1, ARRAY[384])::vector)"
)

ATTACKS = {
    "publish": Attack(
        "Publish a task with no tenant",
        "respond.delay(message)",
        "publisher",
        lambda: _refused(lambda: orchestrator.respond.delay(MESSAGE)),
    ),
    "plain-client": Attack(
        "Put a message on the queue with a plain Celery client",
        'Celery(broker=…).send_task("konstruct.respond", …)',
        "worker",
        _plain_client,
    ),
    "foreign-key": Attack(
        "Read the other tenant's memory with a key written by hand",
        f'client.lrange("{WINDOW}", 0, -1)',
        "Redis guard",
        _as_me(lambda: storage.client.lrange(WINDOW, 0, -1)),
    ),
    "list-keys": Attack(
        "List everybody's keys", 'client.keys("*")', "Redis guard", _as_me(storage.client.keys)
    ),
    "thread": Attack(
        "Build a key in a bare thread",
        'Thread(target=lambda: keys.session("T1"))',
        "key function",
        _bare_thread,
    ),
    "sql-no-tenant": Attack(
        "Query with no tenant",
        "engine.begin()",
        "SQLAlchemy edge",
        lambda: _refused(lambda: _sql("SELECT content FROM conversation_embeddings")),
    ),
    "sql-where": Attack(
        "Ask for the other tenant's rows by name",
        f"SELECT * FROM conversation_embeddings WHERE tenant_id = '{OTHER}'",
        "PostgreSQL policy",
        _where,
    ),
    "sql-insert": Attack(
        "Plant a memory in the other tenant",
        f"INSERT INTO conversation_embeddings (tenant_id, …) VALUES ('{OTHER}', …)",
        "PostgreSQL policy",
        _as_me(lambda: _sql(INSERT)),
    ),
    "sql-delete": Attack(
        "Delete memories",
        "DELETE FROM conversation_embeddings",
        "PostgreSQL grants",
        _as_me(lambda: _sql("DELETE FROM conversation_embeddings")),
    ),
    "sql-switch": Attack(
        "Change the tenant inside an open transaction",
        f'with tenant_scope("{OTHER}", switch=True): connection.execute(…)',
        "SQLAlchemy edge",
        _as_me(_switch),
    ),
    "sql-autocommit": Attack(
        "Query outside a transaction",
        'connection.execution_options(isolation_level="AUTOCOMMIT")',
        "SQLAlchemy edge",
        _as_me(_autocommit),
    ),
}
