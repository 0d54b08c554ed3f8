"""The tasks' decisions, run again and at once: every message is answered once, every word counts once."""

from __future__ import annotations

import datetime as dt
import logging
import threading
from typing import Any

import pytest

pytest.importorskip("fakeredis")

from konstruct import memory_long, memory_short, orchestrator, replies, threads, tools
from konstruct.orchestrator import Incoming
from tenantry import carry_tenant, tenant_scope

TENANTS = [f"tenant{number:02}" for number in range(20)]


class Died(Exception):
    """The worker was killed there."""


@pytest.fixture(autouse=True)
def memory(fake, monkeypatch: pytest.MonkeyPatch) -> None:
    """No database: long-term memory has nothing to do with what is decided here."""
    monkeypatch.setattr(memory_long, "retrieve_relevant", lambda *_: [])
    monkeypatch.setattr(memory_long, "store_embedding", lambda *_: True)


def run(text: str, message_id: str, *, user: str = "U1", thread: str = "T1") -> str | None:
    """The body of the task, as the worker runs it."""
    message = Incoming(message_id=message_id, thread_id=thread, agent_id="concierge", user_id=user, text=text)
    return orchestrator.respond.run(message)


def killed(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, text: str, message_id: str) -> None:
    """Run a message whose worker dies where it would have called ``owner.name``."""
    with monkeypatch.context() as patch:

        def dies(*_: object, **__: object) -> None:
            raise Died("there")

        patch.setattr(owner, name, dies)
        with pytest.raises(Died, match="there"):
            run(text, message_id)


def window() -> list[tuple[str, str]]:
    return [(m["role"], m["text"]) for m in memory_short.get_recent_messages("concierge", "U1")]


def test_question_that_is_delivered_again_after_its_answer_is_not_asked_again():
    """Else an unrelated yes within five minutes would destroy something."""
    with tenant_scope("acme"):
        asked = run("clear my history", "m1")
        run("no", "m2")
        assert run("clear my history", "m1") == asked
        assert tools.pending("T1", "U1") is None


def test_word_that_is_delivered_again_runs_nothing_again():
    """It had its effect; what was said since stays."""
    with tenant_scope("acme"):
        run("clear my history", "m1")
        assert run("yes", "m2").startswith("Done")
        run("remember this", "m3")
        run("clear my history", "m4")
        assert run("yes", "m2").startswith("Done")
        assert ("user", "remember this") in window()
        assert tools.pending("T1", "U1") == "clear_history"


@pytest.mark.parametrize(
    ("text", "message_id", "owner", "name", "answer"),
    [
        ("a person, please", "m1", "deliveries", "decide", "I have asked a person to take over."),
        ("clear my history", "m1", "deliveries", "decide", "Shall I?"),
        ("yes", "m2", "deliveries", "decide", "Done"),
        ("yes", "m2", "tools", "settle", "Done"),
        ("no", "m2", "deliveries", "decide", "nothing was changed"),
        ("hello", "m1", "tools", "settle", "Hello"),
        ("hello", "m1", "threads", "remember", "Hello"),
    ],
)
def test_worker_that_dies_half_way_is_as_if_it_had_not(
    monkeypatch: pytest.MonkeyPatch, text: str, message_id: str, owner: str, name: str, answer: str
):
    """The second run answers what the first would have, once, and leaves the same state."""
    with tenant_scope("acme"):
        if message_id == "m2":
            run("clear my history", "m1")
        killed(monkeypatch, getattr(orchestrator, owner), name, text, message_id)
        assert answer in str(run(text, message_id))
        assert sum(role == "assistant" and answer in said for role, said in window()) == 1
        assert (tools.pending("T1", "U1") is not None) == (text == "clear my history")
        assert (threads.escalation("T1") is not None) == ("person" in text)


def test_escalated_thread_stays_silent_when_a_message_is_delivered_again():
    """And one that was answered before the escalation keeps its answer."""
    with tenant_scope("acme"):
        first = run("hello", "m1")
        run("a person, please", "m2")
        assert run("still there?", "m3") is None
        threads.hand_back("T1")
        assert run("still there?", "m3") is None
        assert run("hello", "m1") == first
        assert run("a person, please", "m2") == "I have asked a person to take over."
        assert threads.escalation("T1") is None


