"""The Celery edge: every message carries its tenant; no body runs under another, or under none by accident.

Enters: the message header ``tenantry``, read by the worker before anything else sees the message.
Leaves: ``app.send_task``, which every path that puts a task message on the wire passes.
Runs bound: the signals, ``before_start``, the body, ``on_success``, ``on_failure``, ``on_retry``,
    ``after_return``, callbacks, errbacks, chain and chord continuations, and what the parent process does
    for a task (received, expired, revoked, time limit, lost worker), as far as the installed Celery calls it.
Tested with: Celery 5.4 to 5.7; prefork (fork and spawn), threads, gevent, eventlet and solo pools;
    Redis and RabbitMQ brokers; task protocols 1 and 2.
"""

from __future__ import annotations

try:
    import celery as _celery  # noqa: F401 - the dependency of this edge
except ModuleNotFoundError as error:
    if error.name != "celery":
        raise
    raise ImportError(
        "tenantry's Celery edge needs Celery: pip install tenantry[celery]", name="celery"
    ) from error

from tenantry.integrations.celery.fanout import fan_out
from tenantry.integrations.celery.operate import quarantine
from tenantry.integrations.celery.wiring import install, uninstall

__all__ = ["fan_out", "install", "quarantine", "uninstall"]
