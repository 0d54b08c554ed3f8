"""The service, on a real web server, worker, Valkey and PostgreSQL with pgvector."""

from __future__ import annotations

import subprocess
import sys
import uuid
from datetime import UTC, datetime

import psycopg
import pytest
from sqlalchemy import make_url

from tests import services
from tests.examples.konstruct.fleet import TOKENS, Fleet, migrate, process_environment

TABLE = "conversation_embeddings"


def unique() -> dict[str, str]:
    """A user and a one-to-one thread that no other test has, in both tenants alike."""
    name = f"U{uuid.uuid4().hex[:8]}"
    return {"user_id": name, "thread_id": name}


def rows(stage: Fleet, statement: str, tenant: str = "") -> list[tuple]:
    """Ask the database as the application's role, without tenantry."""
    url = make_url(stage.environment["DATABASE_URL"]).set(drivername="postgresql")
    with psycopg.connect(url.render_as_string(hide_password=False)) as connection:
        connection.execute("SELECT set_config('app.tenant_id', %s, true)", [tenant])
        return connection.execute(statement).fetchall()


def test_conversations_of_two_tenants_with_equal_ids_stay_apart(stage: Fleet):
    """Windows, answers and long-term memories, through HTTP, the queue and both memories."""
    ids = unique()
    stage.told("the office moves to Rotterdam", tenant="acme", **ids)
    stage.told("the merger closes on Friday", tenant="globex", **ids)
    assert "the office moves" in stage.told("order sixty boxes", tenant="acme", **ids)
    assert "the merger closes" in stage.told("book the board room", tenant="globex", **ids)
    for tenant, mine, other in (("acme", "office", "merger"), ("globex", "merger", "office")):
        window = str(stage.window(tenant, ids["user_id"]))
        path = f"/agents/concierge/users/{ids['user_id']}/memories?q={other}"
        memories = str(stage.call(path, tenant=tenant).body["memories"])
        assert (mine in window, mine in memories) == (True, True)
        assert (other in window, other in memories) == (False, False)


def test_question_is_answered_from_long_term_memory(stage: Fleet):
    """Found by nearness; the window of another agent does not have it."""
    ids = unique()
    stage.told("our alarm code changes on Monday", **ids)
    answer = stage.told("when does our alarm code change on Monday?", **ids)
    assert answer == "You once told me: “our alarm code changes on Monday”"


def test_redelivered_message_is_answered_once(stage: Fleet):
    """The second delivery gets the task of the first."""
    ids = unique()
    stage.told("hello", message_id=ids["user_id"], **ids)
    again = stage.say("hello", message_id=ids["user_id"], **ids)
    assert (again.status, again.body["status"]) == (200, "duplicate")
    stage.told("goodbye", **ids)
    assert [m["text"] for m in stage.window("acme", ids["user_id"])].count("hello") == 1


@pytest.mark.parametrize("word", ["yes", "no"])
def test_destructive_tool_asks_first(stage: Fleet, word: str):
    """Yes clears, no does not; anything else is asked again; the other tenant keeps its own."""
    ids = unique()
    for tenant in TOKENS:
        stage.told("remember this", tenant=tenant, **ids)
    assert "yes / no" in stage.told("please clear my history", **ids)
    assert stage.call(f"/threads/{ids['thread_id']}").body["pending_tool"] == "clear_history"
    answer = stage.told(word, **ids)
    texts = [m["text"] for m in stage.window("acme", ids["user_id"])]
    assert ("remember this" in texts) == (word == "no")
    assert ("nothing was changed" in answer) == (word == "no")
    assert "remember this" in str(stage.window("globex", ids["user_id"]))
    assert stage.call(f"/threads/{ids['thread_id']}").body["pending_tool"] is None


def test_destructive_tool_is_asked_for_again_where_the_word_is_neither(stage: Fleet):
    """And does nothing."""
    ids = unique()
    stage.told("please clear my history", **ids)
    assert "say yes or no" in stage.told("maybe", **ids)
    assert len(stage.window("acme", ids["user_id"])) == 4


def test_confirmation_expires(stage: Fleet):
    """A yes that comes too late is a message like any other."""
    ids = unique()
    stage.told("please clear my history", **ids)
    path = f"/threads/{ids['thread_id']}"
    services.wait_until(lambda: stage.call(path).body["pending_tool"] is None, "the end of it")
    assert "Before that you told me" in stage.told("yes", **ids)
    assert len(stage.window("acme", ids["user_id"])) == 4


