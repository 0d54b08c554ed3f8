"""Beat: schedules that could not be published end it at its start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import services

ROOT = Path(__file__).parents[3]
APP = """
import os
from celery import Celery
from tenantry import current_tenant_or_none
from tenantry.integrations.celery import install
app = Celery("beaten", broker=os.environ["BROKER"], backend=os.environ["BROKER"])
app.conf.update(task_default_queue=os.environ["QUEUE"], broker_connection_retry_on_startup=True)
install(app, secret_keys="a key", quarantine=os.environ["QUEUE"] + "-kept")

@app.task(name="needs")
def needs():
    import redis
    redis.Redis.from_url(os.environ["BROKER"]).rpush(os.environ["QUEUE"] + "-seen", current_tenant_or_none() or "-")

@app.task(name="free", tenancy="none")
def free(): ...

GOOD = {
    "named": {"task": "needs", "schedule": 0.2, "options": {"tenant": "acme"}},
    "free": {"task": "free", "schedule": 60.0},
}
BAD = {
    "nameless": {"task": "needs", "schedule": 60.0},
    "unknown": {"task": "somewhere.else", "schedule": 60.0},
    "malformed": {"task": "free", "schedule": 60.0, "options": {"tenant": "a:b"}},
    "by-header": {"task": "needs", "schedule": 60.0, "options": {"headers": {"tenantry": "v1;acme"}}},
    "map": {"task": "celery.map", "schedule": 60.0, "args": ({"task": "needs"}, [1])},
    "linked": {"task": "free", "schedule": 60.0, "options": {"link": {"task": "needs"}}},
}
app.conf.beat_schedule = GOOD | (BAD if os.environ["BAD"] == "1" else {})
if os.environ["BAD"] == "1":
    @app.on_after_finalize.connect
    def add(sender, **_):
        sender.add_periodic_task(60.0, needs.s(), name="added")
"""


@pytest.fixture
def run(tmp_path, redis_url):
    """Start ``celery`` with the application above."""
    (tmp_path / "beaten.py").write_text(APP)
    queue = f"beat-{tmp_path.name}"
    env = {**os.environ, "BROKER": redis_url, "QUEUE": queue, "C_FORCE_ROOT": "1"}
    env["PYTHONPATH"] = os.pathsep.join([str(tmp_path), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])

    def start(*words: str, bad: bool):
        command = [sys.executable, "-m", "celery", "-A", "beaten", *words]
        settings = {**env, "BAD": "1" if bad else "0"}
        with (tmp_path / "log").open("ab") as log:
            return subprocess.Popen(
                command, stdout=log, stderr=log, cwd=tmp_path, env=settings, start_new_session=True
            )

    start.log = lambda: (tmp_path / "log").read_text()
    start.queue = queue
    return start


@pytest.mark.parametrize(
    "words", [("beat", "-s", "schedule.db"), ("worker", "-B", "-c", "1", "-s", "schedule.db")]
)
def test_schedule_with_entries_that_name_no_tenant_ends_beat(run, words) -> None:
    """Exit status 1, and every such entry is named; an embedded beat takes its worker along."""
    process = run(*words, bad=True)
    try:
        assert process.wait(60) == 1
    finally:
        services.stop(process)
    log = run.log()
    for name in ("nameless", "unknown", "malformed", "by-header", "map", "linked", "added"):
        assert repr(name) in log
    for name in ("named", "free"):
        assert f"beat entry {name!r}" not in log
    assert " ready." not in log


@pytest.mark.parametrize(
    "words", [("beat", "-s", "schedule.db"), ("worker", "-B", "-c", "1", "-s", "schedule.db")]
)
def test_entry_that_names_a_tenant_is_published_under_it(run, words, redis_url) -> None:
    """Signed like any other message, and run."""
    import redis

    with redis.Redis.from_url(redis_url, decode_responses=True, socket_timeout=None) as client:
        processes = [
            run(*words, "-l", "INFO", *(("-Q", run.queue) if words[0] == "worker" else ()), bad=False)
        ]
        if words[0] == "beat":
            processes.append(run("worker", "-c", "1", "-Q", run.queue, bad=False))
        try:
            seen = client.blpop([f"{run.queue}-seen"], timeout=60)
        finally:
            for process in processes:
                services.stop(process)
    assert seen is not None, run.log()
    assert seen[1] == "acme"
