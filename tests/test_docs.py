"""What the documentation says is run: every Python snippet of every page."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import services

ROOT = Path(__file__).parent.parent
SOURCES = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")]
PAGES = [page for page in sorted(SOURCES) if "```python" in page.read_text(encoding="utf-8")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_page_runs(page: Path, tmp_path: Path) -> None:
    """Each page runs in a process of its own, because it declares keys as an application does.

    ``REDIS_URL`` names an empty server that is the page's to fill.
    """
    with services.valkey_server() as server:
        done = _run(page, tmp_path, server.url)
    assert done.returncode == 0, f"{page}:\n{done.stderr}"


def _run(page: Path, folder: Path, url: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    return subprocess.run(
        [sys.executable, "-m", "tests.page", str(page)],
        cwd=folder,
        env={**os.environ, "REDIS_URL": url, "PYTHONPATH": _absolute(path)},
        capture_output=True,
        text=True,
        timeout=240,
    )


def _absolute(path: str) -> str:
    return os.pathsep.join(str(Path(entry).resolve()) for entry in path.split(os.pathsep) if entry)
