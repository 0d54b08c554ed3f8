"""What the tenant operations report: after every page, and at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

__all__ = [
    "AuditReport",
    "ExportReport",
    "ImportReport",
    "Progress",
    "PurgeReport",
    "Report",
    "UsageReport",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How far an operation has come, or what it has done.

    Attributes:
        keys: Number of keys counted, removed, written or found.
        bytes: Their size in bytes: memory on the server as ``MEMORY USAGE`` estimates it (usage,
            purge; 0 where the server has no such command), or serialised size (export, import).
        passes: Passes over the keys that were begun.
        dry_run: Whether this was a rehearsal that changed nothing.
    """

    keys: int = 0
    bytes: int = 0
    passes: int = 0
    dry_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageReport(Report):
    """What a tenant holds.

    Attributes:
        by_type: Redis type (``"string"``, ``"hash"`` …) → number of keys; their sum is ``keys``.
    """

    by_type: Mapping[str, int] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class PurgeReport(Report):
    """What a purge removed.

    Attributes:
        remaining: Keys that the last pass still found. 0 means that one whole pass found nothing;
            more, that somebody still writes, or that this was a dry run.
    """

    remaining: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport(Report):
    """What an export wrote."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport(Report):
    """What an import wrote.

    Attributes:
        skipped: Keys that existed and were left as they are, for want of ``replace=True``; they
            are not in ``keys``.
    """

    skipped: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport(Report):
    """How far an audit has come; ``keys`` are those that belong to nobody.

    Attributes:
        scanned: Keys looked at.
    """

    scanned: int = 0


R = TypeVar("R", bound=Report)

Progress: TypeAlias = Callable[[R], object] | None
"""Called with a report after every page; what it raises ends the operation."""
