"""How commands speak: results on stdout, everything else on stderr, and what exit statuses mean."""

from __future__ import annotations

import contextlib
import json
import sys
from enum import IntEnum
from functools import partial
from typing import TYPE_CHECKING, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from tenantry.errors import InvalidTenantIdError, KeySchemaError, TenancyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Status", "Step", "confirm", "finish", "outcome", "print_json", "progress", "say"]


class Status(IntEnum):
    """The exit statuses of every command."""

    DONE = 0
    LEFT = 1
    WRONG_CALL = 2
    FAILED = 3
    INTERRUPTED = 130


def say(text: str) -> None:
    """Write a line for people to stderr."""
    typer.echo(text, err=True)


def print_json(content: object) -> None:
    """Write one JSON value on one line to stdout."""
    typer.echo(json.dumps(content))


def finish(status: Status) -> NoReturn:
    """End the command with ``status``."""
    raise typer.Exit(int(status))


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something is destroyed; a no, or nobody there to ask, ends the command."""
    if yes:
        return
    try:
        with contextlib.redirect_stdout(sys.stderr):  # where a part of the prompt goes in any case
            agreed = typer.confirm(question, err=True)
    except typer.Abort:
        say("")
        agreed = False
    if not agreed:
        say("Nothing was done. --yes goes ahead without the question.")
        finish(Status.LEFT)


@contextlib.contextmanager
def outcome(*failures: type[Exception]) -> Iterator[None]:
    """Turn what may go wrong into a line on stderr and an exit status.

    Args:
        failures: What else means that a command has failed, as the command's libraries say it.
    """
    expected: tuple[type[Exception], ...] = (
        TenancyError,
        OSError,
        RuntimeError,
        ValueError,
        ImportError,
        *failures,
    )
    try:
        yield
    except (typer.Exit, typer.Abort):
        raise  # typer's own, and RuntimeErrors
    except (InvalidTenantIdError, KeySchemaError) as error:
        _end(error, Status.WRONG_CALL)
    except expected as error:
        _end(error, Status.FAILED)
    except KeyboardInterrupt:
        say("Interrupted. What was done is done; run the command again to go on.")
        finish(Status.INTERRUPTED)


def _end(error: Exception, status: Status) -> NoReturn:
    say(f"tenantry: {error}")
    finish(status)


class Step:
    """The moving line of one command; silent where stderr is no terminal."""

    def __init__(self, bar: Progress | None, label: str, total: int | None) -> None:
        self._show = partial(bar.update, bar.add_task(label, total=total, note="")) if bar else None
        self._total = total
        self._done = 0

    def advance(self, amount: int, note: str) -> None:
        """Move on by ``amount`` of the total and show ``note``; begin anew at the end of the total."""
        if self._show is None:
            return
        self._done += amount
        if self._total is not None and self._done > self._total:
            self._done = min(amount, self._total)
        self._show(completed=self._done, note=note)


@contextlib.contextmanager
def progress(label: str, total: Callable[[], int | None]) -> Iterator[Step]:
    """Show a bar on stderr while the block runs; without a ``total`` it only moves."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Step(None, label, None)
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        yield Step(bar, label, total())
