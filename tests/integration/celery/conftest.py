"""A worker of the probe application for each module that wants one, and the means to ask what it did."""

from __future__ import annotations

import importlib.util
import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType

import pytest
import redis
from kombu import Producer

from tenantry.integrations.celery import quarantine, refuse
from tests import services

HERE = Path(__file__).parent
PROBE = "tests.integration.celery.probe"


class Rig:
    """One application with its environment: to publish here, to run workers on, to read notes from."""

    def __init__(self, env: dict[str, str]) -> None:
        self.env = env
        self.probe = _load_probe(env)
        self.app = self.probe.app
        self.notes: redis.Redis = self.probe.notes
        self.queue = env["PROBE_QUEUE"]

    @contextmanager
    def worker(self, *arguments: str, **options) -> Iterator[services.Worker]:
        """Run a real worker on this rig's queue."""
        root = str(HERE.parents[2])
        path = os.pathsep.join([root, str(Path(root) / "src"), os.environ.get("PYTHONPATH", "")])
        env = {**self.env, "PYTHONPATH": path, **options.pop("env", {})}
        with services.celery_worker(
            PROBE, "-Q", self.queue, "--without-gossip", "--without-mingle", *arguments, env=env, **options
        ) as worker:
            yield worker

    def phases(self, task_id: str, *until: str, seconds: float = 20.0) -> list[str]:
        """What a task's phases have noted, once all of ``until`` are among it."""
        deadline = time.monotonic() + seconds
        while True:
            found = self.notes.lrange(f"phases:{task_id}", 0, -1)
            names = {item.partition("=")[0] for item in found}
            if names.issuperset(until):
                return found
            if time.monotonic() > deadline:
                raise AssertionError(f"{set(until) - names} did not come; there is {found}")
            time.sleep(0.02)

    def entry(self, task_id: str, seconds: float = 20.0):
        """The one quarantined message of a task."""
        deadline = time.monotonic() + seconds
        while True:
            found = [entry for entry in quarantine(self.app).list() if entry.task_id == task_id]
            if found:
                (entry,) = found
                return entry
            if time.monotonic() > deadline:
                raise AssertionError(f"task {task_id} was not quarantined")
            time.sleep(0.05)

    def publish_body(self, body: object, headers: dict) -> None:
        """Put any body, as JSON, on the queue."""
        with self.app.connection_for_write() as connection:
            Producer(connection).publish(
                json.dumps(body),
                exchange="",
                routing_key=self.queue,
                headers=headers,
                content_type="application/json",
                content_encoding="utf-8",
            )

    def close(self) -> None:
        """Close what was opened here."""
        self.app.close()
        self.notes.close()


def _load_probe(env: dict[str, str]) -> ModuleType:
    """Import the probe application once more, under this environment."""
    before = {name: os.environ.get(name) for name in env}
    hold, probe = refuse.HOLD_AT_MOST, refuse.PROBE_EVERY
    os.environ.update(env)
    try:
        # Named as the worker imports it, since task names come from it; not in sys.modules, since there are several.
        spec = importlib.util.spec_from_file_location(PROBE, HERE / "probe.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        # What it shortens is meant for the worker's process, and other tests run in this one.
        refuse.HOLD_AT_MOST, refuse.PROBE_EVERY = hold, probe
        for key, value in before.items():
            os.environ.pop(key) if value is None else os.environ.update({key: value})
    return module


@pytest.fixture(scope="module")
def new_rig(redis_url: str) -> Iterator[Callable[..., Rig]]:
    """Make rigs: ``new_rig(broker=…, PROBE_SECRETS="old,new")``."""
    with ExitStack() as stack:

        def make(broker: str | None = None, backend: str | None = None, **env: str) -> Rig:
            unique = uuid.uuid4().hex[:10]
            rig = Rig(
                {
                    "PROBE_BROKER": broker or redis_url,
                    "PROBE_BACKEND": backend or redis_url,
                    "PROBE_NOTES": redis_url,
                    "PROBE_QUEUE": f"probe-{unique}",
                    "PROBE_QUARANTINE": f"quarantine-{unique}",
                    **env,
                }
            )
            stack.callback(rig.close)
            return rig

        yield make
