"""The native rate limiter answers as v1.2 does: the same test on the baseline and on ours (contract sections 1-6).

What differs on purpose is in known_differences.py and nowhere else.
"""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import inspect
import pickle
from typing import Any

import pytest
from asgi_calls import call, hello, request, scope
from fastapi import HTTPException
from rate_limiter_sides import NATIVE, Side, side

CONFIG_FIELDS = ("requests_per_minute", "burst_size", "window_seconds", "key_prefix")
STATE_FIELDS = ("tokens", "last_update", "request_count", "window_start")


# -- section 2


def test_config_is_the_dataclass_of_v1_2(rate_limiter: Side) -> None:
    config = rate_limiter.module.RateLimitConfig
    assert tuple(field.name for field in dataclasses.fields(config)) == CONFIG_FIELDS
    assert dataclasses.asdict(config()) == dict(zip(CONFIG_FIELDS, (60, 10, 60, "rl"), strict=True))
    assert config(30, 5, 10, "x") == config(requests_per_minute=30, burst_size=5, window_seconds=10, key_prefix="x")
    assert repr(config()).endswith(
        "RateLimitConfig(requests_per_minute=60, burst_size=10, window_seconds=60, key_prefix='rl')"
    )
    assert [config(rate).refill_rate for rate in (60, 120, 30, 7)] == [1.0, 2.0, 0.5, 7 / 60]
    assert config.__match_args__[:4] == CONFIG_FIELDS
    with pytest.raises(TypeError):
        hash(config())


def test_config_copies(rate_limiter: Side) -> None:
    config = rate_limiter.module.RateLimitConfig(30, 5)
    for copied in (copy.copy(config), copy.deepcopy(config), pickle.loads(pickle.dumps(config))):
        assert copied == config
        assert copied.refill_rate == 0.5
    assert dataclasses.replace(config, burst_size=7).burst_size == 7


def test_state_is_the_dataclass_of_v1_2(rate_limiter: Side) -> None:
    state = rate_limiter.module.RateLimitState
    assert tuple(field.name for field in dataclasses.fields(state)) == STATE_FIELDS
    assert dataclasses.astuple(state(1.5, 2.0, 3, 4.0)) == (1.5, 2.0, 3, 4.0)
    fresh = state()
    assert (fresh.tokens, fresh.request_count) == (0.0, 0)
    assert fresh.last_update == pytest.approx(fresh.window_start, abs=1.0)


# -- section 3


async def test_first_answers_field_by_field(rate_limiter: Side) -> None:
    limiter = rate_limiter.limiter_of(60, 2)
    start = rate_limiter.clock.now
    allowed = [await limiter.check_rate_limit("k") for _ in range(2)]
    same = {"limit": 60, "reset_at": start + 60, "window": 60}
    assert allowed == [(True, {**same, "remaining": 1}), (True, {**same, "remaining": 0})]
    ok, info = await limiter.check_rate_limit("k")
    assert (ok, set(info)) == (False, {*same, "remaining", "retry_after"})
    assert {name: info[name] for name in (*same, "remaining")} == {**same, "remaining": 0}
    assert [type(info[name]) for name in ("limit", "remaining", "reset_at", "window")] == [int, int, float, int]
    if rate_limiter.name != NATIVE:
        assert type(info["retry_after"]) is int


async def test_refill_and_window(rate_limiter: Side) -> None:
    limiter = rate_limiter.limiter(rate_limiter.module.RateLimitConfig(60, 4, window_seconds=8))
    start = rate_limiter.clock.now
    seen = []
    for step in (0, 0, 0, 0.5, 0.5, 7, 0.25, 100):
        rate_limiter.clock.now += step
        ok, info = await limiter.check_rate_limit("k")
        seen.append((ok, info["remaining"], info["reset_at"] - start, limiter._buckets["k"].request_count))
    assert seen == [
        (True, 3, 8, 1),
        (True, 2, 8, 2),
        (True, 1, 8, 3),
        (True, 0, 8, 4),
        (True, 0, 8, 5),
        (True, 3, 8, 6),  # exactly at the window's end, which still belongs to it
        (True, 2, 16.25, 1),
        (True, 3, 116.25, 1),
    ]


