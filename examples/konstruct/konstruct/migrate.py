"""Bring the database up to date: ``python -m konstruct.migrate``, run by the owner of the tables."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from alembic import command
from alembic.config import Config
from psycopg import sql
from sqlalchemy import Engine, create_engine, make_url

from konstruct.settings import settings


def main() -> int:
    """Make the application's role if it is missing, then run the migrations."""
    owner = os.environ.get("MIGRATION_DATABASE_URL")
    if not owner:
        print("MIGRATION_DATABASE_URL names no database", file=sys.stderr)
        return 2
    application = make_url(settings.database_url)
    engine = create_engine(owner)
    _make_role(engine, application.username or "", application.password)
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes.update(engine=engine, application_role=application.username)
    command.upgrade(config, "head")
    engine.dispose()
    print(f"migrated; {application.username} may SELECT and INSERT")
    return 0


def _make_role(engine: Engine, name: str, password: str | None) -> None:
    pooled = engine.raw_connection()
    try:
        connection = pooled.driver_connection
        known = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [name]).fetchone()
        if known is None:
            options = sql.SQL("LOGIN NOSUPERUSER NOBYPASSRLS PASSWORD {}")
            role = sql.SQL("CREATE ROLE {} ").format(sql.Identifier(name))
            connection.execute(role + options.format(sql.Literal(password)))
        connection.commit()
    finally:
        pooled.close()


if __name__ == "__main__":
    sys.exit(main())
