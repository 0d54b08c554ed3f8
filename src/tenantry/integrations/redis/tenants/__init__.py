"""A tenant's keys as a whole: count, copy out, copy in, remove; and find what belongs to nobody.

For operators. Everything here is synchronous, takes the tenant as an argument and never reads the
active one, works on standalone servers, sentinel primaries and clusters through a guarded or an
unguarded client, streams, holds a page at a time in memory, and may be run again after it was
killed. It sees the client's database alone. None of it is a snapshot: keep the tenant's requests
and tasks away while you move or delete it.

With the tagged key layout on a cluster, the work is sent to the one node that holds the tenant, and
servers that scan by slot (Redis 7.4, Valkey 8 and newer) look at its keys alone. With the plain
layout every operation is a ``SCAN`` over all keys of all tenants.
"""

from __future__ import annotations

from tenantry.integrations.redis.tenants.exportfile import ExportFileError
from tenantry.integrations.redis.tenants.operations import audit, export, import_, purge, usage
from tenantry.integrations.redis.tenants.reports import (
    AuditReport,
    ExportReport,
    ImportReport,
    PurgeReport,
    Report,
    UsageReport,
)

__all__ = [
    "AuditReport",
    "ExportFileError",
    "ExportReport",
    "ImportReport",
    "PurgeReport",
    "Report",
    "UsageReport",
    "audit",
    "export",
    "import_",
    "purge",
    "usage",
]
