"""Operate: Celery's own lines about a task say whose it is."""

from __future__ import annotations

import logging
from typing import Any, Final

from celery import signals

from tenantry.context import current_tenant_or_none

#: The loggers of Celery's lines about one task: received, succeeded, failed, retried, revoked, timed out.
_ABOUT_TASKS: Final = ("celery.worker.strategy", "celery.worker.request", "celery.app.trace")


class _Said:
    """Add the tenant to the text of Celery's own lines, and to every record as ``tenant``."""

    def __init__(self, *, in_text: bool) -> None:
        self._in_text = in_text

    def filter(self, record: logging.LogRecord) -> bool:
        tenant_id = current_tenant_or_none()
        if "tenant" not in vars(record):
            record.tenant = tenant_id or "-"
        if self._in_text and tenant_id is not None and isinstance(record.msg, str):
            record.msg = f"{record.msg} (tenant {tenant_id})"
        return True


_in_text: Final = _Said(in_text=True)
_as_attribute: Final = _Said(in_text=False)


def connect() -> None:
    """Say it from now on. Idempotent; without an active tenant the lines stay as they are."""
    for name in _ABOUT_TASKS:
        logging.getLogger(name).addFilter(_in_text)
    signals.after_setup_logger.connect(_on_handlers, dispatch_uid="tenantry.logger")
    signals.after_setup_task_logger.connect(_on_handlers, dispatch_uid="tenantry.task_logger")


def _on_handlers(logger: Any, **_: Any) -> None:
    for handler in logger.handlers:
        handler.addFilter(_as_attribute)
