"""Faults of v1.2's limiter that are gone (contract, rate_limiter, section 8).

Those of its web layer (F1, F2, F4-F8, F10, F21, F25, F29) have files of their own, test_rate_limit_*.
"""

import asyncio
import math
import sys
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from manual_clock import ManualClock
from stack_process import copy_stack, result_of, run_code

from peercore.services import rate_limiter as module
from peercore.services.rate_limiter import (
    EndpointRateLimiter,
    RateLimitConfig,
    RateLimitExceeded,
    TokenBucketRateLimiter,
)

HOUR = 3600.0


@pytest.fixture
def clock():
    return ManualClock()


def use_up(limiter, key="k", config=None):
    """How many requests are admitted before one is refused."""
    count = 0
    while limiter.check_now(key, config)[0]:
        count += 1
    return count


@pytest.mark.parametrize("rate", [1, 2, 5])
async def test_f3_default_burst_below_six_a_minute_is_one(rate, clock):
    endpoint = EndpointRateLimiter(clock=clock)
    endpoint.set_limit("/slow", rate)
    assert endpoint.get_limit("/slow").burst_size == 1
    assert (await endpoint.check("c", "/slow"))[0] is True
    assert (await endpoint.check("c", "/slow"))[0] is False


async def test_f9_limits_of_init_rate_limiters_apply_and_are_reachable_from_the_inner_limiter(monkeypatch):
    monkeypatch.setattr(module, "_default_limiter", None)
    monkeypatch.setattr(module, "_endpoint_limiter", None)
    await module.init_rate_limiters()
    endpoint = module.get_endpoint_rate_limiter()
    assert [(await endpoint.check("c", "/auth/token"))[0] for _ in range(3)] == [True, True, False]
    assert endpoint._rate_limiter._owner() is endpoint
    assert module.get_rate_limiter()._owner is None
    await module.shutdown_rate_limiters()


async def test_f11_a_limiter_that_is_never_started_stays_bounded(clock):
    endpoint = EndpointRateLimiter(60, 1, max_buckets=50, clock=clock)
    for number in range(5000):
        await endpoint.check(f"client {number}", "/path")
    assert endpoint._rate_limiter._cleanup_task is None
    assert len(endpoint._rate_limiter._buckets) == 50
    assert endpoint._rate_limiter.evicted == 4950


def test_f12_wall_clock_step_back_locks_nobody_out(clock):
    limiter = TokenBucketRateLimiter(RateLimitConfig(60, 2), clock=clock)
    limiter.check_now("k")
    clock.advance(-HOUR)
    assert limiter.check_now("k")[0] is True
    denied = limiter.check_now("k")[1]
    assert denied["retry_after"] == 1.0
    assert limiter._buckets["k"].tokens == 0.0


@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_f12_f13_steps_of_the_wall_clock_change_no_tokens(monkeypatch, step):
    limiter = TokenBucketRateLimiter(RateLimitConfig(1, 3))
    assert use_up(limiter) == 3
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + step)
    denied = limiter.check_now("k")[1]
    assert 59 < denied["retry_after"] <= 60.0


def test_f13_wall_clock_step_forward_grants_nothing(monkeypatch):
    limiter = TokenBucketRateLimiter(RateLimitConfig(1, 3))
    assert use_up(limiter) == 3
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + HOUR)
    assert use_up(limiter) == 0


def test_f14_rate_of_zero_is_refused_or_denies():
    with pytest.raises(ValueError, match=r"requests_per_minute must be a finite number above 0 .*_minute=0"):
        RateLimitConfig(0)
    with pytest.raises(ValueError, match="requests_per_minute"):
        EndpointRateLimiter().set_limit("/x", 0, 1)
    limiter = TokenBucketRateLimiter(RateLimitConfig(0, 1, validate=False))
    assert use_up(limiter) == 1
    allowed, info = limiter.check_now("k")
    assert allowed is False
    assert 0 < info["retry_after"] < math.inf
    assert limiter._stats["denied"] == 2


def test_f15_negative_rate_is_refused_or_denies(clock):
    with pytest.raises(ValueError, match="requests_per_minute=-60"):
        RateLimitConfig(-60)
    limiter = TokenBucketRateLimiter(RateLimitConfig(-60, 3, validate=False), clock=clock)
    limiter.check_now("k")
    clock.advance(100)
    assert use_up(limiter) == 2  # the tokens did not drain by themselves
    assert limiter.check_now("k")[1]["retry_after"] > 0


