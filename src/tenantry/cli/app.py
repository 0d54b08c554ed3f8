"""The commands put together."""

from __future__ import annotations

import importlib.metadata
from typing import Annotated

import typer

from tenantry.cli.quarantine import quarantine_app
from tenantry.cli.tenants import tenants_app

__all__ = ["app", "main"]

app = typer.Typer(
    name="tenantry",
    help="Look after the tenants of a service: their keys in Redis, their tasks in Celery.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=(
        "Exit status: 0 done; 1 done, but something is left (keys that remain, orphans, keys that were "
        "skipped), or you said no; 2 wrong call; 3 not done: a server or a file; 130 interrupted."
    ),
)
app.add_typer(tenants_app, name="tenants")
app.add_typer(quarantine_app, name="quarantine")


def _version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it so
    if not wanted:
        return
    try:
        version = importlib.metadata.version("tenantry")
    except importlib.metadata.PackageNotFoundError:  # run from a source tree
        version = "unknown"
    typer.echo(f"tenantry {version}")
    raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Nothing of its own: the sub-commands do the work."""


def main() -> None:
    """Run the command line of this process."""
    app(prog_name="tenantry")
