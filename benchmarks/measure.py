"""How every figure is taken: candidate and baseline in turn, in one process, CPU time, medians."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import repeat

Batch = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    ``value`` and ``baseline`` are medians in ``unit``; ``target`` is the ratio that was promised, or
    ``None`` where the figure is reported beside others.
    """

    name: str
    value: float
    baseline: float | None = None
    unit: str = "ns"
    target: float | None = None
    limit: float | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        return None if self.baseline is None else self.value / self.baseline

    def __str__(self) -> str:
        cells = [f"{self.name:<58}", f"{self.value:>10,.1f} {self.unit:<4}"]
        verdicts = []
        if self.ratio is not None:
            cells.append(f"{self.baseline:>10,.1f} {self.unit:<4} {self.ratio:>6.2f}x")
        if self.target is not None and self.ratio is not None:
            verdicts.append(f"target {self.target:g}x {'met' if self.ratio <= self.target else 'MISSED'}")
        if self.limit is not None:
            verdicts.append(
                f"limit {self.limit:g} {self.unit} {'met' if self.value <= self.limit else 'MISSED'}"
            )
        return "  ".join([*cells, "; ".join(verdicts), self.note]).rstrip()


def calls(function: Callable[..., object], *args: object) -> Batch:
    """Return a batch that calls ``function(*args)`` in a bare loop."""

    def batch(count: int) -> None:
        for _ in repeat(None, count):
            function(*args)

    return batch


def nothing(count: int) -> None:
    """The bare loop, to be taken off."""
    for _ in repeat(None, count):
        pass


def medians(*batches: Batch, count: int, rounds: int = 25, net_of: Batch | None = nothing) -> list[float]:
    """Return the median CPU time of one iteration of each batch, in ns, net of the bare loop.

    The batches take turns, so that whatever the machine does beside falls on all of them.
    """
    taken: list[list[float]] = [[] for _ in batches]
    loops: list[float] = []
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            loops.append(_timed(net_of, count) if net_of else 0.0)
            for times, batch in zip(taken, batches, strict=True):
                times.append(_timed(batch, count))
    finally:
        gc.enable()
    loop = statistics.median(loops)
    return [statistics.median(times) - loop for times in taken]


def against_first(first: Batch, *batches: Batch, count: int, rounds: int) -> list[float]:
    """Return the median CPU time of one iteration of ``first``, in ns, and of each other its equivalent.

    Of the ratios round by round, since what the machine does beside falls on both halves of each: for what
    costs so much that the difference is small beside the noise.
    """
    base: list[float] = []
    ratios: list[list[float]] = [[] for _ in batches]
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            base.append(_timed(first, count))
            for mine, batch in zip(ratios, batches, strict=True):
                mine.append(_timed(batch, count) / base[-1])
    finally:
        gc.enable()
    middle = statistics.median(base)
    return [middle, *(middle * statistics.median(mine) for mine in ratios)]


def _timed(batch: Batch, count: int) -> float:
    start = time.process_time_ns()
    batch(count)
    return (time.process_time_ns() - start) / count
