"""The command line: ``tenantry --help``.

Sub-commands import what they need when they run, so that ``--help`` works with the extra ``cli``
alone.
"""

from __future__ import annotations

try:
    import rich as _rich  # noqa: F401 - typer depends on it, and the progress bars are made of it
    import typer as _typer  # noqa: F401 - the dependency of this package
except ModuleNotFoundError as error:
    if error.name not in ("typer", "rich"):
        raise
    raise ImportError("the command line of tenantry needs typer: pip install tenantry[cli]") from error

from tenantry.cli.app import app, main

__all__ = ["app", "main"]
