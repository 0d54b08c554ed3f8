"""What the quarantine does on a broker that confirms what it is sent, and says what it could not deliver."""

from __future__ import annotations

import uuid
from contextlib import closing
from datetime import UTC, datetime

import pytest
from celery import Celery

from tenantry.integrations.celery import install, keep, quarantine, uninstall


@pytest.fixture
def app(rabbitmq_url):
    """An installed application on RabbitMQ, whose quarantine is empty."""
    app = Celery("confirmed", broker=rabbitmq_url, set_as_current=False)
    install(app, quarantine=f"kept-{uuid.uuid4().hex}")
    yield app
    with app.connection_for_write() as connection:
        connection.channel().queue_delete(quarantine(app)._edge.quarantine)
    uninstall(app)
    app.close()


@pytest.fixture
def kept(app):
    """Put entries into the quarantine: ``kept("t1", "t2")``; their queues are gone."""

    def put(*task_ids) -> list[keep.QuarantinedMessage]:
        entries = [
            keep.QuarantinedMessage(
                f"id-{task_id}",
                task_id,
                "needs",
                "acme",
                "because",
                "w1@host",
                datetime.now(UTC),
                b"[[], {}, {}]",
                "application/json",
                "utf-8",
                {"task": "needs", "id": task_id},
                {},
                {"exchange": "", "routing_key": f"gone-{uuid.uuid4().hex}"},
            )
            for task_id in task_ids
        ]
        with closing(keep.Line(app)) as line:
            for depth, entry in enumerate(entries, 1):
                assert line.put(quarantine(app)._edge.quarantine, entry) == depth
        return entries

    return put


def test_replay_into_a_queue_that_is_gone_is_an_error_and_removes_nothing(app, kept) -> None:
    """The broker would drop the message in silence, and its entry is all that there is of it."""
    entries = kept("t1")
    with pytest.raises(Exception, match="NO_ROUTE"):
        quarantine(app).replay("id-t1", tenant_id="acme")
    assert quarantine(app).list() == entries


def test_what_is_discarded_stays_away_and_the_rest_comes_back(app, kept) -> None:
    """By itself and in the middle of a listing, which holds messages that nobody else sees meanwhile."""
    assert quarantine(app).list() == []  # of a queue that nobody has declared yet
    first, second, third, fourth = kept("t1", "t2", "t3", "t4")
    operator = quarantine(app)
    operator.discard(first.id, reason="because")
    assert operator.list() == [second, third, fourth]
    for entry in operator.list():
        if entry == third:
            operator.discard(entry.id, reason="because")
    assert operator.list() == [second, fourth]


def test_entries_are_confirmed_before_their_message_is_acknowledged(app) -> None:
    """Else an acknowledgement may outrun a publish that is lost."""
    with keep.connected(app) as connection:
        assert connection.channel().connection.confirm_publish
