"""The active tenant in every record of :mod:`logging`, as attribute ``tenant``.

Enters: nowhere; this edge only reads.
Leaves: in attribute ``tenant`` of log records; ``-`` where no tenant is active.
Runs bound: nothing.
Tested with: CPython 3.11, 3.12, 3.13.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any, ClassVar

from tenantry.context import current_tenant_or_none

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["TenantFilter", "install", "uninstall"]

NO_TENANT = "-"
_FIELD = "tenant"


class TenantFilter(logging.Filter):
    """Give every record that passes the attribute ``tenant``; let all of them pass.

    A record that has the attribute keeps it: from ``extra={"tenant": …}``, from :func:`install`,
    or from this filter on a ``QueueHandler`` in front of a ``QueueListener``'s thread.

    Put it on a *handler*: logging asks the filters of a logger for its own records alone, not for
    those of its children. Behind a queue put it on the ``QueueHandler``, since the listener's
    thread has no tenant. :func:`install` needs neither care.

    Never raises, never drops a record. Thread-safe.
    """

    def __init__(self) -> None:
        super().__init__()

    def filter(self, record: logging.LogRecord) -> bool:
        """Set ``record.tenant`` if it has none, and return true."""
        try:
            if not hasattr(record, _FIELD):
                record.tenant = current_tenant_or_none() or NO_TENANT
        except Exception:  # noqa: BLE001, S110 - better a record without a tenant than a lost line
            pass
        return True


class _Fields(dict[str, Any]):
    """A record's ``__dict__`` that holds a tenant and still lets ``extra`` bring its own.

    ``Logger.makeRecord`` refuses an ``extra`` whose key is in the ``__dict__`` of the fresh
    record. It alone is told that the tenant is not there; its own value then replaces ours. For
    everybody else, formatters that read the mapping included, this is a plain ``dict``; it is
    copied and pickled as one.
    https://github.com/python/cpython/blob/v3.13.0/Lib/logging/__init__.py#L1643
    """

    __slots__ = ()

    def __contains__(self, key: object) -> bool:
        if not dict.__contains__(self, key):
            return False
        return key != _FIELD or _name_of_caller() != "makeRecord"

    def __reduce_ex__(self, protocol: object) -> tuple[type[dict[str, Any]], tuple[dict[str, Any]]]:
        return dict, (dict(self),)


def _name_of_caller() -> str:
    return sys._getframe(2).f_code.co_name


class _RecordFactory:
    """Makes records with the factory that was there before, and adds the tenant."""

    __slots__ = ("inner",)

    # Of all instances: one that lies below somebody else's factory cannot be taken out.
    enabled: ClassVar[bool] = False

    def __init__(self, inner: Callable[..., logging.LogRecord]) -> None:
        self.inner = inner

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        record = self.inner(*args, **kwargs)
        if not self.enabled:
            return record
        try:
            fields = _Fields(record.__dict__)
            if not hasattr(record, _FIELD):
                fields[_FIELD] = current_tenant_or_none() or NO_TENANT
            record.__dict__ = fields
        except Exception:  # noqa: BLE001, S110 - better a record without a tenant than a lost line
            pass
        return record


def install() -> Callable[[], None]:
    """Give every log record of this process the attribute ``tenant``, by logging's record factory.

    Covers all loggers and handlers, child loggers and queues included, on top of whatever record
    factory is set. A record that has a tenant keeps it, and ``extra={"tenant": …}`` wins. Calling
    it again changes nothing while it stands.

    Returns:
        :func:`uninstall`.

    Cost: about 1.5 µs a record, a tenth of formatting a line. Never raises while logging.
    Thread-safe.
    """
    _RecordFactory.enabled = True
    current = logging.getLogRecordFactory()
    if not isinstance(current, _RecordFactory):
        logging.setLogRecordFactory(_RecordFactory(current))
    return uninstall


def uninstall() -> None:
    """Take the record factory of :func:`install` out again. Calling it twice is fine.

    Where another factory was set on top of ours, ours stays below it and does nothing any more.
    """
    _RecordFactory.enabled = False
    current = logging.getLogRecordFactory()
    if isinstance(current, _RecordFactory):
        logging.setLogRecordFactory(current.inner)
