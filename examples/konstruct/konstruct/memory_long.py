"""Long-term memory: what users said, found again by meaning. No statement here names a tenant."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import text

from konstruct.database import engine
from konstruct.embeddings import embedder

_STORE = text("""
    INSERT INTO conversation_embeddings (message_id, agent_id, user_id, content, embedding)
    VALUES (:message_id, :agent_id, :user_id, :content, CAST(:embedding AS vector))
    ON CONFLICT DO NOTHING
""")
# The index finds candidates among the rows of all tenants and the policy filters them afterwards:
# without this, a small tenant would get fewer memories than it has.
_SCAN_ON = text("SET LOCAL hnsw.iterative_scan = strict_order")
_NEAREST = text("""
    SELECT content, embedding <=> CAST(:query AS vector) AS distance
    FROM conversation_embeddings
    WHERE agent_id = :agent_id AND user_id = :user_id
    ORDER BY embedding <=> CAST(:query AS vector)
    LIMIT :limit
""")
_SAID_ON = text("""
    SELECT user_id, content FROM conversation_embeddings
    WHERE created_at >= :day AND created_at < :next_day
    ORDER BY created_at, message_id
""")


@dataclass(frozen=True, slots=True)
class Memory:
    """A text and its cosine distance: 0 is the same direction, 1 is unrelated."""

    content: str
    distance: float


def store_embedding(agent_id: str, user_id: str, message_id: str, content: str) -> bool:
    """Remember a message, once however often it is delivered; says whether it was new."""
    row = {"message_id": message_id, "agent_id": agent_id, "user_id": user_id, "content": content}
    vector = _literal(embedder().embed(content))
    with engine.begin() as connection:
        return bool(connection.execute(_STORE, {**row, "embedding": vector}).rowcount)


def retrieve_relevant(agent_id: str, user_id: str, query: str, limit: int = 3) -> list[Memory]:
    """What this user told this agent that is nearest in meaning to ``query``, nearest first."""
    vector = _literal(embedder().embed(query))
    values = {"agent_id": agent_id, "user_id": user_id, "query": vector, "limit": limit}
    with engine.begin() as connection:
        connection.execute(_SCAN_ON)
        return [Memory(*row) for row in connection.execute(_NEAREST, values)]


def said_on(day: dt.date) -> list[tuple[str, str]]:
    """Who said what on a day (UTC), in order."""
    start = dt.datetime.combine(day, dt.time(), tzinfo=dt.UTC)
    values = {"day": start, "next_day": start + dt.timedelta(days=1)}
    with engine.begin() as connection:
        return [(row.user_id, row.content) for row in connection.execute(_SAID_ON, values)]


def _literal(vector: Sequence[float]) -> str:
    return f"[{','.join(f'{number:.7g}' for number in vector)}]"
