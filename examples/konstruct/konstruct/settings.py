"""What the environment decides, read once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Addresses, sizes and the tokens by which a caller proves who it acts for."""

    redis_url: str
    broker_url: str
    window_size: int
    window_ttl: int
    tokens: Mapping[str, str]

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Read ``REDIS_URL``, ``BROKER_URL`` and ``KONSTRUCT_*``; every one has a default but tokens."""
        redis_url = environment.get("REDIS_URL", "redis://127.0.0.1:6379/0")
        return cls(
            redis_url=redis_url,
            broker_url=environment.get("BROKER_URL", redis_url),
            window_size=int(environment.get("KONSTRUCT_WINDOW_SIZE", "20")),
            window_ttl=int(environment.get("KONSTRUCT_WINDOW_TTL", "86400")),
            tokens=_pairs(environment.get("KONSTRUCT_TOKENS", "")),
        )


def _pairs(text: str) -> dict[str, str]:
    """``acme=s3cret,globex=0ther`` as a mapping."""
    return dict(pair.split("=", 1) for pair in text.split(",") if pair)


settings = Settings.from_environment()
