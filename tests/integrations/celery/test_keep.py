"""A worker's line to the quarantine."""

from __future__ import annotations

import gc
import json
from contextlib import closing
from dataclasses import FrozenInstanceError, replace
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from kombu import Connection
from kombu.exceptions import OperationalError
from kombu.transport.memory import Channel
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
        keep.Line(wire.app).put(f"kept-{wire.queue}", entry)
    assert sum(slept) == 0
    assert not keep.reachable(wire.app, f"kept-{wire.queue}")


def test_attempt_that_is_interrupted_leaves_no_connection(wire, monkeypatch) -> None:
    """By whatever ends the process; that is no broker's answer."""
    made = []

    def interrupted(self, **_):
        made.append(self)
        self.connect()
        raise KeyboardInterrupt

    monkeypatch.setattr(Connection, "ensure_connection", interrupted)
    with pytest.raises(KeyboardInterrupt):
        keep.opened(wire.app)
    assert [connection.connected for connection in made] == [False]


def test_quarantine_that_cannot_be_declared_is_out_of_reach(wire, monkeypatch) -> None:
    """Though its broker answers."""
    name = f"kept-{wire.queue}"
    assert keep.reachable(wire.app, name) is True

    def refuses(*_, **__):
        raise OSError("as asked")

    monkeypatch.setattr(Channel, "queue_declare", refuses)
    assert keep.reachable(wire.app, name) is False


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


def test_line_that_cannot_be_opened_says_so_each_time(wire, entry, monkeypatch) -> None:
    """After one attempt, since a worker waits for it; and works when the broker is back."""
    attempts, connect = [], Connection.ensure_connection

    def counted(self, **options):
        attempts.append(self)
        return connect(self, **options)

    line, name = keep.Line(wire.app), f"kept-{wire.queue}"
    line.put(name, entry)
    line.close()
    wire.app.conf.broker_write_url = "amqp://guest:guest@127.0.0.1:1//"
    monkeypatch.setattr(Connection, "ensure_connection", counted)
    for _ in range(2):
        with pytest.raises(OperationalError, match="does not answer"):
            line.put(name, entry)
    assert len(attempts) == 2
    wire.app.conf.broker_write_url = "memory://"
    assert line.put(name, entry) == 2
    line.close()


@pytest.mark.parametrize(
    "stored", [b"", b"no json", b"5", b"{}", b'{"tenant": 5}', '{"tenant": "a:b"}'], ids=repr
)
def test_what_is_no_entry_is_none(stored) -> None:
    """Whatever somebody published there."""
    assert keep.decode(stored) is None


def test_what_is_stored_is_one_durable_text_of_ours(wire, entry) -> None:
    """Its form is read by later versions; no worker takes it for a task, and a broker that restarts has it."""
    name = f"kept-{wire.queue}"
    with closing(keep.Line(wire.app)) as line:
        assert line.put(name, entry) == 1
    with wire.app.connection_for_read() as connection:
        message = connection.channel().basic_get(name, no_ack=True)
    assert json.loads(message.body) == {
        "v": 1,
        "id": "e1",
        "task_id": "t1",
        "task": "needs",
        "tenant": None,
        "reason": "because",
        "worker": "w1@host",
        "time": entry.time.isoformat(),
        "body": "W1tdLCB7fSwge31d",
        "content_type": "application/json",
        "content_encoding": "utf-8",
        "headers": {},
        "properties": {},
        "delivery_info": {},
    }
    assert (message.content_type, message.content_encoding) == ("application/x-tenantry-quarantine", "utf-8")
    assert message.properties["delivery_mode"] == 2
    assert message.headers == {}


def test_queue_outlives_broker_and_consumers(wire) -> None:
    """It is declared so each time."""
    with keep.connected(wire.app) as connection:
        queue = keep.declared(f"kept-{wire.queue}", connection.channel())
        assert queue.queue_declare(passive=True).message_count == 0
    assert (queue.durable, queue.auto_delete, queue.exclusive) == (True, False, False)
    assert not connection.connected


