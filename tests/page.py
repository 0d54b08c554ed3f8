"""Run every Python snippet of one page, in order, in one namespace: ``python -m tests.page FILE``."""

from __future__ import annotations

import sys
from pathlib import Path

from sybil import Sybil
from sybil.parsers.myst import PythonCodeBlockParser, SkipParser


def main(path: str) -> int:
    """Run the page; an error leaves with its traceback."""
    document = Sybil([PythonCodeBlockParser(), SkipParser()]).parse(Path(path))
    document.namespace["__name__"] = "__page__"
    examples = list(document)
    for example in examples:
        example.evaluate()
    return len(examples)


if __name__ == "__main__":
    print(f"{main(sys.argv[1])} snippets ran")
