"""While the quarantine cannot be reached: nothing is lost, nothing spins, the worker lives."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kombu import Queue

from tenantry.integrations.celery import quarantine
from tests import services


class Obstacle:
    """Puts something into the quarantine's place that cannot take messages, and takes it away again."""

    def __init__(self, rig) -> None:
        self.rig = rig
        self.name = rig.env["PROBE_QUARANTINE"]

    def put(self) -> None:
        """Occupy the name: a value of another type, or a queue of other arguments."""
        with self.rig.app.connection_for_write() as connection:
            channel = connection.channel()
            if connection.transport.driver_type == "redis":
                channel.client.set(self.name, "no list")
            else:
                Queue(self.name, durable=True, queue_arguments={"x-max-length": 5})(channel).declare()

    def take_away(self) -> None:
        """Free the name."""
        with self.rig.app.connection_for_write() as connection:
            channel = connection.channel()
            if connection.transport.driver_type == "redis":
                channel.client.delete(self.name)
            else:
                channel.queue_delete(self.name)


COMBINATIONS = [("redis_url", "prefork"), ("rabbitmq_url", "prefork")]
MORE = [(b, p) for b in ("redis_url", "rabbitmq_url") for p in ("threads", "gevent", "solo")]


@pytest.fixture(
    params=[
        *COMBINATIONS,
        *(pytest.param(m, marks=pytest.mark.deep) for m in MORE if m not in COMBINATIONS),
    ],
    ids="-".join,
)
def held(request, new_rig) -> Iterator:
    """A rig with a worker whose quarantine is out of reach, and which gives up soon."""
    broker, pool = request.param
    rig = new_rig(
        broker=request.getfixturevalue(broker), PROBE_HOLD=str(getattr(request.function, "hold", 3))
    )
    rig.obstacle = Obstacle(rig)
    rig.obstacle.put()
    with rig.worker(pool=pool, concurrency=2) as worker:
        rig.running = worker
        yield rig


def bad(rig):
    """Publish a message that may not run."""
    return type(rig.app).send_task(rig.app, rig.probe.tell.name)


def test_bad_message_is_kept_once_when_the_quarantine_is_back(held) -> None:
    """Meanwhile it stays unacknowledged, and tasks of others run."""
    result = bad(held)
    services.wait_until(lambda: "is out of reach" in held.running.log(), "the first attempt", seconds=20)
    assert held.probe.maybe.delay().get(timeout=20) is None
    held.obstacle.take_away()
    assert held.entry(result.id).task_id == result.id
    assert held.probe.maybe.delay().get(timeout=20) is None
    assert len(list(quarantine(held.app).list())) == 1
    assert held.phases(result.id) == []


def test_held_message_goes_back_and_its_queue_is_paused(held) -> None:
    """After a while the message is given back, the queue rests, and all goes on when the quarantine answers."""
    result = bad(held)
    services.wait_until(lambda: "no longer taking messages" in held.running.log(), "the pause", seconds=30)
    assert "CRITICAL" in held.running.log()
    waiting = held.probe.maybe.delay()
    log = held.running.log()
    attempts = log.count("is out of reach: ")
    assert attempts < 8
    assert waiting.state == "PENDING"
    assert held.running.process.poll() is None
    held.obstacle.take_away()
    assert held.entry(result.id).task_id == result.id
    assert waiting.get(timeout=30) is None
    assert len(list(quarantine(held.app).list())) == 1
    assert "taking messages from queue" in held.running.log()[len(log) :]
    assert held.running.log().count("is out of reach: ") == attempts
