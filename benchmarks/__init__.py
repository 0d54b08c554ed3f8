"""One file per row of the table in docs/performance; `python -m benchmarks` prints it."""
