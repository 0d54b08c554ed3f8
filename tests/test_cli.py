"""The command line as a whole: help, version, and what it says when something is missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tenantry.cli import app

SOURCE = Path(__file__).parent.parent / "src"


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tenantry", *words], capture_output=True, text=True, timeout=60
    )


def test_help_names_the_commands_and_the_exit_statuses() -> None:
    """One look tells what there is and what a script can rely on."""
    done = run("--help")
    assert done.returncode == 0
    assert "tenants" in done.stdout
    assert "quarantine" in done.stdout
    assert "Exit status" in done.stdout
    assert not done.stderr


@pytest.mark.parametrize("command", ["usage", "purge", "export", "import", "audit"])
def test_help_of_every_command(command: str) -> None:
    """Every command tells where it connects and what it does."""
    result = CliRunner().invoke(app, ["tenants", command, "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert "REDIS_URL" in result.output
    assert "--json" in result.output


def test_help_needs_no_redis() -> None:
    """The extra ``cli`` alone is enough to read about the commands."""
    program = (
        "import sys; sys.modules['redis'] = None; sys.modules['celery'] = None\n"
        "from tenantry.cli import main\nsys.argv = ['tenantry', 'tenants', *sys.argv[1:]]\nmain()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "--help"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "purge" in done.stdout
    done = subprocess.run(
        [sys.executable, "-c", program, "usage", "acme"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 3
    assert "pip install tenantry[redis]" in done.stderr
    assert "Traceback" not in done.stderr


def test_version_is_told() -> None:
    """Which release is this."""
    done = run("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("tenantry ")


def test_wrong_command_is_exit_status_2() -> None:
    """A typing error is not a failure of the server."""
    for words in (["tenant"], ["tenants", "purge"], ["tenants", "purge", "a", "--max-passes", "0"]):
        assert CliRunner().invoke(app, words).exit_code == 2


def test_missing_extra_is_named_without_a_traceback() -> None:
    """``python -m tenantry`` and the script say what to install."""
    program = (
        "import sys, runpy; sys.modules['typer'] = None; runpy.run_module('tenantry', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 3
    assert done.stderr.strip() == "the command line of tenantry needs typer: pip install tenantry[cli]"


def test_broken_transitive_import_is_not_masked() -> None:
    """Only the missing dependency itself is called a missing extra."""
    program = (
        "import sys; sys.modules['json.decoder'] = None; sys.modules.pop('json', None); import tenantry.cli"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "tenantry[cli]" not in done.stderr
