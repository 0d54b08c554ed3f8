"""Row-level security as it is often done: the tenant is set for the session, on a pooled connection."""

from __future__ import annotations

import os

from sqlalchemy import create_engine, text

engine = create_engine(
    os.environ.get("BEFORE_DATABASE_URL", "postgresql+psycopg://konstruct_app@127.0.0.1/before"),
    pool_size=1,
    max_overflow=0,
)
NOTES = text("SELECT content FROM before_notes")
# What the service's owner ran once.
SETUP = """
CREATE TABLE before_notes (tenant_id text, content text);
ALTER TABLE before_notes ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON before_notes USING (tenant_id = current_setting('app.tenant_id', true));
GRANT SELECT, INSERT ON before_notes TO {role};
CREATE TABLE before_messages (tenant_id text, content text);
GRANT SELECT, INSERT ON before_messages TO {role};
"""


def remember(owner: str, content: str) -> None:
    """Set the tenant, insert; the connection goes back to the pool with its session."""
    with engine.connect() as connection:
        connection.execute(text("SELECT set_config('app.tenant_id', :owner, false)"), {"owner": owner})
        for table in ("before_notes", "before_messages"):
            values = {"owner": owner, "content": content}
            connection.execute(text(f"INSERT INTO {table} VALUES (:owner, :content)"), values)
        connection.commit()


def everything_of_nobody() -> list[str]:
    """A query that sets no tenant, on the next checkout of the pool."""
    with engine.connect() as connection:
        return list(connection.execute(NOTES).scalars())


def search(words: str) -> list[str]:
    """The filter on the tenant belongs here, and somebody forgot it."""
    query = text("SELECT content FROM before_messages WHERE content LIKE :words")
    with engine.connect() as connection:
        return list(connection.execute(query, {"words": f"%{words}%"}).scalars())


def read_while_switching(first: str, second: str) -> list[str]:
    """Begin for one tenant, go on for another; only Python knows of the second."""
    with engine.connect() as connection:
        connection.execute(text("SELECT set_config('app.tenant_id', :owner, true)"), {"owner": first})
        current = second  # what a context variable would say now
        assert current == second
        return list(connection.execute(NOTES).scalars())
