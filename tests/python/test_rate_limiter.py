"""The rate limiter's contract, sections 2, 3 and 4: one test or more for every row.

Sections 6 and 7 are in test_rate_limiter_callers.
"""

import asyncio
import dataclasses
import logging
import time

import pytest
from manual_clock import ManualClock

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


async def drain(limiter, key, config=None):
    """Use the key's tokens up; how many there were."""
    count = 0
    while (await limiter.check_rate_limit(key, config))[0]:
        count += 1
    return count


# -- section 2


def test_s2_config_fields_and_defaults():
    assert [(f.name, f.type, getattr(RateLimitConfig(), f.name)) for f in dataclasses.fields(RateLimitConfig)] == [
        ("requests_per_minute", "int", 60),
        ("burst_size", "int", 10),
        ("window_seconds", "int", 60),
        ("key_prefix", "str", "rl"),
    ]
    assert RateLimitConfig(1, 2, 3, "x") == RateLimitConfig(
        requests_per_minute=1, burst_size=2, window_seconds=3, key_prefix="x"
    )
    with pytest.raises(TypeError, match="unhashable"):
        hash(RateLimitConfig())


@pytest.mark.parametrize(("rate", "expected"), [(60, 1.0), (120, 2.0), (30, 0.5), (7, 7 / 60), (100, 100 / 60)])
def test_s2_refill_rate(rate, expected):
    config = RateLimitConfig(rate)
    assert config.refill_rate == expected
    assert "refill_rate" not in {field.name for field in dataclasses.fields(config)}
    assert "refill_rate" not in repr(config)
    assert "refill_rate" not in dataclasses.asdict(config)
    config.refill_rate = 9.0
    assert config == RateLimitConfig(rate)


def test_s2_state_fields_and_defaults():
    before = time.time()
    state = RateLimitState()
    after = time.time()
    assert [(f.name, f.type) for f in dataclasses.fields(state)] == [
        ("tokens", "float"),
        ("last_update", "float"),
        ("request_count", "int"),
        ("window_start", "float"),
    ]
    assert (state.tokens, state.request_count) == (0.0, 0)
    assert before <= state.last_update <= state.window_start <= after
    with pytest.raises(TypeError, match="unhashable"):
        hash(state)


# -- section 3


def test_s3_construction_needs_no_loop():
    limiter = TokenBucketRateLimiter()
    assert limiter.default_config == RateLimitConfig()
    assert len(limiter._buckets) == len(limiter._configs) == 0
    assert limiter._cleanup_task is None
    assert limiter._cleanup_interval == 300
    assert dict(limiter._stats) == {"allowed": 0, "denied": 0, "cleaned": 0}
    assert TokenBucketRateLimiter(cleanup_interval=7)._cleanup_interval == 7


def test_s3_a_falsy_default_config_becomes_the_default():
    class Falsy(RateLimitConfig):
        def __bool__(self):
            return False

    config = RateLimitConfig(5, 5)
    assert TokenBucketRateLimiter(config).default_config is config
    assert TokenBucketRateLimiter(None).default_config == RateLimitConfig()
    assert TokenBucketRateLimiter(Falsy(5, 5)).default_config == RateLimitConfig()


async def test_s3_lock_is_an_asyncio_lock(limiter):
    assert isinstance(limiter._lock, asyncio.Lock)
    assert limiter._lock is limiter._lock
    async with limiter._lock:
        assert (await limiter.check_rate_limit("k"))[0] is True


async def test_s3_start_is_idempotent(limiter):
    assert await limiter.start() is None
    task = limiter._cleanup_task
    assert isinstance(task, asyncio.Task)
    await limiter.start()
    assert limiter._cleanup_task is task
    await limiter.stop()


async def test_s3_stop_cancels_awaits_and_forgets_the_task(limiter):
    await limiter.stop()
    await limiter.start()
    task = limiter._cleanup_task
    assert await limiter.stop() is None
    assert task.cancelled()
    assert limiter._cleanup_task is None
    await limiter.stop()


async def test_s3_set_and_get_config(limiter):
    first, second = RateLimitConfig(30, 3), RateLimitConfig(30, 4)
    assert limiter.get_config("k") is limiter.default_config
    assert limiter.set_config("k", first) is None
    assert limiter.get_config("k") is first
    limiter.set_config("k", second)
    assert limiter.get_config("k") is second
    assert limiter.get_config("other") is limiter.default_config
    assert await drain(limiter, "k") == 4
    assert await drain(limiter, "other") == 10


async def test_s3_get_stats(limiter):
    for _ in range(12):
        await limiter.check_rate_limit("a")
    await limiter.check_rate_limit("b")
    stats = await limiter.get_stats()
    assert stats == {"allowed": 11, "denied": 2, "cleaned": 0, "active_buckets": 2}
    assert {type(value) for value in stats.values()} == {int}
    assert type(stats) is dict


async def test_s3_reset_one_key(limiter):
    for key in ("a", "b"):
        await drain(limiter, key)
    limiter.set_config("a", RateLimitConfig(60, 2))
    assert await limiter.reset("a") is None
    await limiter.reset("missing")
    assert list(limiter._buckets) == ["b"]
    assert await drain(limiter, "a") == 2
    assert await drain(limiter, "b") == 0


