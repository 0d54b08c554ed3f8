"""Run every Python snippet of one page, in order, in one namespace: ``python -m tests.page FILE``.

A snippet that begins with ``# name.py`` is saved under that name first, so that later ones import it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from sybil import Sybil
from sybil.example import Example
from sybil.parsers.myst import PythonCodeBlockParser, SkipParser

_FILE = re.compile(r"# (\w+\.py)\n")


def examples(page: Path) -> Iterator[Example]:
    """The snippets of a page, in order."""
    document = Sybil([PythonCodeBlockParser(), SkipParser()]).parse(page)
    document.namespace["__name__"] = "__page__"
    yield from document


def files(page: Path) -> dict[str, str]:
    """The snippets that are whole files, by name."""
    found = {}
    for example in examples(page):
        source = str(example.parsed)
        if name := _FILE.match(source):
            found[name[1]] = source
    return found


def main(page: Path, folder: Path) -> int:
    """Run the page; an error leaves with its traceback."""
    for name, source in files(page).items():
        (folder / name).write_text(source, encoding="utf-8")
    sys.path.insert(0, str(folder))
    count = 0
    for example in examples(page):
        if not _FILE.match(str(example.parsed)):
            example.evaluate()
            count += 1
    return count


if __name__ == "__main__":
    print(f"{main(Path(sys.argv[1]).resolve(), Path.cwd())} snippets ran")