def test_escalated_thread_is_left_to_a_person(stage: Fleet):
    """The agent remembers and is silent until the thread is handed back; globex's is not touched."""
    ids = unique()
    assert "asked a person" in stage.told("I want to talk to a person", **ids)
    assert stage.say("are you there?", **ids).status == 202
    user, path = ids["user_id"], f"/threads/{ids['thread_id']}"
    services.wait_until(lambda: len(stage.window("acme", user)) == 3, "the message", seconds=20)
    assert stage.window("acme", user)[-1]["role"] == "user"
    assert stage.call(path).body["escalation"] == "I want to talk to a person"
    assert stage.call(path, tenant="globex").body["escalation"] is None
    stage.told("hello", tenant="globex", **ids)
    assert stage.call(f"{path}/escalation", tenant="globex", method="DELETE").status == 404
    assert stage.call(f"{path}/escalation", method="DELETE").status == 204
    assert "Before that" in stage.told("and now?", **ids)


def test_nightly_job_summarises_each_tenants_day(stage: Fleet):
    """Published with no tenant; each summary is written by its tenant; a second run does no harm."""
    ids = unique()
    stage.told("the last word of acme", tenant="acme", **ids)
    stage.told("the last word of globex", tenant="globex", **ids)
    day = datetime.now(UTC).date().isoformat()
    publish_nightly(stage, day, times=2)
    for tenant in TOKENS:

        def written(tenant: str = tenant) -> bool:
            answer = stage.call(f"/summaries/{day}", tenant=tenant)
            return answer.status == 200 and f"word of {tenant}" in answer.body["summary"]

        services.wait_until(written, f"{tenant}'s summary", seconds=20)
    assert stage.call("/summaries/2020-01-01").status == 404


def publish_nightly(stage: Fleet, day: str, times: int) -> None:
    """Publish from a process of the platform."""
    script = "from konstruct.orchestrator import nightly\n" + f"nightly.delay({day!r})\n" * times
    environment = process_environment(stage.environment)
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)


def test_application_may_select_and_insert_and_nothing_else(stage: Fleet):
    """Grants, and the policy under them."""
    stage.told("a row", **unique())
    assert rows(stage, f"SELECT 1 FROM {TABLE}") == []
    assert rows(stage, f"SELECT 1 FROM {TABLE}", "acme") != []
    for statement in (f"DELETE FROM {TABLE}", f"UPDATE {TABLE} SET content = ''", f"TRUNCATE {TABLE}"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            rows(stage, statement, "acme")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
        rows(
            stage,
            f"INSERT INTO {TABLE} (tenant_id, message_id, agent_id, user_id, content, embedding) "
            "VALUES ('globex', 'x', 'a', 'u', 'c', array_fill(0.1, ARRAY[384])::vector) RETURNING 1",
            "acme",
        )


def test_small_tenant_among_many_rows_gets_what_it_has(stage: Fleet):
    """The index finds two thousand nearer rows of another tenant first, and the policy takes them away."""
    ids = unique()
    for text in ("the office moves on Monday", "sixty boxes are ordered"):
        stage.told(text, **ids)
    stage.told("when does the office move?", tenant="globex", **ids)
    services.wait_until(
        lambda: rows(stage, f"SELECT 1 FROM {TABLE} WHERE user_id = '{ids['user_id']}'", "globex") != [],
        "row",
    )
    rows(
        stage,
        f"INSERT INTO {TABLE} (message_id, agent_id, user_id, content, embedding) "
        f"SELECT '{ids['user_id']}' || n, agent_id, user_id, content, embedding "
        f"FROM {TABLE}, generate_series(1, 2000) AS n WHERE user_id = '{ids['user_id']}' RETURNING 1",
        "globex",
    )
    path = f"/agents/concierge/users/{ids['user_id']}/memories?q=when%20does%20the%20office%20move"
    found = [memory["content"] for memory in stage.call(path).body["memories"]]
    assert sorted(found) == ["sixty boxes are ordered", "the office moves on Monday"]


def test_memories_are_found_through_the_index(stage: Fleet):
    """HNSW, by cosine distance."""
    found = rows(stage, "SELECT indexdef FROM pg_indexes WHERE tablename = 'conversation_embeddings'")
    assert any("hnsw" in d and "vector_cosine_ops" in d for (d,) in found), found


def test_migrations_can_be_run_again(stage: Fleet):
    """A second start of the service migrate changes nothing."""
    assert "may SELECT and INSERT" in migrate(stage.environment)


@pytest.mark.parametrize("command", ["web", "worker"])
def test_services_do_not_start_on_a_superusers_connection(stage: Fleet, command: str):
    """Row-level security would not bind it."""
    commands = {
        "web": ["uvicorn", "konstruct.app:app", "--port", str(services.free_port())],
        "worker": ["celery", "-A", "konstruct.orchestrator", "worker", "-P", "solo", "-Q", "none"],
    }
    owner = stage.environment["MIGRATION_DATABASE_URL"]
    done = subprocess.run(
        [sys.executable, "-m", *commands[command]],
        env=process_environment(stage.environment, {"DATABASE_URL": owner}),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0
    assert "row-level security would not hold" in done.stderr + done.stdout
