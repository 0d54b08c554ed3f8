"""The orchestrator: tasks that run in the worker, under the tenant that published them."""

from __future__ import annotations

import datetime as dt
from typing import Any, TypedDict

import redis
from celery import Celery, signals
from celery.schedules import crontab
from sqlalchemy.exc import OperationalError

from konstruct import database, memory_long, memory_short, summaries, threads, tools
from konstruct.replies import LocalReplies, ReplyGenerator
from konstruct.settings import settings
from tenantry import TenancyError
from tenantry.integrations.celery import fan_out, install

NIGHTLY = settings.nightly_seconds or crontab(hour="2", minute="30")
WANTS_A_PERSON = ("a person", "a human", "real people")

app = Celery("konstruct", broker=settings.broker_url, backend=settings.result_url)
app.conf.update(
    task_default_queue="konstruct",
    result_expires=300,
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
    # A message is acknowledged after its work: a worker that dies gives it back, and whatever it had
    # done already is not done again (memory_short and memory_long write a message once).
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    beat_schedule={"nightly": {"task": "konstruct.nightly", "schedule": NIGHTLY}},
)
if settings.broker_url.startswith("redis"):
    app.conf.broker_transport_options = {"visibility_timeout": settings.visibility_timeout}
install(app, secret_keys=settings.secret_keys or None)

replies: ReplyGenerator = LocalReplies()
retried: dict[str, Any] = {
    "autoretry_for": (redis.ConnectionError, redis.TimeoutError, OperationalError),
    "retry_backoff": True,
    "max_retries": 10,
}


class Incoming(TypedDict):
    """A message as the router accepted it."""

    message_id: str
    thread_id: str
    agent_id: str
    user_id: str
    text: str


@app.task(name="konstruct.respond", **retried)
def respond(message: Incoming) -> str | None:
    """Remember what the user wrote, answer it, remember the answer; ``None`` if a person will answer."""
    agent, user, once = message["agent_id"], message["user_id"], message["message_id"]
    memory_short.append_message(agent, user, "user", message["text"], message_id=once)
    answer = _answer(message)
    if answer is not None:
        memory_short.append_message(agent, user, "assistant", answer, message_id=once)
    memory_long.store_embedding(agent, user, once, message["text"])
    threads.remember(message["thread_id"], agent=agent, user=user, last_message=once)
    return answer


def _answer(message: Incoming) -> str | None:
    thread, user, text = message["thread_id"], message["user_id"], message["text"]
    if threads.escalation(thread) is not None:
        return None
    if any(phrase in text.lower() for phrase in WANTS_A_PERSON):
        threads.escalate(thread, reason=text)
        return "I have asked a person to take over."
    tool = tools.pending(thread, user)
    if tool is not None:
        return _settle(message, tool)
    tool = tools.wanted(text)
    if tool is not None:
        return tools.ask(thread, user, tool)
    return _reply(message)


def _settle(message: Incoming, tool: str) -> str:
    verdict = tools.verdict(message["text"])
    if verdict is None:
        return f"{tools.TOOLS[tool].warning} Please say yes or no first."
    if verdict:
        tools.TOOLS[tool].run(message["agent_id"], message["user_id"])
    # Settled last: if we die before, the word counts again when the message is redelivered.
    tools.settle(message["thread_id"])
    return tools.TOOLS[tool].done if verdict else "All right, nothing was changed."


def _reply(message: Incoming) -> str:
    agent, user, text = message["agent_id"], message["user_id"], message["text"]
    memories = memory_long.retrieve_relevant(agent, user, text)
    return replies.reply(memory_short.get_recent_messages(agent, user), memories)


@app.task(name="konstruct.summarise_day", **retried)
def summarise_day(day: str) -> str:
    """One tenant's summary of one day."""
    return summaries.write(dt.date.fromisoformat(day))


@app.task(name="konstruct.nightly", tenancy="none")
def nightly(day: str | None = None) -> int:
    """Publish one summary per tenant; run again after a crash, it does no harm."""
    day = day or dt.datetime.now(dt.UTC).date().isoformat()
    results = fan_out(summarise_day, settings.tokens, args=(day,), run_id=day)
    return sum(not isinstance(result, Exception) for _, result in results)


@signals.worker_init.connect
def refuse_to_start(**_: Any) -> None:
    """End a worker whose database role is not bound by the policies."""
    try:
        database.ready()
    except TenancyError as error:
        # Celery logs what a receiver raises and goes on; SystemExit is not an Exception.
        raise SystemExit(f"konstruct does not start: {error}") from error


@signals.worker_process_init.connect
def forget_connections(**_: Any) -> None:
    """A forked child makes connections of its own."""
    database.engine.dispose(close=False)
