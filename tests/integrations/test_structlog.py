"""The tenant in structlog's events."""

from __future__ import annotations

import json
from typing import Any

import pytest
import structlog

from tenantry import tenant_scope, without_tenant
from tenantry.context import unit_of_work
from tenantry.integrations.structlog import add_tenant


@pytest.fixture
def output() -> structlog.testing.LogCapture:
    return structlog.testing.LogCapture()


@pytest.fixture
def log(output: structlog.testing.LogCapture) -> Any:
    return structlog.wrap_logger(None, processors=[add_tenant, output])


def test_add_tenant_writes_the_active_tenant(log: Any, output: structlog.testing.LogCapture) -> None:
    """The tenant is the one that is active where the event is logged, not where the logger was bound."""
    with tenant_scope("acme"):
        bound = log.bind(a=1)
        bound.info("x")
    with tenant_scope("globex"):
        bound.info("x")
    assert [entry["tenant"] for entry in output.entries] == ["acme", "globex"]


def test_add_tenant_writes_a_dash_without_tenant(log: Any, output: structlog.testing.LogCapture) -> None:
    """No state without a tenant raises."""
    log.info("x")
    with unit_of_work(None):
        log.info("x")
    with without_tenant(reason="a test"):
        log.info("x")
    assert [entry["tenant"] for entry in output.entries] == ["-", "-", "-"]


def test_add_tenant_keeps_what_is_there(log: Any, output: structlog.testing.LogCapture) -> None:
    """Bound and given values win, ``None`` included."""
    with tenant_scope("acme"):
        log.bind(tenant="bound").info("x")
        log.info("x", tenant=None)
    assert [entry["tenant"] for entry in output.entries] == ["bound", None]


def test_add_tenant_returns_the_same_dictionary() -> None:
    """It is a processor: it changes the dictionary and hands it on."""
    event: dict[str, Any] = {"event": "x"}
    assert add_tenant(None, "info", event) is event
    assert event == {"event": "x", "tenant": "-"}


def test_add_tenant_reaches_the_rendered_line() -> None:
    """Through structlog's own JSON renderer."""
    lines: list[str] = []

    class Sink:
        def info(self, line: str) -> None:
            lines.append(line)

    log = structlog.wrap_logger(Sink(), processors=[add_tenant, structlog.processors.JSONRenderer()])
    with tenant_scope("acme"):
        log.info("hello")
    assert json.loads(lines[0]) == {"event": "hello", "tenant": "acme"}


def test_add_tenant_reaches_logging_s_records_through_the_formatter() -> None:
    """``ProcessorFormatter`` runs it for records of the standard library, too."""
    import logging

    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[add_tenant],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.JSONRenderer(),
        ],
    )
    record = logging.LogRecord("n", logging.INFO, "p", 1, "hello", (), None)
    with tenant_scope("acme"):
        assert json.loads(formatter.format(record))["tenant"] == "acme"
