"""Plain stand-in with the names that the other services of this stack use: a bucket of `burst_size` tokens per key."""

import time
from dataclasses import dataclass


@dataclass
class RateLimitConfig:
    requests_per_minute: int = 60
    burst_size: int = 10
    window_seconds: int = 60
    key_prefix: str = "rl"


class TokenBucketRateLimiter:
    def __init__(self, default_config=None, cleanup_interval=300):
        self.default_config = default_config or RateLimitConfig()
        self._cleanup_interval = cleanup_interval
        self._buckets = {}

    async def check_rate_limit(self, key, config=None):
        config = config or self.default_config
        now = time.time()
        tokens, last_update = self._buckets.get(key, (float(config.burst_size), now))
        tokens = min(config.burst_size, tokens + (now - last_update) * config.requests_per_minute / 60)
        allowed = tokens >= 1
        self._buckets[key] = (tokens - 1 if allowed else tokens, now)
        return allowed, {"limit": config.requests_per_minute, "remaining": int(tokens)}


_default_limiter = None


def get_rate_limiter():
    global _default_limiter
    if _default_limiter is None:
        _default_limiter = TokenBucketRateLimiter()
    return _default_limiter
