"""What the documentation says is run: every Python snippet of every page."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")]
PAGES = [page for page in sorted(SOURCES) if "```python" in page.read_text(encoding="utf-8")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_page_runs(page: Path, valkey_url: str, tmp_path: Path) -> None:
    """Each page runs in a process of its own, because it declares keys as an application does.

    ``REDIS_URL`` names a server that is the page's to fill.
    """
    path = os.pathsep.join([str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    done = subprocess.run(
        [sys.executable, "-m", "tests.page", str(page)],
        cwd=tmp_path,
        env={**os.environ, "REDIS_URL": valkey_url, "PYTHONPATH": _absolute(path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, f"{page}:\n{done.stderr}"


def _absolute(path: str) -> str:
    return os.pathsep.join(str(Path(entry).resolve()) for entry in path.split(os.pathsep) if entry)