@pytest.mark.parametrize(("rate", "expected"), [(60, 1.0), (5, 12.0), (600, 0.1), (1, 60.0), (7, 8.6), (40, 1.5)])
def test_f16_retry_after_is_the_smallest_wait_rounded_up(rate, expected, clock):
    limiter = TokenBucketRateLimiter(RateLimitConfig(rate, 1), clock=clock)
    use_up(limiter)
    assert limiter.check_now("k")[1]["retry_after"] == expected


@given(
    rate=st.integers(1, 100_000),
    burst=st.integers(1, 1000),
    cost=st.integers(1, 1000),
    waited=st.floats(0, 100),
    start=st.floats(0, 2e9),
)
def test_f16_who_waits_retry_after_is_admitted_and_a_tenth_less_is_not_enough(rate, burst, cost, waited, start):
    cost = min(cost, burst)
    clock = ManualClock(start)
    limiter = TokenBucketRateLimiter(RateLimitConfig(rate, burst), clock=clock)
    limiter.check_now("k", cost=burst)
    clock.advance(min(waited, burst * 60 / rate))
    allowed, info = limiter.check_now("k", cost=cost)
    if allowed:
        return
    refused_at = clock.now
    assert info["retry_after"] == pytest.approx(round(info["retry_after"], 1), abs=1e-9)
    clock.now = max(refused_at, refused_at + info["retry_after"] - 0.1 - 1e-5)  # 10 us: beyond rounding and slack
    assert limiter.allow_now("k", cost) is False
    clock.now = refused_at + info["retry_after"]
    assert limiter.allow_now("k", cost) is True


def admitted_in_the_first_minute(limiter, clock, asked_every=0.25):
    admitted, end = 0, clock.now + 60
    while clock.now < end:
        admitted += limiter.allow_now("k")
        clock.advance(asked_every)
    return admitted


def test_f17_window_is_enforced_when_asked(clock):
    config = RateLimitConfig(60, 10)
    limiter = TokenBucketRateLimiter(config, clock=clock, enforce_window=True)
    assert admitted_in_the_first_minute(limiter, clock) == 60
    assert use_up(limiter) == 0
    clock.advance(1)
    assert limiter.allow_now("k") is True  # the next window


def test_f17_window_shapes_retry_after_when_enforced(clock):
    limiter = TokenBucketRateLimiter(RateLimitConfig(2, 2, 60), clock=clock, enforce_window=True)
    use_up(limiter)
    clock.advance(45)  # a token is there again, the window is not over
    allowed, info = limiter.check_now("k")
    assert (allowed, info["retry_after"]) == (False, 15.1)  # 15.0 is not enough: a window has to be strictly over
    clock.advance(15)
    assert limiter.allow_now("k") is False
    clock.advance(0.1)
    assert limiter.allow_now("k") is True


async def test_f18_cleanup_drops_only_what_is_full_again(clock):
    limiter = TokenBucketRateLimiter(RateLimitConfig(1, 100), clock=clock)
    assert use_up(limiter) == 100
    clock.advance(601)
    assert await limiter._cleanup_old_buckets() == 0
    assert use_up(limiter) == 10
    clock.advance(100 * 60)
    assert await limiter._cleanup_old_buckets() == 1
    assert use_up(limiter) == 100


async def test_f19_resetting_the_empty_key_spares_the_others():
    limiter = TokenBucketRateLimiter()
    for key in ("", "a"):
        await limiter.check_rate_limit(key)
    await limiter.reset("")
    assert list(limiter._buckets) == ["a"]


@pytest.mark.parametrize("key", [0, False, (), frozenset(), 0.0, b""])
async def test_f19_other_falsy_keys_are_keys_too(key):
    limiter = TokenBucketRateLimiter()
    for each in (key, "a"):
        await limiter.check_rate_limit(each)
    await limiter.reset(key)
    assert list(limiter._buckets) == ["a"]


def test_f20_refill_follows_a_changed_rate(clock):
    config = RateLimitConfig(60, 10)
    limiter = TokenBucketRateLimiter(config, clock=clock)
    use_up(limiter)
    config.requests_per_minute = 600
    assert config.refill_rate == 10.0
    assert limiter.check_now("k")[1]["limit"] == 600
    clock.advance(0.5)
    assert use_up(limiter) == 5
    config.refill_rate = 1.0  # set by hand: until the rate is set again
    clock.advance(3)
    assert use_up(limiter) == 3
    config.requests_per_minute = 120
    assert config.refill_rate == 2.0


