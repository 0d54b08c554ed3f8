"""What goes wrong without tenantry, and what happens with it, each on the running services.

Every attack is two functions: ``before`` does the deed to the service in ``before/`` and returns
what it got away with; ``after`` does the same to ``konstruct/`` and returns what stopped it. A
function that finds anything else raises ``AssertionError``.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import before.database
import before.keys
import before.service
import redis
from celery import Celery
from http_client import Answer, call
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from konstruct import database, memory_long, memory_short, orchestrator, storage
from konstruct.settings import settings
from tenantry import (
    CrossTenantError,
    InvalidTenantIdError,
    NoTenantError,
    TenancyError,
    TenantConflictError,
    carry_tenant,
    keys,
    tenant_scope,
)

AGENT, USER = "concierge", "U024BE7LH"
TABLE = "conversation_embeddings"
PLANT = (
    f"INSERT INTO {TABLE} (tenant_id, message_id, agent_id, user_id, content, embedding) "
    "VALUES ('globex', 'x', 'a', 'u', 'planted', array_fill(0.1, ARRAY[384])::vector)"
)
WINDOW = f"globex:memory:short:{AGENT}:{USER}"


@dataclass(frozen=True, slots=True)
class Targets:
    """Where the two services listen, and unguarded clients that see what is really in their databases."""

    before_url: str
    after_url: str
    raw_before: redis.Redis
    raw: redis.Redis
    tokens: dict[str, str]
    after_log: Callable[[], str]

    def memory(self) -> dict[str, list[str]]:
        """Every window of konstruct, whoever it belongs to."""
        return {key: self.raw.lrange(key, 0, -1) for key in sorted(self.raw.scan_iter("*:memory:short:*"))}


@dataclass(frozen=True, slots=True)
class Attack:
    """One way to reach another tenant's data."""

    title: str
    before: Callable[[Targets], str]
    after: Callable[[Targets], str]


@contextmanager
def _nothing_written(targets: Targets) -> Iterator[None]:
    earlier = targets.memory()
    yield
    assert targets.memory() == earlier, "a window has changed"


def _refusal(error: type[TenancyError], deed: Callable[[], object]) -> str:
    try:
        deed()
    except error as refused:
        return f"{type(refused).__name__}: {refused}"
    raise AssertionError(f"not refused, although {error.__name__} was due")


def _message(text: str, **fields: str) -> dict[str, str]:
    whole = {"message_id": "m-1", "thread_id": "t-1", "agent_id": AGENT, "user_id": USER, "text": text}
    return {**whole, **fields}


def _incoming(text: str) -> orchestrator.Incoming:
    return orchestrator.Incoming(**_message(text))  # type: ignore[typeddict-item]


def _post(url: str, text: str, **options: Any) -> Answer:
    return call(f"{url}/channels/slack/messages", _message(text), **options)


def _before_task(answer: Answer) -> Any:
    return before.service.worker.AsyncResult(answer.body["task_id"]).get(timeout=60)


def _become_globex(targets: Targets) -> None:
    """Let the worker's last task be one of globex, as it is half of the time."""
    assert _before_task(_post(targets.before_url, "Good morning.", tenant="globex")) == "globex"


# 1 ----------------------------------------------------------------------------------------------


def no_tenant_before(targets: Targets) -> str:
    """Two tenants whose clients forget the header; there is no more reason for globex's window."""
    _become_globex(targets)
    found = _before_task(_post(targets.before_url, "(acme) our alarm code is 4711"))
    assert any("4711" in line for line in targets.raw_before.lrange(WINDOW, 0, -1))
    return f"202 Accepted; acme's alarm code is now in the window of {found!r}"


def no_tenant_after(targets: Targets) -> str:
    """The middleware refuses before the router runs."""
    with _nothing_written(targets):
        answer = _post(targets.after_url, "our alarm code is 4711", token=targets.tokens["acme"])
    assert (answer.status, answer.content_type) == (400, "application/problem+json"), answer
    return f"{answer.status} {answer.body['title']}, from the middleware; the router never saw it"


# 2 ----------------------------------------------------------------------------------------------


def stolen_name_before(targets: Targets) -> str:
    """The header is believed."""
    answer = _post(targets.before_url, "forget the NDA", tenant="globex", token=targets.tokens["acme"])
    assert _before_task(answer) == "globex"
    return "202 Accepted; acme's token has written into globex's window"


def stolen_name_after(targets: Targets) -> str:
    """``verify=`` says no, in the words used for a tenant that does not exist."""
    with _nothing_written(targets):
        answer = _post(targets.after_url, "forget the NDA", tenant="globex", token=targets.tokens["acme"])
        unknown = _post(targets.after_url, "hello?", tenant="nobody", token=targets.tokens["acme"])
    assert answer.status == 404, answer
    assert unknown == answer, "an outsider can tell which tenants exist"
    return f"{answer.status} {answer.body['title']}, word for word as for a tenant that does not exist"


