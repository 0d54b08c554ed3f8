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


def test_replay_into_a_queue_that_is_gone_is_an_error_and_removes_nothing(app) -> None:
    """The broker would drop the message in silence, and its entry is all that there is of it."""
    entry = keep.QuarantinedMessage(
        "e1", "t1", "needs", "acme", "because", "w1@host", datetime.now(UTC), b"[[], {}, {}]",
        "application/json", "utf-8", {"task": "needs", "id": "t1"}, {},
        {"exchange": "", "routing_key": f"gone-{uuid.uuid4().hex}"},
    )  # fmt: skip
    operator = quarantine(app)
    with closing(keep.Line(app)) as line:
        assert line.put(operator._edge.quarantine, entry) == 1
    with pytest.raises(Exception, match="NO_ROUTE"):
        operator.replay("e1", tenant_id="acme")
    assert operator.list() == [entry]


def test_entries_are_confirmed_before_their_message_is_acknowledged(app) -> None:
    """Else an acknowledgement may outrun a publish that is lost."""
    with keep.connected(app) as connection:
        assert connection.channel().connection.confirm_publish