def test_f22_a_burst_below_one_is_refused_everywhere():
    for make in (
        lambda: RateLimitConfig(60, 0),
        lambda: RateLimitConfig(burst_size=-1),
        lambda: EndpointRateLimiter(60, 0),
        lambda: EndpointRateLimiter().set_limit("/x", 60, 0),
        lambda: setattr(RateLimitConfig(), "burst_size", 0),
    ):
        with pytest.raises(ValueError, match="burst_size must be a finite number of at least 1"):
            make()


def test_f23_start_on_a_second_loop_runs_cleanup_again():
    limiter = TokenBucketRateLimiter()
    asyncio.run(limiter.start())
    first = limiter._cleanup_task
    assert first.done()

    async def second():
        await limiter.start()
        assert limiter._cleanup_task is not first
        assert limiter._cleanup_task.done() is False
        assert limiter._cleanup_task.get_loop() is asyncio.get_running_loop()
        await limiter.stop()

    asyncio.run(second())
    assert limiter._cleanup_task is None


def test_f23_start_after_a_loop_that_closed_over_its_pending_task():
    limiter = TokenBucketRateLimiter()
    loop = asyncio.new_event_loop()
    loop.run_until_complete(limiter.start())
    first = limiter._cleanup_task
    loop.close()
    assert not first.done()

    async def second():
        await limiter.start()
        assert limiter._cleanup_task is not first
        await limiter.stop()

    asyncio.run(second())
    first._log_destroy_pending = False  # the loop that could have ended it is gone, by this test's design


def test_f23_stop_from_another_loop_than_start():
    limiter = TokenBucketRateLimiter()
    loop = asyncio.new_event_loop()
    loop.run_until_complete(limiter.start())
    task = limiter._cleanup_task
    asyncio.run(limiter.stop())
    assert limiter._cleanup_task is None
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)
    loop.close()


async def test_f24_cancelling_stop_propagates():
    release = asyncio.Event()

    class Stubborn(TokenBucketRateLimiter):
        async def _cleanup_loop(self):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await release.wait()

    limiter = Stubborn()
    await limiter.start()
    cleanup = limiter._cleanup_task
    await asyncio.sleep(0)
    stopping = asyncio.create_task(limiter.stop())
    await asyncio.sleep(0)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    assert stopping.cancelled()
    release.set()
    await cleanup


def test_f26_threads_share_a_bucket_exactly(clock):
    limiter = TokenBucketRateLimiter(RateLimitConfig(60, 500), clock=clock)
    admitted, each = [], 1000
    barrier = threading.Barrier(4)

    def work():
        barrier.wait()
        admitted.append(sum(limiter.allow_now("k") for _ in range(each)))

    in_threads(work, 4)
    assert sum(admitted) == 500
    assert dict(limiter._stats) == {"allowed": 500, "denied": 4 * each - 500, "cleaned": 0}


def test_f26_loops_in_threads_share_a_limiter(clock):
    limiter = TokenBucketRateLimiter(RateLimitConfig(60, 10), clock=clock)
    admitted = []

    def work():
        async def main():
            answers = [await limiter.check_rate_limit(f"key {number % 20}") for number in range(1000)]
            admitted.append(sum(allowed for allowed, _ in answers))

        asyncio.run(main())

    in_threads(work, 4)
    assert sum(admitted) == 20 * 10
    assert len(limiter._buckets) == 20


def in_threads(work, count):
    """Run `work` in threads that take turns as often as Python can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)


def test_f27_both_import_paths_give_one_module_and_one_limiter(tmp_path):
    stack = copy_stack(tmp_path)
    code = """
        import json, peercore
        peercore.install()
        import rate_limiter, services.rate_limiter
        print(json.dumps([rate_limiter is services.rate_limiter,
                          rate_limiter.get_rate_limiter() is services.rate_limiter.get_rate_limiter()]))
    """
    assert result_of(code, path=[stack, stack / "services"]) == [True, True]


def test_f28_importing_configures_no_logging():
    printed = run_code("""
        import logging
        import peercore.services.rate_limiter as module
        print(logging.root.handlers, logging.root.level == logging.WARNING, module.logger.name, module.logger.handlers,
              module.logger.level, module.logger.propagate)
    """)
    assert printed == "[] True services.rate_limiter [] 0 True\n"


def test_f30_rate_limit_exceeded_is_defined():
    assert issubclass(RateLimitExceeded, Exception)
    assert RateLimitExceeded.__module__ == module.__name__
    assert "RateLimitExceeded" in module.__all__
    assert str(RateLimitExceeded("why")) == "why"
