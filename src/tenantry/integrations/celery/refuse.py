"""Refusing: a message that may not run is kept, its waiters are told, and then it is acknowledged.

Nothing here raises: an exception that leaves a strategy ends the worker. A message that cannot be kept stays
unacknowledged for at most a minute, then goes back to its queue, of which this worker stops taking more.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from celery.app.task import Context

from tenantry.context import unit_of_work
from tenantry.errors import PropagationError
from tenantry.integrations.celery import keep
from tenantry.integrations.celery.edge import Edge, RunningTask
from tenantry.integrations.celery.message import Parts, UndecodableError, claimed_tenant, payload_of, split

_log = logging.getLogger("tenantry.celery")

#: Seconds between attempts to keep a message, of which the last comes again, and until when one may begin. With
#: what an attempt takes this stays below a minute, since brokers end consumers that hold messages too long.
DELAYS: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 12.0)
HOLD_AT_MOST: Final = 45.0
PROBE_EVERY: Final = 5.0


@dataclass(slots=True)
class Refused:
    """One refused message on its way into the quarantine."""

    edge: Edge
    task: Any
    message: Any
    entry: keep.QuarantinedMessage
    error: BaseException
    ack: Callable[..., Any]
    reject: Callable[..., Any]
    connection: Any
    since: float = field(default_factory=time.monotonic)
    attempts: int = 0


def refuse(
    edge: Edge,
    app: Any,
    consumer: Any,
    task: Any,
    message: Any,
    parts: Parts,
    error: BaseException,
    ack: Any,
    reject: Any,
) -> None:
    """Keep a message that may not run, or see to it that it is kept later. Never raises."""
    try:
        reason = f"{type(error).__name__}: {error}"
        entry = keep.entry_of(
            message, parts.task_id, parts.name, claimed_tenant(parts.headers), reason, str(consumer.hostname)
        )
        refused = Refused(edge, task, message, entry, error, ack, reject, consumer.connection)
        keeper_of(app, consumer).take(refused)
    except Exception:  # noqa: BLE001 - an exception would end the worker
        _log.critical("a message that may not run could not be kept; it stays unacknowledged", exc_info=True)


def keeper_of(app: Any, consumer: Any) -> Keeper:
    """Return the keeper of a worker."""
    found = vars(consumer).get("_tenantry_keeper")
    if not isinstance(found, Keeper):
        found = Keeper(app, consumer)
        consumer._tenantry_keeper = found
    return found


class Keeper:
    """What one worker does with refused messages, and with their queues while the quarantine is out of reach."""

    def __init__(self, app: Any, consumer: Any) -> None:
        self._app = app
        self._consumer = consumer
        self._line = keep.Line(app)
        self._unreachable = False
        self._paused: set[str] = set()

    def take(self, refused: Refused) -> None:
        """Keep it now, unless the last attempt failed a moment ago and its retry is under way."""
        if self._unreachable or not self._keep(refused):
            self._later(refused)
        else:
            self._safely(lambda: self._settle(refused))

    def _keep(self, refused: Refused) -> bool:
        try:
            depth = self._line.put(refused.edge.quarantine, refused.entry)
        except Exception as problem:  # noqa: BLE001 - out of reach for whatever reason: the message is held
            self._unreachable = True
            _log.error(
                "the quarantine %r is out of reach: %r; holding message %s", refused.edge.quarantine, problem,
                refused.entry.id,
            )  # fmt: skip
            # Not by what `_unreachable` says by now: a timer of another thread may have kept another message.
            return False
        self._unreachable = False
        self._announce(refused, depth)
        return True

    def _announce(self, refused: Refused, depth: int | None) -> None:
        entry = refused.entry
        _log.warning("refused task %s[%s], kept as %s: %s", entry.task, entry.task_id, entry.id, entry.reason)
        if depth is not None and depth >= refused.edge.quarantine_alarm:
            _log.critical(
                "the quarantine %r holds %d messages: look at it with `tenantry quarantine list`",
                refused.edge.quarantine, depth,
            )  # fmt: skip

    def _settle(self, refused: Refused) -> None:
        tell_waiters(refused)
        self._answer(refused.ack)

    def _answer(self, answer: Callable[..., Any], *args: Any) -> None:
        try:
            answer(_log, self._consumer.connection_errors, *args)
        except Exception:  # noqa: BLE001 - the connection is gone, and the broker will deliver the message again
            _log.warning("could not answer the broker for a refused message", exc_info=True)

    # --- out of reach ---

    def _later(self, refused: Refused) -> None:
        delay = DELAYS[min(refused.attempts, len(DELAYS) - 1)]
        if time.monotonic() - refused.since + delay > HOLD_AT_MOST:
            self._in_consumer(lambda: self._give_back(refused))
            return
        refused.attempts += 1
        self._consumer.timer.call_after(delay, self._again, (refused,))

    def _again(self, refused: Refused) -> None:
        if self._consumer.connection is not refused.connection:
            # The broker delivers it again on the new connection; this copy can no longer be acknowledged.
            return
        if self._keep(refused):
            self._in_consumer(lambda: self._settle(refused))
        else:
            self._later(refused)

    def _give_back(self, refused: Refused) -> None:
        for name in self._queues_of(refused.message):
            self._pause(name, refused.edge.quarantine)
        self._answer(refused.reject, True)

    def _pause(self, name: str, quarantine: str) -> None:
        if name in self._paused:
            return
        _log.critical(
            "the quarantine is out of reach: no longer taking messages from queue %r, where a message that may not "
            "run waits; resuming when the quarantine answers",
            name,
        )
        self._paused.add(name)
        self._consumer.cancel_task_queue(name)
        if len(self._paused) == 1:
            self._probe_later(quarantine)

    def _probe_later(self, quarantine: str) -> None:
        self._consumer.timer.call_after(PROBE_EVERY, self._probe, (quarantine,))

    def _probe(self, quarantine: str) -> None:
        if keep.reachable(self._app, quarantine):
            self._in_consumer(lambda: self._resume(quarantine))
        else:
            self._probe_later(quarantine)

    def _resume(self, quarantine: str) -> None:
        self._unreachable = False
        try:
            for name in sorted(self._paused):
                self._consumer.add_task_queue(name)
                self._paused.discard(name)
                _log.warning("the quarantine answers again: taking messages from queue %r", name)
        finally:
            if self._paused:
                # The worker is between two connections to its broker.
                self._probe_later(quarantine)

    def _queues_of(self, message: Any) -> list[str]:
        """Return the queue that a message came from, or all queues where that cannot be told."""
        consumer = self._consumer.task_consumer
        info = message.delivery_info
        tag = info.get("consumer_tag")
        by_tag = [
            name for name, active in getattr(consumer, "_active_tags", {}).items() if tag and active == tag
        ]
        if by_tag:
            return by_tag
        exchange, routing_key = info.get("exchange") or "", info.get("routing_key")
        matching = [
            queue.name
            for queue in consumer.queues
            if (exchange == "" and queue.name == routing_key)
            or (queue.exchange.name == exchange and queue.routing_key == routing_key)
        ]
        return matching or [queue.name for queue in consumer.queues]

    def _in_consumer(self, function: Callable[[], None]) -> None:
        """Run ``function`` in the thread of the consumer, whose channel is not safe to share."""
        if self._consumer.hub is None:
            self._consumer.call_soon(self._safely, function)
        else:
            self._safely(function)

    @staticmethod
    def _safely(function: Callable[[], None]) -> None:
        try:
            function()
        except Exception:  # noqa: BLE001 - an exception would end the worker
            _log.exception("a step of refusing a message failed; the broker will deliver it again")


# --- those who wait for the result ---------------------------------------------------------------


def tell_waiters(refused: Refused) -> None:
    """Store the refusal as the task's result, so that a chord fails instead of hanging.

    Not where secret keys are set: whoever wrote an unauthenticated message may not end another's task.
    """
    task_id = refused.entry.task_id
    if refused.edge.secret_keys is not None or task_id is None:
        return
    running = RunningTask(task_id, refused.entry.task, None, follows={})
    try:
        with unit_of_work(None, unit=running):
            context = _context(refused, task_id)
            refused.task.backend.mark_as_failure(
                task_id,
                refused.error,
                request=context,
                store_result=_stores(refused.task, context),
                call_errbacks=False,
            )
    except Exception:  # noqa: BLE001 - the message is kept; only its waiters are not told
        _log.exception("the result of refused task %s could not be stored", task_id)


def _stores(task: Any, context: Any) -> bool:
    ignored = vars(context).get("ignore_result")
    if ignored is None:
        ignored = task.ignore_result
    return bool(not ignored or task.store_errors_even_if_ignored)


def _context(refused: Refused, task_id: str) -> Any:
    message = refused.message
    embedded = _embedded(message)
    properties = message.properties
    known: dict[str, Any] = dict(message.headers)
    if "task" not in known:
        known = {**embedded, "group": embedded.get("group") or embedded.get("taskset")}
    known |= {part: embedded.get(part) for part in ("chord", "chain")}
    known |= {
        "id": task_id,
        "task": refused.entry.task,
        "reply_to": properties.get("reply_to"),
        "correlation_id": properties.get("correlation_id"),
        "delivery_info": dict(message.delivery_info),
        "errbacks": None,
    }
    return Context(known)


def _embedded(message: Any) -> Mapping[str, Any]:
    try:
        return split(payload_of(message))[2]
    except (UndecodableError, PropagationError):
        return {}
