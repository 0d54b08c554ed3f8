"""An application on Celery's in-memory broker, and a look at what was put on its wire."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest
from celery import Celery

from tenantry.integrations.celery import install, uninstall


class Wire:
    """An application with a queue of its own, whose messages nobody takes."""

    def __init__(self, **options) -> None:
        self.queue = f"wire-{uuid.uuid4().hex}"
        self.app = Celery(
            f"wire_{self.queue}", broker="memory://", backend=options.pop("backend", "cache+memory://")
        )
        self.app.conf.update(task_default_queue=self.queue, result_chord_retry_interval=0.1, **options)

        @self.app.task(name="needs", shared=False)
        def needs(*_):
            """A task that needs a tenant."""

        @self.app.task(name="free", shared=False, tenancy="none")
        def free(*_):
            """A task that needs none."""

        @self.app.task(name="maybe", shared=False, tenancy="optional")
        def maybe(*_):
            """A task that takes what there is."""

        self.needs, self.free, self.maybe = needs, free, maybe

    def messages(self) -> list:
        """Take everything off the wire."""
        found = []
        with self.app.connection_for_read() as connection:
            channel = connection.channel()
            self.app.amqp.queues[self.queue](channel).declare()
            while (message := channel.basic_get(self.queue, no_ack=True)) is not None:
                found.append(message)
        return found

    def headers(self) -> list:
        """The tenant headers of everything on the wire, in order of publishing."""
        return [message.headers.get("tenantry") for message in self.messages()]


@pytest.fixture
def new_wire() -> Iterator[Callable[..., Wire]]:
    """Make installed applications: ``new_wire(secret_keys="k", conf={"task_protocol": 1})``."""
    made = []

    def make(conf: dict | None = None, **options) -> Wire:
        wire = Wire(**(conf or {}))
        install(wire.app, **options)
        made.append(wire)
        return wire

    yield make
    for wire in made:
        uninstall(wire.app)
        wire.app.close()


@pytest.fixture
def wire(new_wire) -> Wire:
    """An installed application, unsigned."""
    return new_wire()