def test_patience_with_a_broker_is_a_few_seconds(wire, redis_url) -> None:
    """While connecting and afterwards; where publishes can be confirmed they are."""
    wire.app.conf.broker_write_url = redis_url
    with keep.connected(wire.app) as connection:
        assert connection.connect_timeout == 4.0
        assert connection.heartbeat == 0
        assert connection.transport_options == {"socket_timeout": 4.0, "socket_connect_timeout": 4.0}
    wire.app.conf.broker_write_url = "amqp://guest:guest@127.0.0.1:1//"
    assert keep._options(wire.app) == {"confirm_publish": True}
    wire.app.conf.broker_write_url = "memory://"
    assert keep._options(wire.app) == {}


@pytest.mark.parametrize(
    ("body", "encoding", "expected"),
    [
        (b"\xff\x00", "binary", b"\xff\x00"),
        (memoryview(b"ab"), "utf-8", b"ab"),
        (None, None, b""),
        ("\u00fc", None, b"\xc3\xbc"),
        ("\u00fc", "", b"\xc3\xbc"),
        ("\u00fc", "binary", b"\xc3\xbc"),
        ("\u00fc", "us-ascii", b"\xc3\xbc"),
        ("\u00fc", "utf-8", b"\xc3\xbc"),
        ("\u00fc", "latin-1", b"\xfc"),
    ],
)
def test_body_is_kept_as_bytes(body, encoding, expected) -> None:
    """A text in the encoding that its message names."""
    given = SimpleNamespace(
        body=body,
        content_type="text/plain",
        content_encoding=encoding,
        headers=None,
        properties=None,
        delivery_info=None,
    )
    kept = keep.entry_of(given, None, "needs", None, "because", "w1@host")
    assert (kept.body, kept.headers, kept.properties, kept.delivery_info) == (expected, {}, {}, {})
    assert (kept.content_type, kept.content_encoding) == ("text/plain", encoding)


def test_properties_of_the_transport_are_not_kept() -> None:
    """They hold for one delivery only."""
    of_transport = {"application_headers": 1, "delivery_info": 2, "delivery_tag": 3, "body_encoding": 4}
    given = SimpleNamespace(
        body=b"", content_type=None, content_encoding=None, headers={}, delivery_info={},
        properties={"priority": 5, **of_transport},
    )  # fmt: skip
    assert keep.entry_of(given, None, "n", None, "r", "w").properties == {"priority": 5}


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        ({1: (2, [None])}, {"1": [2, [None]]}),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00+00:00"),
        (b"a\xff", "a\\xff"),
        ([True, 1.5, "x"], [True, 1.5, "x"]),
        ({2, 2}, "{2}"),
    ],
)
def test_entry_as_json_shows_every_value(entry, value, plain) -> None:
    """What JSON cannot hold as text."""
    shown = replace(entry, headers={"x": value}).as_json()
    assert shown["headers"] == {"x": plain}
    assert json.loads(json.dumps(shown)) == shown
    assert (shown["time"], shown["body"]) == (entry.time.isoformat(), "W1tdLCB7fSwge31d")


def test_what_a_tenant_sent_is_not_shown_in_passing(entry) -> None:
    """Logs and tracebacks get the entry's repr."""
    secret = {"h": "SECRET"}
    shown = repr(replace(entry, body=b"SECRET", headers=secret, properties=secret, delivery_info=secret))
    assert "SECRET" not in shown
    assert "id='e1', task_id='t1', task='needs'" in shown


def test_entry_cannot_be_changed(entry) -> None:
    """It is what somebody sent."""
    with pytest.raises(FrozenInstanceError):
        entry.tenant = "acme"


def test_text_that_is_no_utf_8_is_kept(entry) -> None:
    """Header or reason: somebody may have written half a character."""
    odd = replace(entry, reason="half \ud800", headers={"half": "\ud800", "odd": object})
    assert keep.decode(keep.encode(replace(odd, headers={}))).reason == "half \ud800"
    assert keep.decode(keep.encode(odd)).headers["half"] == "\ud800"


def test_names_depend_on_all_that_a_message_is() -> None:
    """So that another message is never discarded as a twin."""
    names = [keep._name_of(*what) for what in (("t", b"", {}), (None, b"", {}), ("t", b"", {"\ud800": 1}))]
    assert len(set(names)) == 3
    assert {len(name) for name in names} == {32}
