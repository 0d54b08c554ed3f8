"""Print the table: `python -m benchmarks [name …]`. Never fails on a figure."""

from __future__ import annotations

import importlib
import pkgutil
import platform
import sys

import benchmarks

_NOT_ROWS = {"__main__", "measure"}


def main(names: list[str]) -> int:
    available = [
        module.name for module in pkgutil.iter_modules(benchmarks.__path__) if module.name not in _NOT_ROWS
    ]
    unknown = set(names) - set(available)
    if unknown:
        print(
            f"no such benchmark: {', '.join(sorted(unknown))}; there are {', '.join(available)}",
            file=sys.stderr,
        )
        return 2
    print(
        f"CPython {platform.python_version()}, {platform.machine()}, medians of CPU time unless a row says otherwise"
    )
    print(f"{'':<58}  {'tenantry':>15}  {'baseline':>15}")
    for name in names or available:
        module = importlib.import_module(f"benchmarks.{name}")
        if not hasattr(module, "rows"):
            continue
        for row in module.rows():
            print(row, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
