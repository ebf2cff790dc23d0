"""The v1.2 rate limiter in plain Python: what the native one is measured and compared with.

Written from the contract (rate_limiter, sections 1-6), with the v1.2 faults wherever they are behaviour: wall clock,
one asyncio lock for all keys, ``HTTPException`` raised inside ``BaseHTTPMiddleware``, a limiter per call in the
decorator, integer ``retry_after``. It does v1.2's work the straightforward way, neither slowed down nor doing less.
The one thing left out is ``logging.basicConfig`` at import, which would reconfigure the process that imports this.

Needs FastAPI at import, as v1.2 does. All times are seconds since the Unix epoch.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from fastapi import Depends, HTTPException, Request
from starlette.middleware.base import BaseHTTPMiddleware

logger = logging.getLogger(__name__)

DEFAULT_EXCLUDED = ("/health", "/docs", "/openapi.json")


@dataclass
class RateLimitConfig:
    """Rate, capacity and reporting window of a bucket (contract section 2)."""

    requests_per_minute: int = 60
    burst_size: int = 10
    window_seconds: int = 60
    key_prefix: str = "rl"

    def __post_init__(self) -> None:
        self.refill_rate = self.requests_per_minute / 60.0


@dataclass
class RateLimitState:
    """One bucket (contract section 2)."""

    tokens: float = 0.0
    last_update: float = field(default_factory=lambda: time.time())
    request_count: int = 0
    window_start: float = field(default_factory=lambda: time.time())


class TokenBucketRateLimiter:
    """Token buckets by key (contract section 3)."""

    def __init__(self, default_config: RateLimitConfig | None = None, cleanup_interval: int = 300) -> None:
        self.default_config = default_config or RateLimitConfig()
        self._buckets: dict[Any, RateLimitState] = {}
        self._configs: dict[Any, RateLimitConfig] = {}
        self._cleanup_task: asyncio.Task[None] | None = None
        self._cleanup_interval = cleanup_interval
        self._stats = {"allowed": 0, "denied": 0, "cleaned": 0}
        self._lock = asyncio.Lock()

    async def start(self) -> None:
        if self._cleanup_task is None:
            self._cleanup_task = asyncio.create_task(self._cleanup_loop())

    async def stop(self) -> None:
        if self._cleanup_task is not None:
            self._cleanup_task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._cleanup_task
            self._cleanup_task = None

    def set_config(self, key: str, config: RateLimitConfig) -> None:
        self._configs[key] = config

    def get_config(self, key: str) -> RateLimitConfig:
        return self._configs.get(key, self.default_config)

    async def check_rate_limit(self, key: str, config: RateLimitConfig | None = None) -> tuple[bool, dict[str, Any]]:
        """Take one token from the bucket of `key`; return (admitted, info) as in contract 3.1."""
        config = config or self.get_config(key)
        async with self._lock:
            now = time.time()
            bucket = self._buckets.get(key)
            if bucket is None:
                bucket = RateLimitState(tokens=config.burst_size, last_update=now, window_start=now)
                self._buckets[key] = bucket

            elapsed = now - bucket.last_update
            bucket.tokens = min(config.burst_size, bucket.tokens + elapsed * config.refill_rate)
            bucket.last_update = now
            if now - bucket.window_start > config.window_seconds:
                bucket.window_start = now
                bucket.request_count = 0

            admitted = bucket.tokens >= 1.0
            if admitted:
                bucket.tokens -= 1.0
                bucket.request_count += 1
                self._stats["allowed"] += 1
            else:
                self._stats["denied"] += 1

            info = {
                "limit": config.requests_per_minute,
                "remaining": int(bucket.tokens) if admitted else 0,
                "reset_at": bucket.window_start + config.window_seconds,
                "window": config.window_seconds,
            }
            if not admitted:
                info["retry_after"] = int((1.0 - bucket.tokens) / config.refill_rate) + 1
            return admitted, info

    async def get_stats(self) -> dict[str, int]:
        return {**self._stats, "active_buckets": len(self._buckets)}

    async def reset(self, key: str | None = None) -> None:
        async with self._lock:
            if key:
                self._buckets.pop(key, None)
            else:
                self._buckets.clear()

    async def _cleanup_loop(self) -> None:
        while True:
            try:
                await asyncio.sleep(self._cleanup_interval)
                await self._cleanup_old_buckets()
            except asyncio.CancelledError:
                raise
            except Exception as error:
                logger.error("Rate limiter cleanup failed: %s", error)

    async def _cleanup_old_buckets(self) -> int:
        async with self._lock:
            now = time.time()
            idle = 2 * self._cleanup_interval
            old = [key for key, bucket in self._buckets.items() if now - bucket.last_update > idle]
            for key in old:
                del self._buckets[key]
            self._stats["cleaned"] += len(old)
            return len(old)


class EndpointRateLimiter:
    """Limits per path on top of one `TokenBucketRateLimiter` (contract section 4)."""

    def __init__(self, default_rpm: int = 60, default_burst: int = 10) -> None:
        self.default_config = RateLimitConfig(requests_per_minute=default_rpm, burst_size=default_burst)
        self._endpoint_configs: dict[str, RateLimitConfig] = {}
        self._rate_limiter = TokenBucketRateLimiter(self.default_config)

    async def start(self) -> None:
        await self._rate_limiter.start()

    async def stop(self) -> None:
        await self._rate_limiter.stop()

    def set_limit(self, path: str, requests_per_minute: int, burst_size: int | None = None) -> None:
        self._endpoint_configs[path] = RateLimitConfig(
            requests_per_minute=requests_per_minute,
            burst_size=burst_size or requests_per_minute // 6,
            key_prefix=f"rl:{path}",
        )

    def get_limit(self, path: str) -> RateLimitConfig:
        return self._endpoint_configs.get(path, self.default_config)

    async def check(self, client_id: str, path: str) -> tuple[bool, dict[str, Any]]:
        return await self._rate_limiter.check_rate_limit(f"{client_id}:{path}", self.get_limit(path))

    async def get_stats(self) -> dict[str, int]:
        stats = await self._rate_limiter.get_stats()
        stats["endpoint_configs"] = len(self._endpoint_configs)
        return stats


class RateLimitMiddleware(BaseHTTPMiddleware):
    """Limits every HTTP request by client and path (contract section 5)."""

    def __init__(
        self,
        app: Any,
        rate_limiter: TokenBucketRateLimiter,
        key_func: Callable[[Request], str] | None = None,
        exclude_paths: list[str] | None = None,
        include_headers: bool = True,
    ) -> None:
        super().__init__(app)
        self.rate_limiter = rate_limiter
        self.key_func = key_func or self._default_key_func
        self.exclude_paths = set(exclude_paths or DEFAULT_EXCLUDED)
        self.include_headers = include_headers

    @staticmethod
    def _default_key_func(request: Request) -> str:
        host = request.client.host if request.client else "unknown"
        return f"{host}:{request.url.path}"

    async def dispatch(self, request: Request, call_next: Callable[[Request], Awaitable[Any]]) -> Any:
        if request.url.path in self.exclude_paths:
            return await call_next(request)
        key = self.key_func(request)
        admitted, info = await self.rate_limiter.check_rate_limit(key)
        if not admitted:
            logger.warning("Rate limit exceeded for %s", key)
            detail = {
                "error": "Rate limit exceeded",
                "retry_after": info["retry_after"],
                "limit": info["limit"],
                "window": info["window"],
            }
            raise HTTPException(status_code=429, detail=detail, headers=_denial_headers(info))
        response = await call_next(request)
        if self.include_headers:
            response.headers["X-RateLimit-Limit"] = str(info["limit"])
            response.headers["X-RateLimit-Remaining"] = str(info["remaining"])
            response.headers["X-RateLimit-Reset"] = str(int(info["reset_at"]))
        return response


def _denial_headers(info: dict[str, Any]) -> dict[str, str]:
    return {
        "Retry-After": str(info["retry_after"]),
        "X-RateLimit-Limit": str(info["limit"]),
        "X-RateLimit-Remaining": "0",
        "X-RateLimit-Reset": str(int(info["reset_at"])),
    }


_default_limiter: TokenBucketRateLimiter | None = None
_endpoint_limiter: EndpointRateLimiter | None = None


def get_rate_limiter() -> TokenBucketRateLimiter:
    global _default_limiter
    if _default_limiter is None:
        _default_limiter = TokenBucketRateLimiter()
    return _default_limiter


def get_endpoint_rate_limiter() -> EndpointRateLimiter:
    global _endpoint_limiter
    if _endpoint_limiter is None:
        _endpoint_limiter = EndpointRateLimiter()
    return _endpoint_limiter


async def init_rate_limiters() -> None:
    """Start both singletons and set the limits of the v1.2 paths (contract section 6)."""
    await get_rate_limiter().start()
    endpoint = get_endpoint_rate_limiter()
    await endpoint.start()
    endpoint.set_limit("/message", requests_per_minute=60, burst_size=10)
    endpoint.set_limit("/auth/token", requests_per_minute=10, burst_size=2)
    endpoint.set_limit("/register", requests_per_minute=30, burst_size=5)
    endpoint.set_limit("/peers", requests_per_minute=120, burst_size=20)


async def shutdown_rate_limiters() -> None:
    if _default_limiter is not None:
        await _default_limiter.stop()
    if _endpoint_limiter is not None:
        await _endpoint_limiter.stop()


def rate_limit(requests_per_minute: int = 60, burst_size: int | None = None) -> Callable[..., Any]:
    """Limit an async endpoint function per client (contract section 6). As in v1.2 every call gets a new limiter."""
    burst = burst_size or requests_per_minute // 6

    def decorator(func: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        @functools.wraps(func)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            limiter = TokenBucketRateLimiter(RateLimitConfig(requests_per_minute, burst))
            await limiter.start()
            request = kwargs.get("request")
            if request is None:
                request = next((arg for arg in args if isinstance(arg, Request)), None)
            admitted, info = await limiter.check_rate_limit(f"{_client_id(request)}:{func.__name__}")
            if not admitted:
                detail = {"error": "Rate limit exceeded", "retry_after": info["retry_after"]}
                raise HTTPException(status_code=429, detail=detail, headers=_denial_headers(info))
            await limiter.stop()
            if request is not None:
                request.state.rate_limit_info = info
            return await func(*args, **kwargs)

        return wrapper

    return decorator


def _client_id(request: Request | None) -> str:
    if request is None:
        return "unknown"
    forwarded = request.headers.get("X-Forwarded-For")
    if forwarded:
        return forwarded.split(",")[0].strip()
    return request.client.host if request.client else "unknown"


def strict_limit(func: Callable[..., Any] | None = None) -> Callable[..., Any]:
    decorator = rate_limit(requests_per_minute=10, burst_size=3)
    return decorator(func) if func else decorator


def standard_limit(func: Callable[..., Any] | None = None) -> Callable[..., Any]:
    decorator = rate_limit(requests_per_minute=60, burst_size=10)
    return decorator(func) if func else decorator


def generous_limit(func: Callable[..., Any] | None = None) -> Callable[..., Any]:
    decorator = rate_limit(requests_per_minute=100, burst_size=20)
    return decorator(func) if func else decorator


async def check_rate_limit(
    request: Request,
    limiter: TokenBucketRateLimiter = Depends(get_rate_limiter),  # noqa: B008  # FastAPI's form
) -> None:
    """FastAPI dependency: 429 when the client has used up its allowance for this path (contract section 6)."""
    host = request.client.host if request.client else "unknown"
    admitted, info = await limiter.check_rate_limit(f"{host}:{request.url.path}")
    if not admitted:
        detail = {"error": "Rate limit exceeded", "retry_after": info["retry_after"]}
        raise HTTPException(status_code=429, detail=detail, headers={"Retry-After": str(info["retry_after"])})
