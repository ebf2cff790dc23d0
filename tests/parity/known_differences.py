"""Where the native rate limiter differs from v1.2 on purpose: what each gives, and why.

Everything not listed here is the same on both sides; the parity tests hold the two to that. Each entry is a scenario
that runs on the baseline, the native limiter and the native one with ``compat="v1.2"``, with the result of each.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from asgi_calls import call, hello, request, scope
from fastapi import HTTPException
from rate_limiter_sides import Side

HOUR = 3600.0


@dataclass(frozen=True)
class Difference:
    """`scenario` gives `v1_2` on the baseline, `native` on ours and `compat` on ours with ``compat="v1.2"``."""

    topic: str
    source: str
    reason: str
    scenario: Callable[[Side], Awaitable[Any]]
    v1_2: Any
    native: Any
    compat: Any


async def outcome(action: Awaitable[Any] | Callable[[], Any]) -> Any:
    """Return the result of a call or an awaitable, or the name of the exception it raises."""
    try:
        return await action if isinstance(action, Awaitable) else action()
    except Exception as error:
        return type(error).__name__


async def _retry_after(side: Side) -> Any:
    limiter = side.limiter_of(60, 1)
    answers = [(await limiter.check_rate_limit("k"))[1].get("retry_after") for _ in range(2)]
    side.clock.now += 0.75
    return [*answers[1:], (await limiter.check_rate_limit("k"))[1]["retry_after"]]


async def _middleware_denial(side: Side) -> Any:
    app = side.middleware(hello, side.limiter_of(60, 1))
    await call(app, scope())
    answer = await outcome(call(app, scope()))
    return answer if isinstance(answer, str) else answer[0]


async def _decorator_state(side: Side) -> Any:
    @side.rate_limit(60, 1)
    async def view(request: Any) -> str:
        return "ok"

    return [await outcome(view(request())) for _ in range(3)]


async def _small_burst(side: Side) -> Any:
    endpoint = side.endpoint_limiter()
    endpoint.set_limit("/slow", 5)
    return endpoint.get_limit("/slow").burst_size, (await endpoint.check("c", "/slow"))[0]


async def _forwarded_for(side: Side) -> Any:
    seen = []

    @side.rate_limit(60, 1)
    async def view(request: Any) -> None:
        seen.append(request.state.rate_limit_info["remaining"])

    for number in range(2):
        await outcome(view(request(x_forwarded_for=f"198.51.100.{number}")))
    return len(seen)


async def _zero_rate(side: Side) -> Any:
    return await outcome(lambda: type(side.module.RateLimitConfig(0, 1)).__name__)


async def _negative_rate(side: Side) -> Any:
    return await outcome(lambda: side.module.RateLimitConfig(-60, 1).refill_rate)


async def _reset_empty_key(side: Side) -> Any:
    limiter = side.limiter()
    for key in ("", "a", "b"):
        await limiter.check_rate_limit(key)
    await limiter.reset("")
    return list(limiter._buckets)


async def _no_exclusions(side: Side) -> Any:
    app = side.middleware(hello, side.limiter(), exclude_paths=[])
    return sorted(app.exclude_paths)


async def _changed_rate(side: Side) -> Any:
    config = side.module.RateLimitConfig(60, 10)
    config.requests_per_minute = 120
    return config.refill_rate


async def _clock_stepped_back(side: Side) -> Any:
    limiter = side.limiter_of(60, 2)
    await limiter.check_rate_limit("k")
    side.clock.now -= HOUR
    return (await limiter.check_rate_limit("k"))[0]


async def _explicit_zero_burst(side: Side) -> Any:
    return await outcome(lambda: side.endpoint_limiter().set_limit("/x", 60, 0))


async def _slow_refill_cleanup(side: Side) -> Any:
    limiter = side.limiter_of(1, 100)
    for _ in range(100):
        await limiter.check_rate_limit("k")
    side.clock.now += 601
    await limiter._cleanup_old_buckets()
    return (await limiter.check_rate_limit("k"))[1]["remaining"]


async def _sync_function(side: Side) -> Any:
    @side.rate_limit(60, 1)
    def view() -> str:
        return "ok"

    return await outcome(view())


async def _argument_named_request(side: Side) -> Any:
    @side.rate_limit(60, 1)
    async def view(request: str) -> str:
        return request

    return await outcome(view(request="a string"))


async def _exception_name(side: Side) -> Any:
    return hasattr(side.module, "RateLimitExceeded")


DENIED = HTTPException.__name__
DEFAULT_EXCLUSIONS = ["/docs", "/health", "/openapi.json"]

DIFFERENCES = [
    Difference(
        "retry_after",
        "F16, section 9",
        "the smallest wait after which a request is admitted, rounded up to 0.1 s; v1.2 is up to a second too long",
        _retry_after,
        v1_2=[2, 1],
        native=[1.0, 0.3],
        compat=[2, 1],
    ),
    Difference(
        "middleware denial",
        "F1, section 9",
        "an exception raised there reaches no handler and the client gets a 500; ours answers 429 itself",
        _middleware_denial,
        v1_2=DENIED,
        native=429,
        compat=DENIED,
    ),
    Difference(
        "decorator state",
        "F2, F4, section 9",
        "one limiter per decorated function; v1.2 makes a full one per call and so never limits",
        _decorator_state,
        v1_2=["ok", "ok", "ok"],
        native=["ok", DENIED, DENIED],
        compat=["ok", DENIED, DENIED],
    ),
    Difference(
        "default burst below 6 a minute",
        "F3, section 9",
        "at least one request has to fit; v1.2 computes a burst of 0 and denies for ever",
        _small_burst,
        v1_2=(0, False),
        native=(1, True),
        compat=(1, True),
    ),
    Difference(
        "X-Forwarded-For in the decorator",
        "F7, section 9",
        "believed from trusted proxies only; else every invented value is a new client. v1.2's per-call limiter (F2) "
        "admits both calls anyway, compat admits them because it believes the header",
        _forwarded_for,
        v1_2=2,
        native=1,
        compat=2,
    ),
    Difference(
        "rate of 0",
        "F14, section 9",
        "refused where it is written; v1.2 divides by it at the first denial",
        _zero_rate,
        v1_2="RateLimitConfig",
        native="ValueError",
        compat="ValueError",
    ),
    Difference(
        "negative rate",
        "F15, section 9",
        "refused where it is written; v1.2's tokens drain by themselves",
        _negative_rate,
        v1_2=-1.0,
        native="ValueError",
        compat="ValueError",
    ),
    Difference(
        "reset of the empty key",
        "F19, section 9",
        "only None clears all; the empty text is a key like any other",
        _reset_empty_key,
        v1_2=[],
        native=["a", "b"],
        compat=[],
    ),
    Difference(
        "exclude_paths=[]",
        "F21, section 9",
        "an empty list excludes nothing; v1.2 takes it for the default",
        _no_exclusions,
        v1_2=DEFAULT_EXCLUSIONS,
        native=[],
        compat=DEFAULT_EXCLUSIONS,
    ),
    Difference(
        "changed rate",
        "F20",
        "refill_rate follows requests_per_minute; v1.2 keeps the first one",
        _changed_rate,
        v1_2=1.0,
        native=2.0,
        compat=2.0,
    ),
    Difference(
        "clock stepped back",
        "F12, F13, section 9",
        "a step back changes no tokens; v1.2 makes them negative and locks the key out",
        _clock_stepped_back,
        v1_2=False,
        native=True,
        compat=True,
    ),
    Difference(
        "explicit burst of 0",
        "F22",
        "refused everywhere; v1.2 replaces it silently here and honours it elsewhere",
        _explicit_zero_burst,
        v1_2=None,
        native="ValueError",
        compat=None,
    ),
    Difference(
        "cleanup under slow refill",
        "F18",
        "only buckets that are full again are dropped; v1.2 drops by age and so gives 100 tokens for 10 earned",
        _slow_refill_cleanup,
        v1_2=99,
        native=9,
        compat=9,
    ),
    Difference(
        "decorated sync function",
        "F5",
        "called; v1.2 awaits its result, which raises",
        _sync_function,
        v1_2="TypeError",
        native="ok",
        compat="ok",
    ),
    Difference(
        "argument named request",
        "F6",
        "only real requests count as one; v1.2 reads headers from whatever has the name",
        _argument_named_request,
        v1_2="AttributeError",
        native="a string",
        compat="a string",
    ),
    Difference(
        "RateLimitExceeded",
        "F30",
        "connection_pool imports it from here; v1.2 does not define it",
        _exception_name,
        v1_2=False,
        native=True,
        compat=True,
    ),
]
