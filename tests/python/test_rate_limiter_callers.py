"""The rate limiter's contract, sections 6 and 7: singletons and what callers rely on; and what is beyond v1.2."""

import asyncio
import copyreg
import pickle
import time

import pytest
from manual_clock import ManualClock

from peercore.services import rate_limiter as module
from peercore.services.rate_limiter import (
    EndpointRateLimiter,
    RateLimitConfig,
    RateLimitState,
    TokenBucketRateLimiter,
)


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def limiter(clock):
    """60 a minute, burst 10."""
    return TokenBucketRateLimiter(clock=clock)


@pytest.fixture
def singletons(monkeypatch):
    """The module as it is before anybody asked for its limiters."""
    monkeypatch.setattr(module, "_default_limiter", None)
    monkeypatch.setattr(module, "_endpoint_limiter", None)
    return module


# -- section 6: singletons


def test_s6_get_rate_limiter_makes_one(singletons):
    limiter = singletons.get_rate_limiter()
    assert type(limiter) is TokenBucketRateLimiter
    assert singletons.get_rate_limiter() is limiter
    assert singletons._default_limiter is limiter


def test_s6_get_endpoint_rate_limiter_makes_one(singletons):
    endpoint = singletons.get_endpoint_rate_limiter()
    assert type(endpoint) is EndpointRateLimiter
    assert singletons.get_endpoint_rate_limiter() is endpoint
    assert singletons._endpoint_limiter is endpoint


async def test_s6_init_rate_limiters_starts_both_and_sets_four_limits(singletons):
    for _ in range(2):
        assert await singletons.init_rate_limiters() is None
    limiter, endpoint = singletons.get_rate_limiter(), singletons.get_endpoint_rate_limiter()
    assert {path: (c.requests_per_minute, c.burst_size) for path, c in endpoint._endpoint_configs.items()} == {
        "/message": (60, 10),
        "/auth/token": (10, 2),
        "/register": (30, 5),
        "/peers": (120, 20),
    }
    assert limiter._cleanup_task.done() is endpoint._rate_limiter._cleanup_task.done() is False
    await singletons.shutdown_rate_limiters()


async def test_s6_shutdown_stops_and_keeps_the_singletons(singletons):
    await singletons.shutdown_rate_limiters()
    assert singletons._default_limiter is singletons._endpoint_limiter is None
    await singletons.init_rate_limiters()
    limiter, endpoint = singletons.get_rate_limiter(), singletons.get_endpoint_rate_limiter()
    await limiter.check_rate_limit("k")
    assert await singletons.shutdown_rate_limiters() is None
    assert limiter._cleanup_task is endpoint._rate_limiter._cleanup_task is None
    assert singletons.get_rate_limiter() is limiter
    assert singletons.get_endpoint_rate_limiter() is endpoint
    assert list(limiter._buckets) == ["k"]


# -- section 7


async def test_s7_cleanup_task_is_compared_with_none_and_asked_done(limiter):
    assert limiter._cleanup_task is None
    await limiter.start()
    assert limiter._cleanup_task is not None
    assert limiter._cleanup_task.done() is False
    await limiter.stop()
    assert limiter._cleanup_task is None


async def test_s7_len_of_buckets_and_endpoint_configs(limiter):
    for key in "abc":
        await limiter.check_rate_limit(key)
    assert len(limiter._buckets) == 3
    endpoint = EndpointRateLimiter()
    endpoint.set_limit("/a", 6)
    assert len(endpoint._endpoint_configs) == 1


async def test_s7_cleanup_is_awaited_directly_and_returns_an_int(limiter):
    removed = await limiter._cleanup_old_buckets()
    assert (type(removed), removed) == (int, 0)


def test_s7_configuration_is_read_through_the_objects():
    limiter, endpoint = TokenBucketRateLimiter(), EndpointRateLimiter(default_rpm=100, default_burst=20)
    assert (limiter.default_config.requests_per_minute, limiter.default_config.burst_size) == (60, 10)
    assert (endpoint.default_config.requests_per_minute, endpoint.default_config.burst_size) == (100, 20)
    assert endpoint._rate_limiter.default_config.burst_size == 20


async def test_s7_stats_of_the_global_limiter_fill_a_model(singletons):
    stats = await singletons.get_rate_limiter().get_stats()
    assert {name: type(stats[name]) for name in ("allowed", "denied", "cleaned", "active_buckets")} == dict.fromkeys(
        ("allowed", "denied", "cleaned", "active_buckets"), int
    )


async def test_s7_window_start_increases_after_the_window(limiter, clock):
    config = limiter.default_config
    before = (await limiter.check_rate_limit("k"))[1]["reset_at"] - config.window_seconds
    clock.advance(61)
    after = (await limiter.check_rate_limit("k"))[1]["reset_at"] - config.window_seconds
    assert after > before


async def test_s7_window_start_is_epoch_time_on_the_machines_clocks():
    limiter = TokenBucketRateLimiter()
    info = (await limiter.check_rate_limit("k"))[1]
    assert info["reset_at"] - 60 == pytest.approx(time.time(), abs=5)
    assert limiter._buckets["k"].last_update == pytest.approx(time.time(), abs=5)


