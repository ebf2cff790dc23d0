"""Decorators that limit a function per client (contract section 6)."""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
from collections.abc import Callable, Iterable
from typing import Any

from peercore.ratelimit.clients import UNKNOWN_CLIENT, TrustedProxies, bounded_key
from peercore.ratelimit.config import RateLimitConfig, RateLimitExceeded
from peercore.ratelimit.endpoint import default_burst
from peercore.ratelimit.limiter import TokenBucketRateLimiter, check_compat
from peercore.ratelimit.refusal import refusal

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def rate_limit(
    requests_per_minute: int = 60,
    burst_size: int | None = None,
    *,
    trusted_proxies: str | Iterable[str] = (),
    integer_retry_after: bool = False,
    limiter: TokenBucketRateLimiter | None = None,
    compat: str | None = None,
) -> Decorator:
    """Return a decorator that limits how often each client may call a function.

    requests_per_minute: sustained rate. burst_size: calls at once; None: a sixth of the rate, at least 1 (fault F3).
    trusted_proxies: peers (IP addresses, networks) whose X-Forwarded-For is believed; "*": everybody's, and its first
    element, as v1.2.
    integer_retry_after: report whole seconds by v1.2's formula.
    limiter: where the buckets are kept; None: one limiter per decorated function (faults F2, F4), which the wrapper
    shows as its attribute `rate_limiter`.
    compat: "v1.2" selects v1.2's side of these decisions; a burst of 0 then means none given.

    The wrapper is a coroutine function with the name and signature of the function. A function that is no coroutine
    function is called in place, on the event loop (fault F5). The client is that of the first Starlette Request found
    in the argument `request` or in any other (fault F6); without one, all calls share the client "unknown". The
    bucket's key is "<client>:<function name>"; admitted requests carry the limiter's info as
    `request.state.rate_limit_info`.
    A refused call raises HTTPException(429), or RateLimitExceeded where neither FastAPI nor Starlette is installed.
    Raises ValueError and TypeError for arguments out of range.
    """
    v1_2 = check_compat(compat)
    proxies = TrustedProxies("*" if v1_2 else trusted_proxies)
    if burst_size is None or (v1_2 and not burst_size):
        RateLimitConfig(requests_per_minute, 1, validate=not v1_2)  # a bad rate is named before it is divided
        burst_size = default_burst(requests_per_minute)
    config = RateLimitConfig(requests_per_minute, burst_size, validate=not v1_2)

    def decorator(func: Callable[..., Any]) -> Callable[..., Any]:
        if not callable(func):
            raise TypeError(f"rate_limit decorates functions, got {func!r}")
        own = limiter
        if own is None:
            own = TokenBucketRateLimiter(config, integer_retry_after=integer_retry_after, compat=compat)
        return _limited(func, own, config, proxies)

    return decorator


def strict_limit(func: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """Limit a function to 10 calls per minute and client, 3 at once. Usable bare or called."""
    return _bare_or_called(rate_limit(requests_per_minute=10, burst_size=3), func)


def standard_limit(func: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """Limit a function to 60 calls per minute and client, 10 at once. Usable bare or called."""
    return _bare_or_called(rate_limit(requests_per_minute=60, burst_size=10), func)


def generous_limit(func: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """Limit a function to 100 calls per minute and client, 20 at once. Usable bare or called."""
    return _bare_or_called(rate_limit(requests_per_minute=100, burst_size=20), func)


def _bare_or_called(decorator: Decorator, func: Callable[..., Any] | None) -> Callable[..., Any]:
    return decorator if func is None else decorator(func)


def _limited(
    func: Callable[..., Any], limiter: TokenBucketRateLimiter, config: RateLimitConfig, proxies: TrustedProxies
) -> Callable[..., Any]:
    name = getattr(func, "__name__", type(func).__name__)

    @functools.wraps(func)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        request = _request_in(args, kwargs)
        client = UNKNOWN_CLIENT if request is None else proxies.client(request.scope)
        allowed, info = await limiter.check_rate_limit(bounded_key(f"{client}:{name}"), config)
        if not allowed:
            raise _refused(info)
        if request is not None:
            request.state.rate_limit_info = info
        result = func(*args, **kwargs)
        return await result if inspect.isawaitable(result) else result

    wrapper.rate_limiter = limiter  # type: ignore[attr-defined]
    _resolve_annotations(wrapper, func)
    return wrapper


def _request_in(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return the Starlette Request among the arguments, that named `request` first; None if there is none."""
    requests = sys.modules.get("starlette.requests")
    if requests is None:
        return None
    for value in (kwargs.get("request"), *args, *kwargs.values()):
        if isinstance(value, requests.Request):
            return value
    return None


def _refused(info: dict[str, Any]) -> Exception:
    try:
        return refusal(info, every_header=True)
    except ImportError:
        return RateLimitExceeded(f"Rate limit exceeded, retry after {info['retry_after']} s")


def _resolve_annotations(wrapper: Any, func: Callable[..., Any]) -> None:
    """Give `wrapper` the signature of `func` with annotations as objects, where they are written as text.

    Frameworks look such text up in the globals of the function they are given, older FastAPI in those of the wrapper,
    which is at home in this module. Names that are not there yet are left as text.
    """
    with contextlib.suppress(Exception):
        signature = inspect.signature(func)
        if any(isinstance(parameter.annotation, str) for parameter in signature.parameters.values()):
            wrapper.__signature__ = inspect.signature(func, eval_str=True)
