"""What `import tenantry` costs and loads."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Iterator

from benchmarks.measure import Row

_SOURCE = """
import sys, time
before = set(sys.modules)
start = time.process_time_ns()
import tenantry
taken = time.process_time_ns() - start
foreign = {name.partition(".")[0] for name in set(sys.modules) - before} - sys.stdlib_module_names - {"tenantry"}
print(taken / 1e6, ",".join(sorted(foreign)) or "-")
"""


def rows() -> Iterator[Row]:
    # As installed: with byte code, which the first run leaves for the others.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    runs = [
        subprocess.run(
            [sys.executable, "-c", _SOURCE], check=True, capture_output=True, text=True, env=environment
        ).stdout.split()
        for _ in range(16)
    ]
    times, foreign = [], set()
    for out in runs[1:]:
        times.append(float(out[0]))
        foreign.add(out[1])
    note = "standard library only" if foreign == {"-"} else f"loads {', '.join(foreign)}: MISSED"
    yield Row("import tenantry", statistics.median(times), unit="ms", limit=30, note=note)
