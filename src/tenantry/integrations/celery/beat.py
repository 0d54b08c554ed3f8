"""Beat: entries that need a tenant and name none end it at its start, rather than one by one in its log.

Celery swallows what a signal's receiver raises, except ``SystemExit``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from celery import signals

from tenantry.context import unit_of_work
from tenantry.errors import TenancyError
from tenantry.integrations.celery.edge import edge_of, real
from tenantry.integrations.celery.needs import Canvas

_log = logging.getLogger("tenantry.celery")


def connect() -> None:
    """Check schedules from now on. Idempotent; acts on installed applications alone."""
    signals.beat_init.connect(_beat_starts, dispatch_uid="tenantry.beat")
    signals.celeryd_after_setup.connect(_worker_starts, dispatch_uid="tenantry.worker_beat")


def _beat_starts(sender: Any, **_: Any) -> None:
    app = real(sender.app)
    if edge_of(app) is not None:
        _end_if_any(app, sender.scheduler.schedule)


def _worker_starts(instance: Any, **_: Any) -> None:
    app = real(instance.app)
    if edge_of(app) is not None and getattr(instance, "beat", None) is not None:
        _end_if_any(app, app.conf.beat_schedule)


def _end_if_any(app: Any, schedule: Mapping[str, Any]) -> None:
    refused = sorted(refused_entries(app, schedule))  # a scheduler holds them in no order
    if not refused:
        return
    for name, problem in refused:
        _log.critical("beat entry %r cannot be published: %s", name, problem)
    names = ", ".join(repr(name) for name, _ in refused)
    _log.critical(
        "beat does not start: name a tenant in each of these entries, options={'tenant': ...}, or declare "
        "their tasks tenancy='none' and fan out from there: %s",
        names,
    )
    raise SystemExit(1)


def refused_entries(app: Any, schedule: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield name and problem of each entry that would be refused when its time comes."""
    for name, entry in schedule.items():
        try:
            _check(app, *_parts(entry))
        except (TenancyError, ValueError) as error:
            yield str(name), str(error)


def _parts(entry: Any) -> Iterable[Any]:
    if isinstance(entry, Mapping):
        return entry["task"], entry.get("args"), entry.get("kwargs"), entry.get("options") or {}
    return entry.task, entry.args, entry.kwargs, entry.options


def _check(app: Any, task: str, args: Any, kwargs: Any, options: Mapping[str, Any]) -> None:
    with unit_of_work(None):
        canvas = Canvas(app, None, unknown=False)
        tenant_id = canvas.named_in(options, None)
        canvas.links(options, canvas.task(task, args, kwargs, tenant_id))