# 3 ----------------------------------------------------------------------------------------------


def publish_before(targets: Targets) -> str:
    """A cron script publishes; the worker still has the tenant of the task before."""
    _become_globex(targets)
    found = before.service.respond.delay(AGENT, USER, "nightly summary of acme").get(timeout=60)
    assert found == "globex", found
    return "ran as 'globex', because the task before it did"


def publish_after(targets: Targets) -> str:
    """The publisher is told, and nothing reaches the queue."""
    with _nothing_written(targets):
        refusal = _refusal(NoTenantError, lambda: orchestrator.respond.delay(_incoming("summary")))
        assert targets.raw.llen("konstruct") == 0, "something is in the queue"
    return f"{refusal}  [queue empty]"


# 4 ----------------------------------------------------------------------------------------------


def plain_client_before(targets: Targets) -> str:
    """Somebody else's Celery knows the name of the task."""
    _become_globex(targets)
    client = Celery(broker=before.service.URL, backend=before.service.URL)
    arguments = (AGENT, USER, "from a script without any header")
    found = client.send_task("before.respond", args=arguments, queue="before").get(timeout=60)
    assert found == "globex", found
    return "whoever sent it: it ran as 'globex', because the task before it did"


def plain_client_after(targets: Targets) -> str:
    """The body never runs; the next message in the same child runs under its own tenant."""
    client = Celery(broker=settings.broker_url, backend=settings.redis_url)
    with _nothing_written(targets):
        result = client.send_task("konstruct.respond", args=(AGENT, USER, "plain"), queue="konstruct")
        error = result.get(timeout=60, propagate=False)
    assert result.state == "FAILURE", result.state
    assert type(error).__name__ == "MissingTenantHeaderError", error
    assert result.id in targets.after_log(), "no warning in the worker's log"
    with tenant_scope("acme"):
        length = len(memory_short.get_recent_messages(AGENT, USER))
        orchestrator.respond.delay(_incoming("Still there?")).get(timeout=60)
        assert len(memory_short.get_recent_messages(AGENT, USER)) == length + 2
    return f"FAILURE, {type(error).__name__}: {error}  [acme's next message ran]"


# 5 ----------------------------------------------------------------------------------------------


def foreign_key_before(targets: Targets) -> str:
    """A key by hand, in code that runs for acme."""
    before.service.current.set("acme")
    stolen = before.service.client.lrange(WINDOW, 0, 0)
    assert stolen
    return f"acme reads globex's memory: {json.loads(stolen[0])[1]!r}"


def foreign_key_after(targets: Targets) -> str:
    """The guard reads the key before the server does."""
    with tenant_scope("acme"), _nothing_written(targets):
        read = _refusal(CrossTenantError, lambda: storage.client.lrange(WINDOW, 0, 0))
        _refusal(CrossTenantError, lambda: storage.client.delete(keys.session("t-1"), WINDOW))
        _refusal(CrossTenantError, lambda: storage.client.eval("return 1", 1, WINDOW))
    return f"{read}  [so were DEL and EVAL]"


# 6 ----------------------------------------------------------------------------------------------


def thread_before(targets: Targets) -> str:
    """A new thread inherits no context, and None turns into text."""
    before.service.current.set("acme")
    key = _in_thread(lambda: before.keys.session(before.service.current.get(), "t-1"))
    targets.raw_before.set(key, "acme's session")
    return f"acme's session is stored under {key!r}, and so is everybody else's"


def thread_after(targets: Targets) -> str:
    """The key function raises, and says how to carry the tenant along."""
    with tenant_scope("acme"):
        refusal = _refusal(NoTenantError, lambda: _in_thread(lambda: keys.session("t-1")))
        carried = _in_thread(carry_tenant(lambda: keys.session("t-1")))
    assert carried == "acme:session:t-1", carried
    return f"{refusal}  [carried: {carried}]"


def _in_thread(target: Callable[[], str]) -> str:
    outcome: list[str | BaseException] = []

    def run() -> None:
        try:
            outcome.append(target())
        except BaseException as error:  # it is raised again where the thread is joined
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


# 7 ----------------------------------------------------------------------------------------------


def separator_before(targets: Targets) -> str:
    """A customer signs up as ``globex:memory`` and asks for an export of "its" keys."""
    assert _before_task(_post(targets.before_url, "hi", tenant="globex:memory")) == "globex:memory"
    exported = [key for key in targets.raw_before.scan_iter("globex:memory:*") if key == WINDOW]
    assert exported
    return f"the export of tenant 'globex:memory' holds {exported[0]}"


