"""`acquire`: callers wait their turn, in order, and leave nothing behind however they end."""

import asyncio
import gc
import random
import time

import pytest
from manual_clock import ManualClock
from waiting_lines import TIMEOUT_S, StickyLoop, assert_nobody_waits, cancel_all, queue_up

from peercore.ratelimit import turns
from peercore.services.rate_limiter import RateLimitConfig, RateLimitExceeded, TokenBucketRateLimiter


@pytest.fixture
def fast():
    """1000 tokens a second, burst 1."""
    return TokenBucketRateLimiter(RateLimitConfig(60_000, 1))


@pytest.fixture
def slow():
    """Never refills in a test's time, burst 1."""
    return TokenBucketRateLimiter(RateLimitConfig(1, 1))


def live_parts():
    """How many waiters and lines are in memory."""
    gc.collect()
    return sum(isinstance(found, turns.Line | turns._Waiter) for found in gc.get_objects())


async def test_tokens_that_are_there_are_taken_at_once(slow):
    assert await slow.acquire("k") is None
    assert slow._buckets["k"].tokens < 1
    assert slow._stats["allowed"] == 1
    assert_nobody_waits(slow)


async def test_first_come_first_served(fast):
    order = []
    await asyncio.gather(*await queue_up(fast, 50, note=order))
    assert order == list(range(50))
    assert fast._stats["allowed"] == 50
    assert_nobody_waits(fast)


async def test_a_smaller_cost_does_not_overtake():
    limiter = TokenBucketRateLimiter(RateLimitConfig(60_000, 10))
    order = []
    await limiter.acquire("k", 10)
    large = await queue_up(limiter, 1, cost=10, note=order)
    small = await queue_up(limiter, 3, cost=1, note=order)
    await asyncio.gather(*large, *small)
    assert order == [0, 0, 1, 2]


async def test_keys_wait_independently(slow, fast):
    await slow.acquire("a")
    waiting = await queue_up(slow, 1, key="a")
    await asyncio.wait_for(slow.acquire("b"), TIMEOUT_S)
    await cancel_all(waiting)


async def test_the_rate_is_kept():
    limiter = TokenBucketRateLimiter(RateLimitConfig(6000, 1))  # 10 ms each
    started = time.monotonic()
    await asyncio.gather(*(limiter.acquire("k") for _ in range(11)))
    assert time.monotonic() - started >= 0.0999


def test_one_timer_per_key():
    loop = StickyLoop()
    limiter = TokenBucketRateLimiter(RateLimitConfig(1, 1))

    async def main():
        for key in ("a", "b"):
            await limiter.acquire(key)
            tasks.extend(await queue_up(limiter, 500, key=key))
        assert len(loop.live_line_timers()) == 2
        await cancel_all(tasks[100:400])
        assert len(loop.live_line_timers()) == 2
        await cancel_all(tasks)
        assert loop.live_line_timers() == []

    tasks = []
    loop.run_until_complete(main())
    loop.close()
    assert_nobody_waits(limiter)


async def test_others_are_refused_while_a_line_stands(slow):
    await slow.acquire("k")
    waiting = await queue_up(slow, 1)
    slow._buckets["k"].tokens = 1.0  # a token that belongs to the one who waits
    allowed, info = await slow.check_rate_limit("k")
    assert allowed is False
    assert info["retry_after"] >= 0.1
    assert (slow.allow_now("k"), slow.check_many_now(["k", "other"])) == (False, [False, True])
    await cancel_all(waiting)
    assert slow.allow_now("k") is True


async def test_joining_a_line_that_stands_means_waiting(slow):
    await slow.acquire("k")
    waiting = await queue_up(slow, 1)
    slow._buckets["k"].tokens = 1.0
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(slow.acquire("k"), 0.01)
    await cancel_all(waiting)


# -- cancellation


async def test_cancelled_waiters_leave_and_the_others_keep_their_order(fast):
    order = []
    tasks = await queue_up(fast, 60, note=order)
    for task in tasks[1::2]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == list(range(0, 60, 2))
    assert fast._stats["allowed"] == 30
    assert_nobody_waits(fast)


