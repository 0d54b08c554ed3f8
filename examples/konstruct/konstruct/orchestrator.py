"""The orchestrator: tasks that run in the worker, under the tenant that published them."""

from __future__ import annotations

import datetime as dt
import logging
from typing import Any, TypedDict

import redis
from celery import Celery, signals
from celery.schedules import crontab
from sqlalchemy.exc import OperationalError

from konstruct import database, deliveries, memory_long, memory_short, summaries, threads, tools
from konstruct.replies import LocalReplies, ReplyGenerator
from konstruct.settings import settings
from tenantry import TenancyError
from tenantry.integrations.celery import fan_out, install

NIGHTLY = settings.nightly_seconds or crontab(hour="2", minute="30")
log = logging.getLogger(__name__)
WANTS_A_PERSON = ("a person", "a human", "real people")

app = Celery("konstruct", broker=settings.broker_url, backend=settings.result_url)
app.conf.update(
    task_default_queue="konstruct",
    result_expires=300,
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
    # A message is acknowledged after its work: a worker that dies gives it back, and whatever it had
    # done already is not done again: a message is written once, and answered as it was at first.
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    beat_schedule={"nightly": {"task": "konstruct.nightly", "schedule": NIGHTLY}},
)
if settings.broker_url.startswith("redis"):
    app.conf.broker_transport_options = {"visibility_timeout": settings.visibility_timeout}
else:  # the router answers 202 when RabbitMQ has the message, not when it was written to a socket
    app.conf.broker_transport_options = {"confirm_publish": True}
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
    answer = deliveries.answered(once)
    if answer is None:
        answer = deliveries.decide(once, _answer(message) or "")
    tools.settle(message["thread_id"], message_id=once)
    if answer:
        memory_short.append_message(agent, user, "assistant", answer, message_id=once)
    memory_long.store_embedding(agent, user, once, message["text"])
    threads.remember(message["thread_id"], agent=agent, user=user, last_message=once)
    return answer or None


def _answer(message: Incoming) -> str | None:
    thread, user, text = message["thread_id"], message["user_id"], message["text"]
    once = message["message_id"]
    if threads.escalation(thread, but_by=once) is not None:
        return None
    if any(phrase in text.lower() for phrase in WANTS_A_PERSON):
        threads.escalate(thread, reason=text, message_id=once)
        return "I have asked a person to take over."
    tool = tools.pending(thread, user, message_id=once)
    if tool is not None:
        return _settle(message, tool)
    tool = tools.wanted(text)
    if tool is not None:
        return tools.ask(thread, user, tool, message_id=once)
    return _reply(message)


def _settle(message: Incoming, tool: str) -> str:
    verdict = tools.verdict(message["text"])
    if verdict is None:
        return f"{tools.TOOLS[tool].warning} Please say yes or no first."
    thread, user, once = message["thread_id"], message["user_id"], message["message_id"]
    # Not the tool that was read: another word may have come first, or another question.
    claimed = tools.claim(thread, user, message_id=once)
    if claimed is None:
        return _reply(message)
    if not verdict:
        return "All right, nothing was changed."
    tools.TOOLS[claimed].run(message["agent_id"], user)
    return tools.TOOLS[claimed].done


def _reply(message: Incoming) -> str:
    agent, user, text = message["agent_id"], message["user_id"], message["text"]
    memories = memory_long.retrieve_relevant(agent, user, text)
    return replies.reply(memory_short.get_recent_messages(agent, user), memories)


@app.task(name="konstruct.summarise_day", **retried)
def summarise_day(day: str) -> str:
    """One tenant's summary of one day."""
    return summaries.write(dt.date.fromisoformat(day))


@app.task(name="konstruct.nightly", tenancy="none", bind=True)
def nightly(task: Any, day: str | None = None) -> int:
    """Publish one summary per tenant; run again after a crash, it does no harm."""
    day = day or _day_that_ended()
    results = fan_out(summarise_day, settings.tokens, args=(day,), run_id=day)
    failed = {tenant: result for tenant, result in results if isinstance(result, Exception)}
    if failed:
        log.error("No summary of %s was published for: %s", day, failed)
        raise task.retry(args=(day,), countdown=60)
    return len(settings.tokens)


def _day_that_ended() -> str:
    """Yesterday, since it is night; a demonstration that has a night every few seconds gets today."""
    ago = dt.timedelta(days=0 if settings.nightly_seconds else 1)
    return (dt.datetime.now(dt.UTC) - ago).date().isoformat()


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