def separator_after(targets: Targets) -> str:
    """Such an id enters nowhere."""
    with _nothing_written(targets):
        answer = _post(targets.after_url, "hi", tenant="globex:memory", token=targets.tokens["acme"])
        refusal = _refusal(InvalidTenantIdError, lambda: tenant_scope("globex:memory").__enter__())
    assert answer.status == 400, answer
    return f"{answer.status} over HTTP; {refusal}"


# 8 ----------------------------------------------------------------------------------------------


def collision_before(targets: Targets) -> str:
    """Parts joined without escaping: two users share a window."""
    one = before.keys.memory_short("acme", "concierge", "night:U1")
    two = before.keys.memory_short("acme", "concierge:night", "U1")
    targets.raw_before.rpush(one, json.dumps(["user", "for the day shift only"]))
    assert targets.raw_before.lrange(two, 0, -1)
    return f"agent 'concierge:night' reads what user 'night:U1' told 'concierge' ({two})"


def collision_after(targets: Targets) -> str:
    """Separators inside a part are encoded; ordinary ids look as they always did."""
    with tenant_scope("acme"):
        memory_short.append_message("concierge", "night:U1", "user", "for the day shift only")
        assert memory_short.get_recent_messages("concierge:night", "U1") == []
        key = keys.memory_short("concierge", "night:U1")
        storage.client.delete(key)
    return f"two windows; this one is {key}"


# 9 ----------------------------------------------------------------------------------------------


def pooled_connection_before(targets: Targets) -> str:
    """The tenant is set for the session, and the session goes back to the pool."""
    before.database.remember("globex", "the merger with Initech closes on Friday")
    stolen = before.database.everything_of_nobody()
    assert stolen
    return f"a query that sets no tenant reads globex's row: {stolen[0]!r}"


def pooled_connection_after(targets: Targets) -> str:
    """The setting ends with the transaction, and no transaction begins without one."""
    with tenant_scope("globex"):
        assert memory_long.retrieve_relevant(AGENT, USER, "merger"), "globex has no memories"
    refusal = _refusal(NoTenantError, lambda: memory_long.retrieve_relevant(AGENT, USER, "merger"))
    with database.engine.connect() as connection:
        rows = connection.connection.cursor().execute(f"SELECT * FROM {TABLE}").fetchall()
    assert rows == [], "row-level security shows rows to nobody"
    return f"{refusal}  [past SQLAlchemy, on the same pooled connection: 0 rows]"


# 10 ---------------------------------------------------------------------------------------------


def forgotten_where_before(targets: Targets) -> str:
    """One query without its WHERE."""
    before.database.remember("globex", "the merger with Initech closes on Friday")
    found = before.database.search("closes on")
    assert any("Initech" in content for content in found)
    return f"acme's search, whose WHERE somebody forgot, finds {found[0]!r}"


def forgotten_where_after(targets: Targets) -> str:
    """No query of konstruct has a WHERE for the tenant, so none can forget it."""
    whole, planted = text(f"SELECT content FROM {TABLE}"), text(PLANT)
    with tenant_scope("acme"), database.engine.connect() as connection:
        found = connection.execute(whole).scalars().all()
        assert found, "acme has no memories"
        assert not any("Initech" in content for content in found), found
        try:
            connection.execute(planted)
        except DBAPIError as error:
            refusal = str(error.orig).splitlines()[0]
        else:
            raise AssertionError("a row of globex was written by acme")
    return f"{len(found)} rows, all of acme; writing one of globex: {refusal}"


# 11 ---------------------------------------------------------------------------------------------


def switched_before(targets: Targets) -> str:
    """The tenant changes while a transaction is open, and the transaction does not."""
    found = before.database.read_while_switching("globex", "acme")
    assert found
    return f"code that runs for acme reads {found[0]!r} in globex's open transaction"


def switched_after(targets: Targets) -> str:
    """Every statement is compared with its transaction."""
    with tenant_scope("globex"), database.engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        with tenant_scope("acme", switch=True):
            statement = text(f"SELECT content FROM {TABLE}")
            return _refusal(TenantConflictError, lambda: connection.execute(statement))


ATTACKS = (
    Attack("a request without a tenant", no_tenant_before, no_tenant_after),
    Attack("a request that names another tenant", stolen_name_before, stolen_name_after),
    Attack("a task published without a tenant", publish_before, publish_after),
    Attack("a message from a plain Celery client", plain_client_before, plain_client_after),
    Attack("a foreign key written by hand", foreign_key_before, foreign_key_after),
    Attack("a key function in a bare thread", thread_before, thread_after),
    Attack("a tenant id that carries a separator", separator_before, separator_after),
    Attack("a part that carries a separator", collision_before, collision_after),
    Attack("a pooled database connection", pooled_connection_before, pooled_connection_after),
    Attack("a query without its WHERE", forgotten_where_before, forgotten_where_after),
    Attack("a tenant that changes in a transaction", switched_before, switched_after),
)
