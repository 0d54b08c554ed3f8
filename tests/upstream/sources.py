"""The tests of another project, from the source distribution of the release that is installed."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest


def unpacked(config: pytest.Config, project: str, *wanted: str) -> Path:
    """Return the folder with these top-level entries of ``project``, fetched once by pip.

    Never the package itself, which would be imported in the place of the installed one.
    """
    version = importlib.metadata.version(project)
    folder = Path(config.cache.mkdir("upstream"))  # type: ignore[union-attr]
    found = folder / f"{project}-{version}"
    if not found.exists():
        words = ["download", "--quiet", "--no-deps", "--no-binary", project, f"{project}=={version}"]
        subprocess.run([sys.executable, "-m", "pip", *words, "--dest", str(folder)], check=True)
        with tarfile.open(folder / f"{project}-{version}.tar.gz") as tar:
            members = [
                member
                for member in tar
                if member.name.split("/")[1:2] and member.name.split("/")[1] in wanted
            ]
            tar.extractall(folder, members, filter="data")
    return found