@pytest.mark.parametrize(("rate", "expected"), [(60, 1.0), (600, 0.1)])
async def test_s7_retry_after_right_after_the_only_token(rate, expected):
    limiter = TokenBucketRateLimiter(RateLimitConfig(rate, 1), clock=ManualClock())
    await limiter.check_rate_limit("k")
    assert (await limiter.check_rate_limit("k"))[1]["retry_after"] == expected


async def test_s7_ninety_concurrent_checks_stay_within_the_burst():
    limiter = TokenBucketRateLimiter(RateLimitConfig(60, 100), clock=ManualClock())
    answers = await asyncio.gather(*(limiter.check_rate_limit("k") for _ in range(90)))
    assert sum(allowed for allowed, _ in answers) == 90
    answers = await asyncio.gather(*(limiter.check_rate_limit("k") for _ in range(90)))
    assert sum(allowed for allowed, _ in answers) == 10


def test_s7_api_server_limits_are_set_before_any_loop_runs():
    endpoint = EndpointRateLimiter(default_rpm=100, default_burst=20)
    limits = {"/auth": (10, 5), "/task": (60, 15), "/register": (30, 10), "/message": (60, 10)}
    for path, (rate, burst) in limits.items():
        endpoint.set_limit(path, rate, burst)
    assert asyncio.run(endpoint.check("c", "/auth"))[1]["limit"] == 10
    assert asyncio.run(endpoint.check("c", "/else"))[1]["limit"] == 100


async def test_s7_singletons_are_identical_and_usable_after_init(singletons):
    await singletons.init_rate_limiters()
    assert singletons.get_rate_limiter() is singletons.get_rate_limiter()
    assert (await singletons.get_endpoint_rate_limiter().check("c", "/auth/token"))[1]["limit"] == 10
    assert (await singletons.get_rate_limiter().check_rate_limit("c"))[0] is True
    await singletons.shutdown_rate_limiters()


def test_s7_objects_are_truthy(limiter):
    assert limiter
    assert EndpointRateLimiter()
    assert RateLimitConfig()
    assert RateLimitState()


# -- beyond v1.2: allow, check_many, cost


async def test_allow_and_allow_now_answer_as_check_rate_limit(clock):
    limiter = TokenBucketRateLimiter(RateLimitConfig(60, 4), clock=clock)
    answers = [await limiter.allow("k"), limiter.allow_now("k"), (await limiter.check_rate_limit("k"))[0]]
    assert answers == [True] * 3
    assert limiter.check_now("k")[0] is True
    assert await limiter.allow("k") is limiter.allow_now("k") is limiter.check_now("k")[0] is False
    assert dict(limiter._stats) == {"allowed": 4, "denied": 3, "cleaned": 0}


async def test_check_many_answers_in_order(clock):
    limiter = TokenBucketRateLimiter(RateLimitConfig(60, 2), clock=clock)
    assert await limiter.check_many(["a", "b", "a", "a", "b"]) == [True, True, True, False, True]
    assert limiter.check_many_now(iter(("c", "c", "c"))) == [True, True, False]
    assert await limiter.check_many([]) == []
    assert await limiter.check_many(["d", "d"], 2) == [True, False]


@pytest.mark.parametrize("way", ["check_rate_limit", "check_now", "allow", "allow_now"])
async def test_cost_takes_that_many_tokens_or_none(limiter, way):
    async def ask(cost):
        answer = getattr(limiter, way)("k", cost=cost)
        answer = await answer if asyncio.iscoroutine(answer) else answer
        return answer[0] if isinstance(answer, tuple) else answer

    assert [await ask(cost) for cost in (4, 4, 4, 2, 1)] == [True, True, False, True, False]
    assert limiter._buckets["k"].request_count == 10


async def test_retry_after_counts_the_cost(limiter):
    await limiter.check_rate_limit("k", cost=8)
    assert (await limiter.check_rate_limit("k", cost=5))[1]["retry_after"] == 3.0


OLD_STATE = {
    "requests_per_minute": 120,
    "burst_size": 7,
    "window_seconds": 30,
    "key_prefix": "old",
    "refill_rate": 2.0,
}


class OldPickle:
    """Pickles as a v1.2 configuration does under protocols 0 and 1; from 2 on it is the class's `__new__`."""

    def __reduce_ex__(self, protocol):
        return copyreg._reconstructor, (RateLimitConfig, object, None), OLD_STATE


@pytest.mark.parametrize("protocol", [0, 1])
def test_s2_configurations_pickled_by_v1_2_under_old_protocols_load(protocol):
    config = pickle.loads(pickle.dumps(OldPickle(), protocol))
    assert config == RateLimitConfig(120, 7, 30, "old")
    assert config.refill_rate == 2.0
    with pytest.raises(ValueError, match="burst_size"):
        config.burst_size = 0


def test_s2_a_configuration_nobody_has_filled_in_holds_the_defaults():
    config = object.__new__(RateLimitConfig)
    assert TokenBucketRateLimiter(config).check_now("k")[1]["remaining"] == 9
    assert (config.requests_per_minute, config.burst_size, config.window_seconds) == (60, 10, 60)
