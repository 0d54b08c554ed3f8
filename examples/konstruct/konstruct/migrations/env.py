"""Alembic's environment: the engine is the owner's, without tenantry, because it serves no tenant."""

from __future__ import annotations

from alembic import context

with context.config.attributes["engine"].begin() as connection:
    context.configure(connection=connection)
    context.run_migrations()
