"""EndpointRateLimiter: limits by path in front of one TokenBucketRateLimiter (contract section 4)."""

from __future__ import annotations

import weakref
from typing import Any

from peercore import _core
from peercore.ratelimit.config import RateLimitConfig
from peercore.ratelimit.limiter import TokenBucketRateLimiter, check_compat, native


def default_burst(requests_per_minute: int) -> int:
    """Burst size where none is given: a sixth of a minute's requests, at least 1 (fault F3)."""
    return max(1, int(requests_per_minute // 6))


class EndpointRateLimiter(_core.EndpointLimiter):
    """One bucket for each client and path, configured by path.

    default_rpm, default_burst: configuration of paths without a limit of their own.
    options: keyword arguments of TokenBucketRateLimiter, passed on (`max_buckets`, `clock`, `compat`, …).
    The inner limiter knows its owner, so a middleware given `_rate_limiter` applies these paths too (fault F8).
    """

    def __init__(self, default_rpm: int = 60, default_burst: int = 10, **options: Any) -> None:
        self._validate = not check_compat(options.get("compat"))
        self.default_config = RateLimitConfig(default_rpm, default_burst, validate=self._validate)
        self._endpoint_configs: dict[str, RateLimitConfig] = {}
        self._rate_limiter = TokenBucketRateLimiter(self.default_config, **options)
        self._rate_limiter._owner = weakref.ref(self)

    async def start(self) -> None:
        """Start the inner limiter's cleanup task."""
        await self._rate_limiter.start()

    async def stop(self) -> None:
        """Stop the inner limiter's cleanup task."""
        await self._rate_limiter.stop()

    def set_limit(self, path: str, requests_per_minute: int, burst_size: int | None = None) -> None:
        """Limit `path` (exact match). burst_size None: a sixth of the rate, at least 1.

        Raises ValueError for values out of range.
        """
        self._endpoint_configs[path] = RateLimitConfig(
            requests_per_minute=requests_per_minute,
            burst_size=default_burst(requests_per_minute) if burst_size is None else burst_size,
            key_prefix=f"rl:{path}",
            validate=self._validate,
        )

    def get_limit(self, path: str) -> RateLimitConfig:
        """The path's own configuration, or the `default_config` object itself."""
        config: RateLimitConfig = self._endpoint_configs.get(path, self.default_config)
        return config

    @native("endpoint_limiter.check")
    async def check(self, client_id: str, path: str) -> tuple[bool, dict[str, Any]]:
        """Judge one request of a client for a path: (allowed, info) as TokenBucketRateLimiter.check_rate_limit.

        The key is "<client_id>:<path>", the configuration that of the path.
        """
        limiter: TokenBucketRateLimiter = self._rate_limiter
        answer: tuple[bool, dict[str, Any]] = await limiter.check_rate_limit(
            f"{client_id}:{path}", self.get_limit(path)
        )
        return answer

    async def get_stats(self) -> dict[str, int]:
        """The inner limiter's counters, and `endpoint_configs`: how many paths have a limit of their own."""
        return {**await self._rate_limiter.get_stats(), "endpoint_configs": len(self._endpoint_configs)}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} endpoints={len(self._endpoint_configs)} {self._rate_limiter!r}>"


EndpointRateLimiter._bind(TokenBucketRateLimiter)
