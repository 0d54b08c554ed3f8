"""What the environment decides, read once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Addresses, sizes, times in seconds, and the tokens by which a caller proves who it acts for."""

    redis_url: str
    operator_redis_url: str
    broker_url: str
    result_url: str
    database_url: str
    window_size: int
    window_ttl: int
    rate_capacity: float
    rate_per_second: float
    dedup_ttl: int
    routing_ttl: int
    engaged_ttl: int
    confirm_ttl: int
    visibility_timeout: int
    nightly_seconds: float
    embeddings: str
    page: bool
    secret_keys: tuple[str, ...]
    tokens: Mapping[str, str]

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Read the addresses and ``KONSTRUCT_*``; every one has a default but secrets and tokens."""
        get = environment.get
        redis_url = get("REDIS_URL", "redis://127.0.0.1:6379/0")
        broker_url = get("BROKER_URL", redis_url)
        return cls(
            redis_url=redis_url,
            operator_redis_url=get("OPERATOR_REDIS_URL", redis_url),
            broker_url=broker_url,
            result_url=get("RESULT_URL", redis_url),
            database_url=get("DATABASE_URL", "postgresql+psycopg://konstruct_app@127.0.0.1/konstruct"),
            window_size=int(get("KONSTRUCT_WINDOW_SIZE", "20")),
            window_ttl=int(get("KONSTRUCT_WINDOW_TTL", "86400")),
            rate_capacity=float(get("KONSTRUCT_RATE_CAPACITY", "30")),
            rate_per_second=float(get("KONSTRUCT_RATE_PER_SECOND", "10")),
            dedup_ttl=int(get("KONSTRUCT_DEDUP_TTL", "86400")),
            routing_ttl=int(get("KONSTRUCT_ROUTING_TTL", "30")),
            engaged_ttl=int(get("KONSTRUCT_ENGAGED_TTL", "1800")),
            confirm_ttl=int(get("KONSTRUCT_CONFIRM_TTL", "300")),
            visibility_timeout=int(get("KONSTRUCT_VISIBILITY_TIMEOUT", "3600")),
            nightly_seconds=float(get("KONSTRUCT_NIGHTLY_SECONDS", "0")),
            embeddings=get("KONSTRUCT_EMBEDDINGS", "minilm"),
            page=get("KONSTRUCT_PAGE", "") == "1",
            secret_keys=tuple(filter(None, get("KONSTRUCT_SECRET_KEYS", "").split(","))),
            tokens=_pairs(get("KONSTRUCT_TOKENS", "")),
        )


def _pairs(text: str) -> dict[str, str]:
    """``acme=s3cret,globex=0ther`` as a mapping."""
    return dict(pair.split("=", 1) for pair in text.split(",") if pair)


settings = Settings.from_environment()