async def test_s3_reset_all_keeps_statistics_and_configs(limiter):
    limiter.set_config("a", RateLimitConfig(60, 2))
    for key in ("a", "b"):
        await drain(limiter, key)
    await limiter.reset(None)
    assert len(limiter._buckets) == 0
    assert await limiter.get_stats() == {"allowed": 12, "denied": 2, "cleaned": 0, "active_buckets": 0}
    assert list(limiter._configs) == ["a"]
    await limiter.check_rate_limit("a")
    await limiter.reset()
    assert len(limiter._buckets) == 0


async def test_s3_cleanup_loop_sleeps_then_cleans_and_survives_errors(monkeypatch, caplog):
    slept, cleaned = [], []

    async def sleep(seconds):
        slept.append(seconds)
        if len(slept) == 4:
            raise asyncio.CancelledError

    class Failing(TokenBucketRateLimiter):
        async def _cleanup_old_buckets(self):
            cleaned.append(len(slept))
            if len(cleaned) == 2:
                raise LookupError("once")

    monkeypatch.setattr(asyncio, "sleep", sleep)
    with caplog.at_level(logging.ERROR), pytest.raises(asyncio.CancelledError):
        await Failing(cleanup_interval=42)._cleanup_loop()
    assert slept == [42] * 4
    assert cleaned == [1, 2, 3]
    assert [(record.name, record.exc_info[0]) for record in caplog.records] == [("services.rate_limiter", LookupError)]


async def test_s3_cleanup_removes_what_is_idle_for_more_than_twice_the_interval(clock):
    limiter = TokenBucketRateLimiter(cleanup_interval=100, clock=clock)
    await limiter.check_rate_limit("old")
    clock.advance(150)
    await limiter.check_rate_limit("young")
    clock.advance(50)
    assert await limiter._cleanup_old_buckets() == 0  # exactly 200 s: not more than twice the interval
    clock.advance(1)
    assert await limiter._cleanup_old_buckets() == 1
    assert list(limiter._buckets) == ["young"]
    assert (await limiter.get_stats())["cleaned"] == 1


async def test_s3_cleanup_of_many_buckets_lets_the_loop_run(clock):
    limiter = TokenBucketRateLimiter(clock=clock, cleanup_interval=1)
    await limiter.check_many(range(20_000))
    clock.advance(1000)
    turns = 0

    async def count():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counter = asyncio.create_task(count())
    assert await limiter._cleanup_old_buckets() == 20_000
    counter.cancel()
    assert turns >= 4
    assert len(limiter._buckets) == 0


# -- section 3.1


async def test_s31_config_argument_wins_when_truthy(limiter):
    class Falsy(RateLimitConfig):
        def __bool__(self):
            return False

    limiter.set_config("k", RateLimitConfig(30, 3))
    assert (await limiter.check_rate_limit("k", RateLimitConfig(90, 9)))[1]["limit"] == 90
    assert (await limiter.check_rate_limit("k", None))[1]["limit"] == 30
    assert (await limiter.check_rate_limit("k", Falsy(90, 9)))[1]["limit"] == 30
    assert (await limiter.check_rate_limit("x"))[1]["limit"] == 60


async def test_s31_first_sight_of_a_key_makes_a_full_bucket(limiter, clock):
    await limiter.check_rate_limit("k")
    state = limiter._buckets["k"]
    assert state == RateLimitState(9.0, clock.now, 1, clock.now)


async def test_s31_refill_on_every_check_also_a_denied_one(limiter, clock):
    await drain(limiter, "k")
    clock.advance(0.25)
    assert (await limiter.check_rate_limit("k"))[0] is False
    assert limiter._buckets["k"].tokens == 0.25
    assert limiter._buckets["k"].last_update == clock.now
    clock.advance(0.75)
    assert (await limiter.check_rate_limit("k"))[0] is True
    clock.advance(1000)
    assert await drain(limiter, "k") == 10


async def test_s31_window_restarts_when_strictly_over(limiter, clock):
    start = clock.now
    await limiter.check_rate_limit("k")
    clock.advance(60)
    assert (await limiter.check_rate_limit("k"))[1]["reset_at"] == start + 60
    assert limiter._buckets["k"].request_count == 2
    clock.advance(1 / 64)
    assert (await limiter.check_rate_limit("k"))[1]["reset_at"] == clock.now + 60
    assert limiter._buckets["k"].request_count == 1


async def test_s31_allow_takes_one_token(limiter):
    assert (await limiter.check_rate_limit("k"))[0] is True
    assert (limiter._buckets["k"].tokens, limiter._buckets["k"].request_count) == (9.0, 1)
    assert dict(limiter._stats) == {"allowed": 1, "denied": 0, "cleaned": 0}


async def test_s31_deny_takes_no_token(limiter, clock):
    await drain(limiter, "k")
    clock.advance(0.5)
    for _ in range(3):
        await limiter.check_rate_limit("k")
    assert (limiter._buckets["k"].tokens, limiter._buckets["k"].request_count) == (0.5, 10)
    assert limiter._stats["denied"] == 4