async def test_cancelling_the_first_hands_the_turn_on():
    limiter = TokenBucketRateLimiter(RateLimitConfig(600, 600))  # 10 tokens a second
    order = []
    await limiter.acquire("k", 600)
    (first,) = await queue_up(limiter, 1, cost=600)  # would wait a minute
    rest = await queue_up(limiter, 3, note=order)
    first.cancel()
    await asyncio.wait_for(asyncio.gather(*rest), TIMEOUT_S)
    assert order == [0, 1, 2]
    assert first.cancelled()


async def test_cancelling_the_last_closes_the_line(slow):
    await slow.acquire("k")
    await cancel_all(await queue_up(slow, 1))
    assert_nobody_waits(slow)


async def test_cancelled_after_its_turn_came_returns_the_tokens():
    clock = ManualClock()
    limiter = TokenBucketRateLimiter(RateLimitConfig(60, 2), clock=clock)
    await limiter.acquire("k", 2)
    (task,) = await queue_up(limiter, 1, cost=2)
    line = limiter._lines["k"]
    clock.advance(2)
    line._on_time(line._timing)  # the turn is given, its task has not run yet
    assert limiter._buckets["k"].tokens == 0
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert limiter._buckets["k"].tokens == 2
    assert limiter._stats["allowed"] == 1
    assert limiter.allow_now("k", 2) is True
    assert_nobody_waits(limiter)


async def test_a_returned_turn_goes_to_the_next():
    clock = ManualClock()
    limiter = TokenBucketRateLimiter(RateLimitConfig(60, 1), clock=clock)
    await limiter.acquire("k")
    first, second = await queue_up(limiter, 2)
    line = limiter._lines["k"]
    clock.advance(1)
    line._on_time(line._timing)
    first.cancel()
    await asyncio.wait_for(second, TIMEOUT_S)
    assert first.cancelled()
    assert_nobody_waits(limiter)


async def test_a_returned_turn_reaches_the_line_that_stands_now():
    clock = ManualClock()
    limiter = TokenBucketRateLimiter(RateLimitConfig(60, 1), clock=clock)
    await limiter.acquire("k")
    (first,) = await queue_up(limiter, 1)
    line = limiter._lines["k"]
    clock.advance(1)
    line._on_time(line._timing)  # the last of its line: the line has ended
    assert limiter._lines == {}
    first.cancel()
    second = asyncio.ensure_future(limiter.acquire("k"))
    await asyncio.wait_for(second, TIMEOUT_S)
    assert_nobody_waits(limiter)


@pytest.mark.parametrize("order", ["first to last", "last to first", "random"])
async def test_leaving_looks_at_nobody_else(order):
    class Counting(TokenBucketRateLimiter):
        looked = 0

        def _take(self, key, cost):
            self.looked += 1
            return super()._take(key, cost)

    limiter = Counting(RateLimitConfig(1, 1))
    await limiter.acquire("k")
    tasks = await queue_up(limiter, 10_000)
    before = limiter.looked
    if order == "last to first":
        tasks.reverse()
    elif order == "random":
        random.Random(1).shuffle(tasks)
    await cancel_all(tasks)
    assert limiter.looked == before
    assert_nobody_waits(limiter)