async def test_configs_by_key_and_by_call(rate_limiter: Side) -> None:
    limiter, config = rate_limiter.limiter_of(60, 5), rate_limiter.module.RateLimitConfig
    small, large = config(60, 2), config(60, 9)
    assert limiter.get_config("k") is limiter.default_config
    await limiter.check_rate_limit("k")
    limiter.set_config("k", small)
    assert limiter.get_config("k") is small
    remaining = [(await limiter.check_rate_limit("k", chosen))[1]["remaining"] for chosen in (None, large, None)]
    assert remaining == [1, 0, 0]  # clamped at once, nothing granted at once


async def test_statistics_and_reset(rate_limiter: Side) -> None:
    limiter = rate_limiter.limiter_of(60, 1)
    for key in ("a", "a", "b", None, ("tuple", 1)):
        await limiter.check_rate_limit(key)
    stats = {"allowed": 4, "denied": 1, "cleaned": 0}
    assert await limiter.get_stats() == {**stats, "active_buckets": 4}
    assert dict(limiter._stats) == stats
    assert list(limiter._buckets) == ["a", "b", None, ("tuple", 1)]
    await limiter.reset("a")
    await limiter.reset("missing")
    assert list(limiter._buckets) == ["b", None, ("tuple", 1)]
    await limiter.reset()
    assert await limiter.get_stats() == {**stats, "active_buckets": 0}
    with pytest.raises(TypeError):
        await limiter.check_rate_limit([])


async def test_cleanup_drops_old_buckets(rate_limiter: Side) -> None:
    limiter = rate_limiter.limiter(rate_limiter.module.RateLimitConfig(600, 1), cleanup_interval=10)
    await limiter.check_rate_limit("old")
    rate_limiter.clock.now += 1
    await limiter.check_rate_limit("young")
    rate_limiter.clock.now += 19.5
    assert await limiter._cleanup_old_buckets() == 1
    assert list(limiter._buckets) == ["young"]
    assert (await limiter.get_stats())["cleaned"] == 1


async def test_start_and_stop(rate_limiter: Side) -> None:
    limiter = rate_limiter.limiter()
    assert limiter._cleanup_task is None
    await limiter.start()
    task = limiter._cleanup_task
    await limiter.start()
    assert limiter._cleanup_task is task
    assert not task.done()
    await limiter.stop()
    assert limiter._cleanup_task is None
    await limiter.stop()


async def test_concurrent_checks_admit_the_burst(rate_limiter: Side) -> None:
    limiter = rate_limiter.limiter_of(60, 20)
    answers = await asyncio.gather(*(limiter.check_rate_limit("k") for _ in range(90)))
    assert sum(ok for ok, _ in answers) == 20


# -- section 4


async def test_endpoint_limits(rate_limiter: Side) -> None:
    endpoint = rate_limiter.endpoint_limiter(60, 2)
    endpoint.set_limit("/slow", 30, 1)
    endpoint.set_limit("/default", 60)
    assert dataclasses.astuple(endpoint.get_limit("/slow")) == (30, 1, 60, "rl:/slow")
    assert endpoint.get_limit("/default").burst_size == 10
    assert endpoint.get_limit("/slow/") is endpoint.default_config
    calls = [("a", "/slow"), ("a", "/slow"), ("b", "/slow"), ("a", "/other"), ("a", "/other"), ("a", "/other")]
    assert [(await endpoint.check(*each))[0] for each in calls] == [True, False, True, True, True, False]
    assert list(endpoint._rate_limiter._buckets) == ["a:/slow", "b:/slow", "a:/other"]
    stats = {"allowed": 4, "denied": 2, "cleaned": 0, "active_buckets": 3, "endpoint_configs": 2}
    assert await endpoint.get_stats() == stats
    await endpoint.start()
    assert endpoint._rate_limiter._cleanup_task is not None
    await endpoint.stop()
    assert endpoint._rate_limiter._cleanup_task is None


# -- section 5


async def test_middleware_headers_and_exclusions(rate_limiter: Side) -> None:
    app = rate_limiter.middleware(hello, rate_limiter.limiter_of(60, 3))
    status, headers, body = await call(app, scope())
    assert (status, body, headers["content-type"]) == (200, b"hello", "text/plain")
    sent = [headers[f"x-ratelimit-{name}"] for name in ("limit", "remaining", "reset")]
    assert sent == ["60", "2", str(int(rate_limiter.clock.now + 60))]
    for path in ("/health", "/docs", "/openapi.json"):
        assert "x-ratelimit-limit" not in (await call(app, scope(path)))[1]
    await call(app, scope("/other", client=None))
    assert list(app.rate_limiter._buckets) == ["192.0.2.1:/items", "unknown:/other"]
    assert app.exclude_paths == {"/health", "/docs", "/openapi.json"}