async def test_s31_config_change_clamps_and_grants_nothing(limiter):
    await limiter.check_rate_limit("k")
    assert (await limiter.check_rate_limit("k", RateLimitConfig(60, 3)))[1]["remaining"] == 2
    assert (await limiter.check_rate_limit("k", RateLimitConfig(60, 100)))[1]["remaining"] == 1


async def test_s31_info_when_allowed(limiter, clock):
    allowed, info = await limiter.check_rate_limit("k", RateLimitConfig(120, 5, 30))
    assert allowed is True
    assert info == {"limit": 120, "remaining": 4, "reset_at": clock.now + 30, "window": 30}
    assert list(info) == ["limit", "remaining", "reset_at", "window"]
    assert [type(value) for value in info.values()] == [int, int, float, int]


async def test_s31_info_when_denied(limiter, clock):
    config = RateLimitConfig(120, 1, 30)
    await limiter.check_rate_limit("k", config)
    allowed, info = await limiter.check_rate_limit("k", config)
    assert allowed is False
    assert info == {"limit": 120, "remaining": 0, "reset_at": clock.now + 30, "window": 30, "retry_after": 0.5}
    assert list(info)[-1] == "retry_after"


async def test_s31_remaining_is_whole_tokens(limiter, clock):
    await drain(limiter, "k")
    clock.advance(2.75)
    assert (await limiter.check_rate_limit("k"))[1]["remaining"] == 1


async def test_s31_infos_are_the_callers_own(limiter):
    first = (await limiter.check_rate_limit("a"))[1]
    second = (await limiter.check_rate_limit("b"))[1]
    first["limit"] = "changed"
    first["more"] = 1
    assert second == (await limiter.check_rate_limit("c"))[1]
    assert (await limiter.check_rate_limit("d"))[1] == second
    kept = [(await limiter.check_rate_limit("e"))[1] for _ in range(10)]
    assert [info["remaining"] for info in kept] == list(range(9, -1, -1))


# -- section 4


def test_s4_construction():
    endpoint = EndpointRateLimiter()
    assert endpoint.default_config == RateLimitConfig(60, 10)
    assert endpoint._endpoint_configs == {}
    assert isinstance(endpoint._rate_limiter, TokenBucketRateLimiter)
    assert endpoint._rate_limiter.default_config is endpoint.default_config
    assert EndpointRateLimiter(100, 20).default_config == RateLimitConfig(100, 20)


async def test_s4_start_and_stop_delegate():
    endpoint = EndpointRateLimiter()
    await endpoint.start()
    assert endpoint._rate_limiter._cleanup_task.done() is False
    await endpoint.stop()
    assert endpoint._rate_limiter._cleanup_task is None


def test_s4_set_limit():
    endpoint = EndpointRateLimiter()
    assert endpoint.set_limit("/a", 60, 15) is None
    endpoint.set_limit("/b", requests_per_minute=30)
    assert endpoint._endpoint_configs == {
        "/a": RateLimitConfig(60, 15, 60, "rl:/a"),
        "/b": RateLimitConfig(30, 5, 60, "rl:/b"),
    }


def test_s4_get_limit_is_an_exact_match():
    endpoint = EndpointRateLimiter()
    endpoint.set_limit("/a", 60, 15)
    assert endpoint.get_limit("/a") is endpoint._endpoint_configs["/a"]
    for path in ("/a/", "/A", "/a/b", ""):
        assert endpoint.get_limit(path) is endpoint.default_config


async def test_s4_check_uses_client_and_path(clock):
    endpoint = EndpointRateLimiter(clock=clock)
    endpoint.set_limit("/a", 60, 2)
    answers = [await endpoint.check("client", "/a") for _ in range(3)]
    assert [allowed for allowed, _ in answers] == [True, True, False]
    assert answers[2][1] == {"limit": 60, "remaining": 0, "reset_at": clock.now + 60, "window": 60, "retry_after": 1.0}
    assert list(endpoint._rate_limiter._buckets) == ["client:/a"]
    await endpoint.check(client_id="1.2.3.4", path="/é")
    await endpoint.check(7, None)
    assert list(endpoint._rate_limiter._buckets) == ["client:/a", "1.2.3.4:/é", "7:None"]


async def test_s4_clients_and_paths_never_share_a_bucket():
    endpoint = EndpointRateLimiter(60, 1)
    for client in ("a", "b"):
        for path in ("/x", "/y"):
            assert (await endpoint.check(client, path))[0] is True
    assert (await endpoint.check("a", "/x"))[0] is False


async def test_s4_get_stats():
    endpoint = EndpointRateLimiter()
    endpoint.set_limit("/a", 60, 1)
    for _ in range(2):
        await endpoint.check("c", "/a")
    assert await endpoint.get_stats() == {
        "allowed": 1,
        "denied": 1,
        "cleaned": 0,
        "active_buckets": 1,
        "endpoint_configs": 1,
    }
