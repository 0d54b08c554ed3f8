"""``tenantry quarantine``, as an operator types it."""

from __future__ import annotations

import base64
import importlib
import json
import os
import pty
import re
import subprocess
import sys
import uuid
from contextlib import closing
from datetime import UTC, datetime

import pytest
from typer.testing import CliRunner

pytest.importorskip("celery")

from tenantry.cli import app as tenantry
from tenantry.integrations.celery import keep, quarantine

MODULE = """
from celery import Celery
from tenantry.integrations.celery import install
app = Celery("operated", broker={broker!r}, backend="cache+memory://", set_as_current=False)
app.conf.task_default_queue = {queue!r}
install(app, quarantine={queue!r} + "-kept")
bare = Celery("bare", broker="memory://", set_as_current=False)

@app.task(name="needs", shared=False)
def needs(): ...
"""


class Shell:
    """Runs the command line against one application with two refused messages."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.app = sys.modules[name].app

    def __call__(self, *words: str, answer: str = "", app: str | None = None):
        return CliRunner().invoke(
            tenantry, ["quarantine", *words, "--app", app or f"{self.name}:app"], input=answer
        )

    def keep(self, task_id, tenant) -> None:
        """Put a message into the quarantine as a worker would."""
        entry = keep.QuarantinedMessage(
            f"id-{task_id}", task_id, "needs", tenant, "because", "w@h", datetime.now(UTC), b"[[], {}, {}]",
            "application/json", "utf-8", {"task": "needs", "id": task_id}, {},
            {"exchange": "", "routing_key": self.name},
        )  # fmt: skip
        with closing(keep.Line(self.app)) as line:
            line.put(f"{self.name}-kept", entry)

    def left(self) -> list:
        """The ids that are still there."""
        return [entry.id for entry in quarantine(self.app).list()]

    def published(self) -> list:
        """Take off the wire what was sent again."""
        with self.app.connection_for_read() as connection:
            channel = connection.channel()
            queue = self.app.conf.task_default_queue
            self.app.amqp.queues[queue](channel).declare()
            return [m.headers for m in iter(lambda: channel.basic_get(queue, no_ack=True), None)]


@pytest.fixture
def shell(tmp_path, monkeypatch, redis_url):
    """Two messages: one that claims acme, one that claims nobody."""
    name = f"operated_{uuid.uuid4().hex[:8]}"
    (tmp_path / f"{name}.py").write_text(MODULE.format(broker=redis_url, queue=name))
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module(name)
    shell = Shell(name)
    for task_id, tenant in (("t1", "acme"), ("t2", None)):
        shell.keep(task_id, tenant)
    yield shell
    shell.app.close()


def test_list_shows_one_line_each(shell) -> None:
    """Id, claimed tenant, task and reason."""
    done = shell("list")
    assert done.exit_code == 0, done.output
    first, second = done.stdout.splitlines()
    assert re.fullmatch(r"id-t1  \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00  acme  needs\[t1\]  because", first)
    assert re.fullmatch(r"id-t2  [^ ]+  -  needs\[t2\]  because", second)
    assert shell("list", "--tenant", "globex").stdout == ""


def test_list_as_json_is_whole(shell) -> None:
    """One object a line, the body in base64."""
    done = shell("list", "--json", "--tenant", "acme")
    (entry,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert (entry["id"], entry["tenant"], entry["task"]) == ("id-t1", "acme", "needs")
    assert base64.b64decode(entry["body"]) == b"[[], {}, {}]"


def test_show(shell) -> None:
    """For people and for programs."""
    lines = shell("show", "id-t1").stdout.splitlines()
    assert lines[:5] == [
        "id:               id-t1",
        "task_id:          t1",
        "task:             needs",
        "tenant:           acme",
        "reason:           because",
    ]
    assert json.loads(shell("show", "id-t1", "--json").stdout)["headers"] == {"task": "needs", "id": "t1"}


def test_replay_needs_the_tenant_by_name(shell) -> None:
    """A wrong call without; nothing is read from anywhere else."""
    assert shell("replay", "id-t1").exit_code == 2
    assert shell.left() == ["id-t1", "id-t2"]


def test_replay_sends_and_removes(shell) -> None:
    """Under the named tenant."""
    done = shell("replay", "id-t2", "--tenant", "globex", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["id"] == "id-t2"
    assert [headers["tenantry"] for headers in shell.published()] == ["v1;globex"]
    assert shell.left() == ["id-t1"]


def test_what_was_done_is_said_to_people_on_stderr(shell) -> None:
    """So that stdout is for programs alone; they get the entry where they ask for it."""
    done = shell("replay", "id-t1", "--tenant", "acme")
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr.startswith("Replayed id-t1  ")
    done = shell("discard", "id-t2", "--reason", "a test")
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr.startswith("Discarded id-t2  ")
    shell.keep(None, None)
    assert "needs[-]" in shell("list").stdout
    done = shell("replay", "id-None", "--tenant", "acme")
    assert done.exit_code == 3
    assert "has no task id" in done.stderr
    done = shell("discard", "id-None", "--reason", "a test", "--json")
    assert json.loads(done.stdout)["id"] == "id-None"


def test_replay_of_another_tenants_message_needs_force(shell) -> None:
    """And says so."""
    done = shell("replay", "id-t1", "--tenant", "globex")
    assert done.exit_code == 3
    assert "acme" in done.stderr
    assert shell.left() == ["id-t1", "id-t2"]
    assert shell("replay", "id-t1", "--tenant", "globex", "--force").exit_code == 0
    assert shell.left() == ["id-t2"]


@pytest.mark.parametrize(
    ("more", "answer", "status", "left"),
    [([], b"y\n", 0, 1), ([], b"n\n", 1, 2), (["--yes"], b"n\n", 0, 1)],
    ids=["yes", "no", "unasked"],
)
def test_discard_asks_on_a_terminal(shell, more, answer, status, left) -> None:
    """A no leaves everything as it is."""
    words = ["discard", "id-t1", "--reason", "a test", *more, "--app", f"{shell.name}:app"]
    code = f"import sys; from tenantry.cli import main; sys.argv[1:] = {['quarantine', *words]!r}; main()"
    terminal, inside = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=inside,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as asked:
        os.write(terminal, answer)
        _, said = asked.communicate(timeout=60)
    os.close(inside)
    os.close(terminal)
    assert asked.returncode == status, said
    assert (b"Discard id-t1" in said) == (not more)
    assert len(shell.left()) == left


def test_discard_asks_nobody_where_there_is_no_terminal(shell) -> None:
    """The reason is the deliberate act of a script."""
    assert shell("discard", "id-t1", "--reason", "a test").exit_code == 0
    assert shell.left() == ["id-t2"]


def test_discard_needs_a_reason(shell) -> None:
    """With or without ``--yes``."""
    assert shell("discard", "id-t1").exit_code == 2
    assert shell("discard", "id-t1", "--yes").exit_code == 2
    assert shell("discard", "id-t1", "--yes", "--reason", " ").exit_code == 3
    assert shell("discard", "id-t1", "--yes", "--reason", "a test").exit_code == 0
    assert shell.left() == ["id-t2"]


@pytest.mark.parametrize(
    "words", [("show",), ("replay", "--tenant", "acme"), ("discard", "--yes", "--reason", "x")]
)
def test_unknown_id(shell, words) -> None:
    """Not done, and said in one line."""
    done = shell(words[0], "nope", *words[1:])
    assert done.exit_code == 3
    assert "nope" in done.stderr


@pytest.mark.parametrize(
    "app",
    ["", "celery", "nowhere_to_be_found:app", "nowhere_to_be.found:app", "celery:nothing", ":app", "celery:"],
    ids=repr,
)
def test_application_that_cannot_be_found(shell, app) -> None:
    """A wrong call."""
    done = shell("list", app=app or " ")
    assert done.exit_code == 2
    if not all(app.partition(":")[::2]):
        assert "name it as module:attribute" in done.stderr


def test_without_kombu_the_rest_of_the_command_line_works(shell, monkeypatch) -> None:
    """What is missing is said by the edge itself."""
    monkeypatch.setitem(sys.modules, "kombu.exceptions", None)
    assert shell("show", "id-t1").exit_code == 0
    assert shell("show", "nope").exit_code == 3


def test_application_without_tenantry(shell) -> None:
    """Its quarantine cannot be known."""
    done = shell("list", app=f"{shell.name}:bare")
    assert done.exit_code == 3
    assert "not installed" in done.stderr


@pytest.mark.parametrize("broker", ["redis://127.0.0.1:1/0", "amqp://guest:guest@127.0.0.1:1//"])
def test_broker_that_does_not_answer(shell, broker) -> None:
    """Not done, in one line, soon."""
    shell.app.conf.broker_url = broker
    for words in (("list",), ("show", "id-t1"), ("replay", "id-t1", "--tenant", "acme")):
        done = shell(*words)
        assert done.exit_code == 3
        assert "does not answer" in done.stderr


def test_invalid_tenant_is_a_wrong_call(shell) -> None:
    """As everywhere on this command line."""
    assert shell("list", "--tenant", "a:b").exit_code == 2
    assert shell("replay", "id-t1", "--tenant", "a:b").exit_code == 2


def test_application_may_be_an_attribute_of_an_attribute(shell, tmp_path, monkeypatch) -> None:
    """In a module of the working directory, which is not on the path of an installed command."""
    name = f"nested_{uuid.uuid4().hex[:8]}"
    (tmp_path / f"{name}.py").write_text(f"import {shell.name} as inner")
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(tmp_path)])
    monkeypatch.chdir(tmp_path)
    done = shell("list", app=f"{name}:inner.app")
    assert (done.exit_code, len(done.stdout.splitlines())) == (0, 2)
    assert sys.path[0] == str(tmp_path)
    assert shell("list", app=f"{name}:inner.app").exit_code == 0
    assert sys.path.count(str(tmp_path)) == 1


@pytest.mark.parametrize(
    ("content", "app", "status", "said"),
    [
        ("import nowhere_to_be_found", "{}:app", 3, "nowhere_to_be_found"),
        ("", "{}:app", 2, "has no 'app'"),
        ("", "{}.deeper:app", 2, "there is no module"),
        ("raise ImportError(name=None)", "{}:app", 3, ""),
    ],
)
def test_module_that_cannot_be_imported_is_told_from_one_that_is_not_there(
    shell, tmp_path, content, app, status, said
) -> None:
    """What is missing inside it is the module's own error."""
    name = f"broken_{uuid.uuid4().hex[:8]}"
    (tmp_path / f"{name}.py").write_text(content)
    done = shell("list", app=app.format(name))
    assert done.exit_code == status
    assert said in " ".join(done.stderr.split())


def test_without_a_command_there_is_help(shell) -> None:
    """Rather than nothing."""
    assert "Celery messages that may not run" in CliRunner().invoke(tenantry, ["quarantine"]).output
