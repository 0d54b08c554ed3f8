"""The types that users see, as mypy and pyright see them, both strict.

``tests/typing/accepted.py`` states the types; every line of ``refused.py`` that is ignored is an error, and
an ignore that is not needed is one, too.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDER = Path("tests") / "typing"


def check(tool: str, *args: str) -> None:
    if importlib.util.find_spec(tool) is None:
        if os.environ.get("TENANTRY_REQUIRE_SERVICES") == "1":
            pytest.fail(f"{tool} is not installed", pytrace=False)
        pytest.skip(f"{tool} is not installed")
    done = subprocess.run(
        [sys.executable, "-m", tool, *args],
        cwd=ROOT,
        env={**os.environ, "MYPYPATH": "src"},
        capture_output=True,
        text=True,
        timeout=170,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_mypy_sees_the_public_types() -> None:
    """In its strict mode, without this project's own configuration."""
    check("mypy", "--strict", "--config-file=", str(FOLDER))


def test_pyright_sees_the_public_types() -> None:
    """In its strict mode."""
    check("pyright", "--project", str(FOLDER), "--pythonpath", sys.executable)
