"""Celery's receiving half without a worker: messages go through the strategy that a worker would call.

Everything is Celery's own, from the strategy to the tracer, but the consumer, which needs a process of its
own: its stand-in says what was acknowledged, given back, cancelled and put off until later.
"""

from __future__ import annotations

import json
from contextlib import suppress
from types import SimpleNamespace

from kombu.message import Message

from tests.integrations.celery.conftest import Wire


class Consumer:
    """What a strategy and a keeper touch of a worker's consumer."""

    def __init__(self, app) -> None:
        self.app = app
        self.hostname = "w1@host"
        self.connection_errors = (ConnectionError,)
        self.connection = object()
        self.event_dispatcher = None
        self.disable_rate_limits = True
        self.task_buckets = {}
        self.pool = SimpleNamespace(apply_async=None)
        self.hub = object()
        self.controller = SimpleNamespace(state=SimpleNamespace(revoked={}))
        self.later = []
        self.soon = []
        self.cancelled = []
        self.added = []
        self.requests = []
        self.answers = []
        self.timer = SimpleNamespace(
            call_after=lambda delay, function, args=(): self.later.append((delay, function, args)),
            call_at=None,
        )
        self.task_consumer = SimpleNamespace(queues=[])
        self.apply_eta_task = self._limit_task = self._limit_post_eta = None

    def on_task_request(self, request) -> None:
        """Remember what would go to the pool."""
        self.requests.append(request)

    def call_soon(self, function, *args) -> None:
        """Remember what is to be called in the consumer's thread."""
        self.soon.append((function, args))

    def cancel_task_queue(self, name) -> None:
        """Remember."""
        self.cancelled.append(name)

    def add_task_queue(self, name) -> None:
        """Remember."""
        self.added.append(name)

    def tick(self) -> float:
        """Do the next thing that was put off, and return how long it was to wait."""
        delay, function, args = self.later.pop(0)
        function(*args)
        return delay


class Receiver:
    """The strategies of one application."""

    def __init__(self, wire: Wire) -> None:
        self.app = wire.app
        self.consumer = Consumer(wire.app)
        # The in-memory backend outlives its application.
        for task_id in ("t1", "t2", "t9"):
            with suppress(FileNotFoundError):
                wire.app.AsyncResult(task_id).forget()

    def __call__(self, message, *, run: bool = True) -> None:
        """Handle one message as a worker would, up to the end of the task."""
        body = message.payload if "task" not in (message.headers or {}) else None
        name = message.headers["task"] if body is None else body["task"]
        handler = self.app.tasks[name].start_strategy(self.app, self.consumer)
        answers = self.consumer.answers
        handler(
            message,
            body,
            lambda *_: answers.append("ack"),
            lambda _log, _errors, requeue=False: answers.append("requeue" if requeue else "reject"),
            [],
        )
        while run and self.consumer.requests:
            self.consumer.requests.pop(0).execute()


def message(task: str = "needs", *, body=None, **changes) -> Message:
    """A message of task protocol 2 as a broker delivers it; ``headers`` are added, ``...`` takes one away."""
    headers = {"task": task, "id": "t1", "lang": "py", "root_id": "t1", "retries": 0}
    headers |= changes.pop("headers", {})
    payload = (
        body if isinstance(body, (bytes, str)) else json.dumps(body if body is not None else [[], {}, {}])
    )
    values = {
        "delivery_tag": "d1",
        "content_type": "application/json",
        "content_encoding": "utf-8",
        "headers": {name: value for name, value in headers.items() if value is not ...},
        "properties": {"correlation_id": "t1"},
        "delivery_info": {"exchange": "", "routing_key": "a-queue"},
        "accept": {"application/json"},
    }
    return Message(payload, **{**values, **changes})
