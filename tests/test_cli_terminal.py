"""How commands speak: what goes to which stream, what the exit statuses are, and how the bar moves."""

from __future__ import annotations

import io
import sys
from typing import Any

import pytest
import typer
from rich.console import Console
from rich.progress import Progress
from typer.testing import CliRunner, Result

from tenantry.cli.terminal import Status, Step, confirm, finish, outcome, print_json, progress, say
from tenantry.errors import InvalidTenantIdError, KeySchemaError, NoTenantError


def run(body: Any, answer: str | None = None) -> Result:
    """Run ``body`` as a command of its own."""
    app = typer.Typer()
    app.command()(lambda: body())
    return CliRunner().invoke(app, input=answer)


def test_exit_statuses_are_what_the_help_says() -> None:
    """Scripts rely on the numbers."""
    assert {status.name: status.value for status in Status} == {
        "DONE": 0,
        "LEFT": 1,
        "WRONG_CALL": 2,
        "FAILED": 3,
        "INTERRUPTED": 130,
    }


def test_results_go_to_stdout_and_talk_to_stderr() -> None:
    """So that a result can be piped."""

    def body() -> None:
        print_json({"a": [1, None]})
        say("talk")
        finish(Status.FAILED)

    result = run(body)
    assert (result.stdout, result.stderr, result.exit_code) == ('{"a": [1, null]}\n', "talk\n", 3)


@pytest.mark.parametrize(("answer", "goes_on"), [("y\n", True), ("n\n", False), ("", False)])
def test_confirm_asks_on_stderr_and_takes_silence_for_a_no(answer: str, goes_on: bool) -> None:
    """Whatever is piped out of stdout holds no question."""
    result = run(lambda: (confirm("Really?", yes=False), print_json("on")), answer)
    assert result.stdout == ('"on"\n' if goes_on else "")
    assert result.stderr.startswith("Really? [y/N]:")
    assert result.exit_code == (0 if goes_on else 1)
    assert ("Nothing was done" in result.stderr) != goes_on
    assert answer or result.stderr.startswith("Really? [y/N]: \n"), "the answer that never came ends its line"


def test_confirm_of_a_yes_does_not_ask() -> None:
    """``--yes`` stands for the answer."""
    result = run(lambda: confirm("Really?", yes=True))
    assert (result.output, result.exit_code) == ("", 0)


class LibraryError(Exception):
    """A failure as a library says it."""


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidTenantIdError("a b", "no white space"), 2),
        (KeySchemaError("twice"), 2),
        (NoTenantError("x"), 3),
        (OSError("disk"), 3),
        (RuntimeError("moved"), 3),
        (ValueError("max"), 3),
        (ImportError("extra"), 3),
        (LibraryError("refused"), 3),
        (KeyboardInterrupt(), 130),
        (typer.Exit(7), 7),
    ],
    ids=lambda value: type(value).__name__,
)
def test_outcome_turns_what_went_wrong_into_a_line_and_a_status(error: BaseException, status: int) -> None:
    """No traceback, and nothing on stdout."""

    def body() -> None:
        with outcome(LibraryError):
            raise error

    result = run(body)
    assert (result.exit_code, result.stdout) == (status, "")
    if status in (2, 3):
        assert result.stderr == f"tenantry: {error}\n"
    else:
        assert ("run the command again" in result.stderr) == (status == 130)


def test_outcome_leaves_alone_what_nobody_expected() -> None:
    """A bug shows its traceback."""
    with pytest.raises(LibraryError, match="bug"), outcome():
        raise LibraryError("bug")


def test_outcome_of_an_abort_is_typers_own() -> None:
    """It is a RuntimeError too, and no failure of ours."""
    with pytest.raises(typer.Abort), outcome():
        raise typer.Abort


# --- the bar --------------------------------------------------------------------------------------


def bar() -> Progress:
    return Progress(console=Console(file=io.StringIO(), force_terminal=True))


def test_step_moves_by_what_was_done_and_begins_anew_at_the_end() -> None:
    """A purge passes over the keys more than once."""
    shown = bar()
    step = Step(shown, "Removing", 2500)
    (task,) = shown.tasks
    assert (task.description, task.total, task.completed, task.fields["note"]) == ("Removing", 2500, 0, "")
    for note, completed in (("1", 1000), ("2", 2000), ("3", 1000), ("4", 2000)):
        step.advance(1000, note)
        assert (task.completed, task.fields["note"]) == (completed, note)


def test_step_of_less_than_a_page_is_full_at_once() -> None:
    """And a page that fills the total to the brim is no new beginning."""
    few, brim = bar(), bar()
    Step(few, "", 10).advance(1000, "")
    assert few.tasks[0].completed == 10
    step = Step(brim, "", 2000)
    for completed in (1000, 2000, 1000):
        step.advance(1000, "")
        assert brim.tasks[0].completed == completed


def test_step_without_a_total_only_moves() -> None:
    """Where nobody knows how much there is."""
    shown = bar()
    step = Step(shown, "Looking", None)
    for completed in (1000, 2000):
        step.advance(1000, "")
        assert shown.tasks[0].completed == completed
    assert shown.tasks[0].total is None


class Terminal(io.StringIO):
    """A stderr that somebody looks at."""

    def isatty(self) -> bool:
        return True


def test_progress_shows_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its label and note while the block runs; nothing of it stays."""
    stderr = Terminal()
    monkeypatch.setattr(sys, "stderr", stderr)
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    with progress("Counting", lambda: 10) as step:
        step.advance(1000, "10 keys")
    assert "Counting" in stderr.getvalue()
    assert "10 keys" in stderr.getvalue()
    assert "\x1b[2K" in stderr.getvalue().rpartition("10 keys")[2], "the line is erased"


def test_progress_is_silent_where_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """And then does not ask how much there is, which may cost a round trip."""
    stderr = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)

    def never() -> int:
        raise AssertionError("asked for the total")

    with progress("Counting", never) as step:
        step.advance(1000, "10 keys")
    assert stderr.getvalue() == ""
