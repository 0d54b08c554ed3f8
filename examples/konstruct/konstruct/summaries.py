"""A tenant's day in one line, kept under a key that the application declares itself."""

from __future__ import annotations

import datetime as dt
from collections import Counter

from konstruct import memory_long, storage
from tenantry.keys import key

KEPT = dt.timedelta(days=30)


@key("summary:{day}")
def summary(day: str) -> str:
    """String: the summary of one day, ISO date."""
    raise NotImplementedError


def write(day: dt.date) -> str:
    """Summarise what was said on a day; writing it again gives the same."""
    said = memory_long.said_on(day)
    busiest = Counter(user for user, _ in said).most_common(1)
    line = f"{len(said)} messages"
    if busiest:
        line += f", most from {busiest[0][0]}; last: “{said[-1][1]}”"
    storage.client.set(summary(day.isoformat()), line, ex=KEPT)
    return line


def read(day: str) -> str | None:
    """The summary of a day, if it was written."""
    line = storage.client.get(summary(day))
    return None if line is None else str(line)
