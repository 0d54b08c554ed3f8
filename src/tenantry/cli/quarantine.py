"""``tenantry quarantine``: the Celery messages that workers have refused to run."""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tenantry.cli.terminal import confirm, outcome, print_json, say

if TYPE_CHECKING:
    from tenantry.integrations.celery.keep import QuarantinedMessage
    from tenantry.integrations.celery.operate import Quarantine

__all__ = ["quarantine_app"]

quarantine_app = typer.Typer(
    help=(
        "Celery messages that may not run, since they name no tenant, or none that can be trusted.\n\n"
        "Nothing here reads the active tenant: say whose a message is with --tenant."
    ),
    no_args_is_help=True,
)

AppOption = Annotated[
    str,
    typer.Option("--app", "-A", metavar="MODULE:ATTRIBUTE", help="The Celery application."),
]
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The entry's id.")]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Write entries as JSON, one a line, bodies in base64.")
]


@quarantine_app.command("list")
def list_(
    app: AppOption,
    tenant: Annotated[
        str | None, typer.Option("--tenant", metavar="TENANT", help="Only messages that claim this tenant.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the messages, oldest first."""
    with _failures():
        for entry in _quarantine(app).list(tenant_id=tenant):
            if as_json:
                print_json(entry.as_json())
            else:
                typer.echo(_line(entry))


@quarantine_app.command()
def show(entry_id: IdArgument, app: AppOption, as_json: JsonOption = False) -> None:
    """Show one message whole."""
    with _failures():
        entry = _quarantine(app).show(entry_id)
        if as_json:
            print_json(entry.as_json())
            return
        for name, value in entry.as_json().items():
            typer.echo(f"{name + ':':<18}{value}")


@quarantine_app.command()
def replay(
    entry_id: IdArgument,
    app: AppOption,
    tenant: Annotated[str, typer.Option("--tenant", metavar="TENANT", help="Whose task it is.")],
    force: Annotated[bool, typer.Option("--force", help="Even though it claims another tenant.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Send a message again, as it is, under the named tenant, and remove it here."""
    with _failures():
        _done(_quarantine(app).replay(entry_id, tenant_id=tenant, force=force), "Replayed", as_json=as_json)


@quarantine_app.command()
def discard(
    entry_id: IdArgument,
    app: AppOption,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why it may be lost; logged.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove a message for good; asks first on a terminal."""
    with _failures():
        kept = _quarantine(app)
        entry = kept.show(entry_id)
        # The reason is the deliberate act; a script, whose stdin is no terminal, has nobody to ask.
        confirm(f"Discard {_line(entry)}?", yes=yes or not sys.stdin.isatty())
        _done(kept.discard(entry_id, reason=reason), "Discarded", as_json=as_json)


def _done(entry: QuarantinedMessage, what: str, *, as_json: bool) -> None:
    if as_json:
        print_json(entry.as_json())
    else:
        say(f"{what} {_line(entry)}")


def _line(entry: QuarantinedMessage) -> str:
    claimed = entry.tenant or "-"
    when = entry.time.isoformat(timespec="seconds")
    return f"{entry.id}  {when}  {claimed}  {entry.task}[{entry.task_id or '-'}]  {entry.reason}"


def _failures() -> Any:
    """Return what turns a broker's errors, and an id that there is not, into an exit status."""
    failures: list[type[Exception]] = [LookupError]
    try:
        from kombu.exceptions import KombuError, OperationalError
    except ImportError:
        return outcome(*failures)
    return outcome(*failures, KombuError, OperationalError)


def _quarantine(path: str) -> Quarantine:
    from tenantry.integrations.celery import quarantine

    return quarantine(_application(path))


def _application(path: str) -> Any:
    """Import what ``--app`` names, with the working directory on the import path, as Celery does."""
    module_name, _, attribute = path.partition(":")
    if not (module_name and attribute):
        raise typer.BadParameter("name it as module:attribute", param_hint="--app")
    if os.getcwd() not in sys.path:  # noqa: PTH109 - sys.path holds texts
        sys.path.insert(0, os.getcwd())  # noqa: PTH109
    try:
        found: Any = importlib.import_module(module_name)
        for name in attribute.split("."):
            found = getattr(found, name)
    except ModuleNotFoundError as error:
        if not (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise
        raise typer.BadParameter(f"there is no module {module_name!r}", param_hint="--app") from error
    except AttributeError as error:
        raise typer.BadParameter(f"{module_name} has no {attribute!r}", param_hint="--app") from error
    return found
