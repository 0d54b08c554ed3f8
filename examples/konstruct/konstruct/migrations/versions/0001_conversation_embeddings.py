"""The long-term memory: one table under forced row-level security, SELECT and INSERT only."""

from __future__ import annotations

from alembic import context, op

from tenantry.integrations.sqlalchemy import disable_row_security, enable_row_security, tenant_sql

revision = "0001"
down_revision = None

TABLE = "conversation_embeddings"


def upgrade() -> None:
    """Make the table, its indexes and its policy."""
    role = op.get_bind().dialect.identifier_preparer.quote(context.config.attributes["application_role"])
    op.execute("CREATE EXTENSION IF NOT EXISTS vector")
    op.execute(f"""
        CREATE TABLE {TABLE} (
            tenant_id text NOT NULL DEFAULT {tenant_sql()},
            message_id text NOT NULL,
            agent_id text NOT NULL,
            user_id text NOT NULL,
            content text NOT NULL,
            embedding vector(384) NOT NULL,
            created_at timestamptz NOT NULL DEFAULT now(),
            PRIMARY KEY (tenant_id, message_id)
        )
    """)
    op.execute(f"CREATE INDEX ON {TABLE} (tenant_id, agent_id, user_id)")
    op.execute(f"CREATE INDEX ON {TABLE} USING hnsw (embedding vector_cosine_ops)")
    for statement in enable_row_security(TABLE):
        op.execute(statement)
    op.execute(f"GRANT SELECT, INSERT ON {TABLE} TO {role}")


def downgrade() -> None:
    """Take it all away."""
    for statement in disable_row_security(TABLE):
        op.execute(statement)
    op.execute(f"DROP TABLE {TABLE}")