async def test_middleware_options(rate_limiter: Side) -> None:
    limiter = rate_limiter.limiter_of(60, 3)
    options: dict[str, Any] = {"key_func": lambda request: request.headers["x-key"], "include_headers": False}
    app = rate_limiter.middleware(hello, limiter, exclude_paths=["/free"], **options)
    _, headers, _ = await call(app, scope(x_key="mine"))
    assert headers == {"content-type": "text/plain"}
    await call(app, scope("/free"))
    assert list(limiter._buckets) == ["mine"]


async def test_middleware_passes_other_scopes(rate_limiter: Side) -> None:
    seen = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope, receive, send))

    app = rate_limiter.middleware(inner, rate_limiter.limiter())
    for kind in ("websocket", "lifespan"):
        untouched = ({"type": kind}, object(), object())
        await app(*untouched)
        assert seen.pop() == untouched


@pytest.mark.parametrize("name", ["baseline", "native, compat v1.2"])
async def test_middleware_raises(name: str) -> None:
    made = side(name)
    app = made.middleware(hello, made.limiter_of(60, 1))
    await call(app, scope())
    with pytest.raises(HTTPException) as raised:
        await call(app, scope())
    assert raised.value.status_code == 429
    assert raised.value.detail == {"error": "Rate limit exceeded", "retry_after": 2, "limit": 60, "window": 60}
    assert raised.value.headers == _denial_headers(made, "2")


def _denial_headers(made: Side, retry_after: str) -> dict[str, str]:
    return {
        "Retry-After": retry_after,
        "X-RateLimit-Limit": "60",
        "X-RateLimit-Remaining": "0",
        "X-RateLimit-Reset": str(int(made.clock.now + 60)),
    }


# -- section 6


async def test_singletons(rate_limiter: Side) -> None:
    module = rate_limiter.module
    assert module.get_rate_limiter() is module.get_rate_limiter() is module._default_limiter
    assert module.get_endpoint_rate_limiter() is module._endpoint_limiter
    await module.init_rate_limiters()
    await module.init_rate_limiters()
    limits = {path: module._endpoint_limiter.get_limit(path) for path in module._endpoint_limiter._endpoint_configs}
    assert {path: (limit.requests_per_minute, limit.burst_size) for path, limit in limits.items()} == {
        "/message": (60, 10),
        "/auth/token": (10, 2),
        "/register": (30, 5),
        "/peers": (120, 20),
    }
    assert module._default_limiter._cleanup_task is not None
    await module.shutdown_rate_limiters()
    assert module._default_limiter._cleanup_task is None
    assert module._endpoint_limiter._rate_limiter._cleanup_task is None


@pytest.mark.parametrize(
    ("decorator", "limit", "remaining"),
    [("strict_limit", 10, 2), ("standard_limit", 60, 9), ("generous_limit", 100, 19)],
)
async def test_decorators(rate_limiter: Side, decorator: str, limit: int, remaining: int) -> None:
    limited = getattr(rate_limiter.module, decorator)

    async def view(request: Any, extra: int = 1) -> Any:
        """What it does."""
        return request.state.rate_limit_info, extra

    for wrapped in (limited(view), limited()(view)):
        assert (wrapped.__name__, wrapped.__doc__) == ("view", "What it does.")
        assert inspect.iscoroutinefunction(wrapped)
        for info, extra in (
            await wrapped(request(client="a"), extra=2),
            await wrapped(request=request(client="b"), extra=2),
        ):
            assert (info["limit"], info["remaining"], extra) == (limit, remaining, 2)


async def test_dependency(rate_limiter: Side) -> None:
    limiter = rate_limiter.limiter_of(60, 1)
    assert await rate_limiter.module.check_rate_limit(request("/a"), limiter) is None
    with pytest.raises(HTTPException) as raised:
        await rate_limiter.module.check_rate_limit(request("/a"), limiter)
    retry_after = raised.value.detail.pop("retry_after")
    assert raised.value.status_code == 429
    assert raised.value.detail == {"error": "Rate limit exceeded"}
    assert raised.value.headers == {"Retry-After": str(int(retry_after))}
    assert list(limiter._buckets) == ["192.0.2.1:/a"]
