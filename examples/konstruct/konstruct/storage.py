"""The Redis client of the application: guarded, so that a foreign key never reaches the server."""

from __future__ import annotations

import redis

from konstruct.settings import settings
from tenantry.integrations.redis import guard

client: redis.Redis = guard(redis.Redis.from_url(settings.redis_url, decode_responses=True))
