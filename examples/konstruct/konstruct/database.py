"""The database engine of the application: every transaction belongs to the active tenant."""

from __future__ import annotations

from sqlalchemy import create_engine

from konstruct.settings import settings
from tenantry.integrations.sqlalchemy import check, install

engine = create_engine(settings.database_url, pool_pre_ping=True)
install(engine)


def ready() -> None:
    """Refuse to start on a role or a table that row-level security does not bind."""
    check(engine)
