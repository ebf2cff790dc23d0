"""v1.2's `services.rate_limiter`, native (contract: rate_limiter).

Importing it needs neither FastAPI nor Starlette and configures no logging. `check_rate_limit`, the FastAPI dependency,
is made on first use, because its signature holds a `Depends` object.
"""

from __future__ import annotations

from contextlib import suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from peercore.ratelimit.config import RateLimitConfig, RateLimitExceeded, RateLimitState
from peercore.ratelimit.decorators import generous_limit, rate_limit, standard_limit, strict_limit
from peercore.ratelimit.endpoint import EndpointRateLimiter
from peercore.ratelimit.limiter import TokenBucketRateLimiter, logger
from peercore.ratelimit.middleware import RateLimitMiddleware

if TYPE_CHECKING:
    from peercore.ratelimit.dependency import check_rate_limit

__all__ = [
    "EndpointRateLimiter",
    "RateLimitConfig",
    "RateLimitExceeded",
    "RateLimitMiddleware",
    "RateLimitState",
    "TokenBucketRateLimiter",
    "generous_limit",
    "get_endpoint_rate_limiter",
    "get_rate_limiter",
    "init_rate_limiters",
    "logger",
    "rate_limit",
    "shutdown_rate_limiters",
    "standard_limit",
    "strict_limit",
]
with suppress(ImportError):
    if find_spec("fastapi") is not None:
        __all__ += ["check_rate_limit"]

_default_limiter: TokenBucketRateLimiter | None = None
_endpoint_limiter: EndpointRateLimiter | None = None

_STANDARD_LIMITS = {"/message": (60, 10), "/auth/token": (10, 2), "/register": (30, 5), "/peers": (120, 20)}
"""path -> (requests per minute, burst) that `init_rate_limiters` sets."""


def get_rate_limiter() -> TokenBucketRateLimiter:
    """The process's limiter, created on first use: always the same object."""
    global _default_limiter
    if _default_limiter is None:
        _default_limiter = TokenBucketRateLimiter()
    return _default_limiter


def get_endpoint_rate_limiter() -> EndpointRateLimiter:
    """The process's limiter by path, created on first use: always the same object. Give it to RateLimitMiddleware."""
    global _endpoint_limiter
    if _endpoint_limiter is None:
        _endpoint_limiter = EndpointRateLimiter()
    return _endpoint_limiter


async def init_rate_limiters() -> None:
    """Start both limiters and set the standard limits of the endpoint limiter. Can be repeated."""
    await get_rate_limiter().start()
    endpoint = get_endpoint_rate_limiter()
    await endpoint.start()
    for path, (requests_per_minute, burst_size) in _STANDARD_LIMITS.items():
        endpoint.set_limit(path, requests_per_minute, burst_size)


async def shutdown_rate_limiters() -> None:
    """Stop whichever limiters exist. They stay, with their buckets."""
    if _default_limiter is not None:
        await _default_limiter.stop()
    if _endpoint_limiter is not None:
        await _endpoint_limiter.stop()


# What others see, pickle above all, is where v1.2 had it; how the parts are laid out is this package's own affair.
for _public in (
    EndpointRateLimiter,
    RateLimitConfig,
    RateLimitExceeded,
    RateLimitMiddleware,
    RateLimitState,
    TokenBucketRateLimiter,
    generous_limit,
    rate_limit,
    standard_limit,
    strict_limit,
):
    _public.__module__ = __name__
del _public


def __getattr__(name: str) -> Any:
    if name == "check_rate_limit":
        from peercore.ratelimit import dependency

        function = dependency.check_rate_limit
        function.__module__ = __name__
        globals()[name] = function
        return function
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