async def test_many_random_cancellations_leave_no_waiter_slot_or_line():
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    limiter = TokenBucketRateLimiter(RateLimitConfig(600_000, 5), max_waiters=10_000)
    keys = [f"key {number}" for number in range(7)]
    before = live_parts()
    alive = []
    for _ in range(300):
        for _ in range(60):
            alive.append(asyncio.create_task(limiter.acquire(chance.choice(keys), chance.randint(1, 5))))
        await asyncio.sleep(0)
        for task in chance.sample(alive, len(alive) // 3):
            task.cancel()
        if chance.random() < 0.2:
            await asyncio.sleep(0.001)
        alive = [task for task in alive if not task.done()]
    await cancel_all(alive)
    assert_nobody_waits(limiter)
    del alive, task
    await asyncio.sleep(0)
    assert live_parts() == before
    for key in keys:
        await asyncio.wait_for(limiter.acquire(key, 5), TIMEOUT_S)


# -- refusals


async def test_max_waiters(slow):
    limiter = TokenBucketRateLimiter(RateLimitConfig(1, 1), max_waiters=3)
    await limiter.acquire("a")
    await limiter.acquire("b")
    tasks = await queue_up(limiter, 2, key="a") + await queue_up(limiter, 1, key="b")
    for key in ("a", "b"):
        with pytest.raises(RateLimitExceeded, match="max_waiters"):
            await limiter.acquire(key)
    await limiter.acquire("c")  # there is a token: no waiting
    await cancel_all(tasks[:1])
    tasks += await queue_up(limiter, 1, key="b")
    assert not tasks[-1].done()
    await cancel_all(tasks)
    assert_nobody_waits(limiter)


@pytest.mark.parametrize("line", [False, True], ids=["no line", "line stands"])
@pytest.mark.parametrize(
    ("cost", "error"), [(2, ValueError), (0, ValueError), (-1, ValueError), (1.5, TypeError), ("1", TypeError)]
)
async def test_impossible_costs_are_refused_at_once(slow, line, cost, error):
    await slow.acquire("k")
    waiting = await queue_up(slow, int(line))
    with pytest.raises(error, match="cost"):
        await asyncio.wait_for(slow.acquire("k", cost), TIMEOUT_S)
    await cancel_all(waiting)
    assert_nobody_waits(slow)


async def test_unhashable_key(slow):
    with pytest.raises(TypeError, match="unhashable"):
        await slow.acquire([])
    assert_nobody_waits(slow)


async def test_a_clock_that_raises_is_heard_by_the_waiter():
    class Broken(ManualClock):
        broken = False

        def __call__(self):
            if self.broken:
                raise OSError("no clock")
            return super().__call__()

    clock = Broken()
    limiter = TokenBucketRateLimiter(RateLimitConfig(60_000, 1), clock=clock)
    await limiter.acquire("k")
    tasks = await queue_up(limiter, 3)
    clock.broken = True
    results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), TIMEOUT_S)
    assert [type(result) for result in results] == [OSError] * 3
    clock.broken = False
    assert_nobody_waits(limiter)
    clock.broken = True
    with pytest.raises(OSError, match="no clock"):
        await limiter.acquire("k")


async def test_a_burst_that_shrinks_below_the_cost_is_heard_by_the_waiter():
    limiter = TokenBucketRateLimiter(RateLimitConfig(60_000, 5))
    await limiter.acquire("k", 5)
    tasks = await queue_up(limiter, 1, cost=5)
    limiter.default_config.burst_size = 2
    with pytest.raises(ValueError, match=r"^cost 5 "):
        await asyncio.wait_for(tasks[0], TIMEOUT_S)
    assert_nobody_waits(limiter)


@pytest.mark.parametrize("key", ["k", None])
async def test_a_reset_reaches_those_who_wait(slow, key):
    await slow.acquire("k")
    (waiter,) = await queue_up(slow, 1)
    await slow.reset(key)
    await asyncio.wait_for(waiter, TIMEOUT_S)
    assert_nobody_waits(slow)


async def test_a_new_configuration_reaches_those_who_wait(slow):
    await slow.acquire("k")
    (waiter,) = await queue_up(slow, 1)
    slow.set_config("k", RateLimitConfig(60_000, 1))
    await asyncio.wait_for(waiter, TIMEOUT_S)
    assert_nobody_waits(slow)


async def test_a_cost_that_no_window_admits_is_refused():
    limiter = TokenBucketRateLimiter(RateLimitConfig(5, 10), enforce_window=True)
    with pytest.raises(ValueError, match="more than a full bucket holds or a window admits"):
        await limiter.acquire("k", 6)
    await limiter.acquire("k", 5)


def test_max_waiters_out_of_range_is_named():
    with pytest.raises(ValueError, match="max_waiters must be at least 0, got -1"):
        TokenBucketRateLimiter(max_waiters=-1)
    with pytest.raises(TypeError, match="max_waiters must be an int, not str"):
        TokenBucketRateLimiter(max_waiters="many")
