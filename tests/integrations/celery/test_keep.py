"""A worker's line to the quarantine."""

from __future__ import annotations

import gc
from datetime import UTC, datetime

import pytest
from kombu.exceptions import OperationalError
from kombu.utils import functional

from tenantry.integrations.celery import keep


@pytest.fixture
def entry() -> keep.QuarantinedMessage:
    """Any message."""
    return keep.QuarantinedMessage(
        "e1", "t1", "needs", None, "because", "w1@host", datetime.now(UTC), b"[[], {}, {}]",
        "application/json", "utf-8", {}, {}, {},
    )  # fmt: skip


def test_attempt_that_fails_does_not_sleep(wire, entry, monkeypatch) -> None:
    """It happens in the worker's event loop, which has other tasks to serve."""
    slept = []
    monkeypatch.setattr(functional, "sleep", slept.append)
    wire.app.conf.broker_write_url = "amqp://guest:guest@127.0.0.1:1//"
    with pytest.raises(OperationalError, match="the broker does not answer"):
        keep.put(wire.app, f"kept-{wire.queue}", entry)
    assert sum(slept) == 0
    assert not keep.reachable(wire.app, f"kept-{wire.queue}")


def test_line_that_is_dropped_is_not_closed_by_the_collector(wire, entry) -> None:
    """That may happen anywhere, in the middle of a lock that closing needs as well."""
    line = keep.Line(wire.app)
    assert line.put(f"kept-{wire.queue}", entry) == 1
    connection = line._connection
    del line
    gc.collect()
    assert connection.connected
    connection.release()


def test_line_stays_open_and_is_opened_anew(wire, entry) -> None:
    """One connection for messages in quick succession; another after a long rest, or where it has died."""
    line, name = keep.Line(wire.app), f"kept-{wire.queue}"
    assert line.put(name, entry) == 1
    first = line._connection
    assert line.put(name, entry) == 2
    assert line._connection is first
    line._used -= 60
    assert line.put(name, entry) == 3
    second = line._connection
    assert second is not first
    assert not first.connected
    second.release()
    line._channel = None
    assert line.put(name, entry) == 4
    assert line._connection is not second
    line.close()
    line.close()
    assert line._connection is None


def test_line_that_cannot_be_opened_says_so_each_time(wire, entry) -> None:
    """And works when the broker is back."""
    line, name = keep.Line(wire.app), f"kept-{wire.queue}"
    line.put(name, entry)
    line.close()
    wire.app.conf.broker_write_url = "amqp://guest:guest@127.0.0.1:1//"
    for _ in range(2):
        with pytest.raises(OperationalError, match="does not answer"):
            line.put(name, entry)
    wire.app.conf.broker_write_url = "memory://"
    assert line.put(name, entry) == 2
    line.close()


@pytest.mark.parametrize(
    "stored", [b"", b"no json", b"5", b"{}", b'{"tenant": 5}', '{"tenant": "a:b"}'], ids=repr
)
def test_what_is_no_entry_is_none(stored) -> None:
    """Whatever somebody published there."""
    assert keep.decode(stored) is None
