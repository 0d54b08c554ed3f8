"""A token bucket per channel, refilled and drawn from in one atomic script."""

from __future__ import annotations

from konstruct import storage
from konstruct.settings import settings
from tenantry import keys

# The server's clock, because the clocks of web processes differ.
_TAKE = storage.client.register_script("""
local capacity, rate = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local bucket = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local tokens, at = tonumber(bucket[1]) or capacity, tonumber(bucket[2]) or now
tokens = math.min(capacity, tokens + math.max(0, now - at) * rate)
local wait = 0
if tokens >= 1 then tokens = tokens - 1 else wait = math.ceil((1 - tokens) / rate * 1000) end
redis.call('HSET', KEYS[1], 'tokens', tostring(tokens), 'at', string.format('%.6f', now))
redis.call('EXPIRE', KEYS[1], math.ceil(capacity / rate) + 1)
return wait
""")


def take(channel: str) -> float:
    """Take one token of the channel; the seconds to wait when there is none, else 0."""
    wait = _TAKE(
        keys=[keys.rate_limit(channel)],
        args=[settings.rate_capacity, settings.rate_per_second],
        client=storage.client,
    )
    return int(wait) / 1000
