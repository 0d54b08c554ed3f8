"""Celery's own lines about a task say whose it is."""

from __future__ import annotations

import logging

import pytest
from celery import signals

from tenantry import tenant_scope


@pytest.mark.parametrize("name", ["celery.worker.strategy", "celery.worker.request", "celery.app.trace"])
def test_lines_about_a_task_end_in_its_tenant(wire, caplog, name) -> None:
    """Once, and only where there is one; what is no text stays as it is."""
    caplog.set_level(logging.INFO, name)
    logger = logging.getLogger(name)
    with tenant_scope("acme"):
        logger.info("Task %s received", "x")
        logger.info(ValueError("odd"))
    logger.info("Task %s received", "y")
    assert [r.getMessage() for r in caplog.records] == [
        "Task x received (tenant acme)",
        "odd",
        "Task y received",
    ]
    assert [r.tenant for r in caplog.records] == ["acme", "acme", "-"]


@pytest.mark.parametrize("signal", ["after_setup_logger", "after_setup_task_logger"])
def test_records_of_the_workers_handlers_have_an_attribute(wire, signal) -> None:
    """The text stays as it is, and a record that has a tenant keeps it."""
    handler = logging.Handler()
    logger = logging.getLogger(f"worker.{signal}")
    logger.addHandler(handler)
    getattr(signals, signal).send(sender=None, logger=logger)
    logger.removeHandler(handler)
    records = [logging.LogRecord("n", logging.INFO, "p", 1, "text", (), None) for _ in range(3)]
    records[2].tenant = "globex"
    with tenant_scope("acme"):
        handler.filter(records[0])
        handler.filter(records[2])
    handler.filter(records[1])
    assert [(r.tenant, r.msg) for r in records] == [("acme", "text"), ("-", "text"), ("globex", "text")]