def test_words_of_another_message_or_user_or_after_the_end_do_not_count(fake):
    """The first word has it; a new question that was asked meanwhile is not settled by the old word."""
    with tenant_scope("acme"):
        assert tools.claim("T1", "U1", message_id="m0") is None
        tools.ask("T1", "U1", "clear_history", message_id="m1")
        assert tools.claim("T1", "U2", message_id="m2") is None
        assert tools.claim("T1", "U1", message_id="m3") == "clear_history"
        assert tools.claim("T1", "U1", message_id="m4") is None
        assert tools.claim("T1", "U1", message_id="m3") == "clear_history"
        tools.settle("T1", message_id="m4")
        assert tools.pending("T1", "U1", message_id="m3") == "clear_history"
        tools.ask("T1", "U1", "clear_history", message_id="m5")
        tools.settle("T1", message_id="m3")
        assert tools.pending("T1", "U1") == "clear_history"
        fake.delete("acme:tool_confirm:T1")
        assert tools.claim("T1", "U1", message_id="m6") is None
    assert fake.keys() == []


def test_twenty_tenants_with_equal_ids_say_two_words_at_once(monkeypatch: pytest.MonkeyPatch):
    """In each exactly one word counts; the tool runs once at the most, and for its own tenant."""
    ran: list[str] = []
    clear = tools.TOOLS["clear_history"]
    counting = {
        "clear_history": tools.Tool(clear.phrases, lambda *_: ran.append("x"), clear.warning, clear.done)
    }
    monkeypatch.setattr(tools, "TOOLS", counting)
    threaded: list[threading.Thread] = []
    answers: dict[str, list[str]] = {tenant: [] for tenant in TENANTS}
    barrier = threading.Barrier(2 * len(TENANTS))
    for tenant in TENANTS:
        with tenant_scope(tenant):
            run("clear my history", "m1")
            for number in (2, 3):

                def speak(tenant: str = tenant, number: int = number) -> None:
                    barrier.wait(30)
                    answers[tenant].append(str(run("yes", f"m{number}")))

                threaded.append(threading.Thread(target=carry_tenant(speak)))
    for thread in threaded:
        thread.start()
    for thread in threaded:
        thread.join()
    assert len(ran) == len(TENANTS)
    for tenant in TENANTS:
        assert sum(answer == clear.done for answer in answers[tenant]) == 1, answers[tenant]
        with tenant_scope(tenant):
            assert tools.pending("T1", "U1") is None


def test_two_runs_of_one_message_at_once_give_one_answer(monkeypatch: pytest.MonkeyPatch):
    """The visibility timeout may hand a message to a second worker while the first still has it."""
    barrier = threading.Barrier(2)
    written = iter(("one", "two"))

    class Slow(replies.LocalReplies):
        def reply(self, window: Any, memories: Any) -> str:
            barrier.wait(30)
            return next(written)

    monkeypatch.setattr(orchestrator, "replies", Slow())
    answers: list[str | None] = []
    with tenant_scope("acme"):
        again = carry_tenant(lambda: answers.append(run("hello", "m1")))
        both = [threading.Thread(target=again) for _ in range(2)]
        for thread in both:
            thread.start()
        for thread in both:
            thread.join()
        assert answers[0] == answers[1]
        assert [role for role, _ in window()] == ["user", "assistant"]


@pytest.mark.parametrize(("seconds", "ago"), [(0.0, 1), (5.0, 0)])
def test_nightly_job_takes_the_day_that_ended(configured, monkeypatch, seconds: float, ago: int):
    """At half past two the new day has hardly begun."""
    days: list[str] = []

    def fan_out(task: Any, tenants: Any, *, args: tuple[str], run_id: str) -> list[Any]:
        days.extend((*args, run_id))
        return []

    monkeypatch.setattr(orchestrator, "fan_out", fan_out)
    configured(nightly_seconds=seconds)
    orchestrator.nightly.run()
    expected = (dt.datetime.now(dt.UTC) - dt.timedelta(days=ago)).date().isoformat()
    assert days == [expected, expected]


def test_nightly_job_says_whose_summary_failed_and_tries_again(configured, monkeypatch, caplog):
    """One that cannot be published is neither dropped in silence nor in the way of the others."""
    published: list[str] = []

    def send(*_: Any, **options: Any) -> None:
        published.append(options["task_id"])
        if len(published) == 1:
            raise OSError("unreachable")

    configured(tokens={"acme": "x", "globex": "y"})
    monkeypatch.setattr(orchestrator.summarise_day, "apply_async", send)
    monkeypatch.setattr(orchestrator.nightly, "retry", lambda **options: Died(options))
    with caplog.at_level(logging.ERROR), pytest.raises(Died, match="2024-05-01"):
        orchestrator.nightly.run("2024-05-01")
    assert len(published) == 2
    assert "acme" in caplog.text
    assert "globex" not in caplog.text
