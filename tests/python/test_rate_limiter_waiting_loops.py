"""`acquire` on several loops, on closed ones and after a fork: nobody waits for ever, nothing stays behind."""

import asyncio
import gc
import os
import random
import threading
import traceback
import warnings

import pytest
from waiting_lines import TIMEOUT_S, StickyLoop, assert_nobody_waits, cancel_all, queue_up

from peercore.services.rate_limiter import RateLimitConfig, TokenBucketRateLimiter


@pytest.fixture
def fast():
    """1000 tokens a second, burst 1."""
    return TokenBucketRateLimiter(RateLimitConfig(60_000, 1))


def test_loops_in_several_threads_wait_on_one_key():
    limiter = TokenBucketRateLimiter(RateLimitConfig(120_000, 2))
    per_loop, done = 100, []

    async def main():
        await asyncio.gather(*(asyncio.wait_for(limiter.acquire("k"), TIMEOUT_S) for _ in range(per_loop)))
        done.append(per_loop)

    threads = [threading.Thread(target=asyncio.run, args=(main(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT_S)
    assert sum(done) == limiter._stats["allowed"] == 4 * per_loop
    assert_nobody_waits(limiter)


def test_cancellations_in_several_loops_leave_no_second_timer():
    limiter = TokenBucketRateLimiter(RateLimitConfig(12_000, 3))
    loops, failures = [StickyLoop() for _ in range(3)], []

    async def main(loop, seed):
        chance = random.Random(seed)
        for _ in range(40):
            tasks = [asyncio.create_task(limiter.acquire("k", chance.randint(1, 3))) for _ in range(10)]
            await asyncio.sleep(0.001)
            await cancel_all(chance.sample(tasks, 9))
            await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), TIMEOUT_S)
            if len(loop.live_line_timers()) > 2:  # the one, and one that was put out of date from another loop
                failures.append(loop.live_line_timers())

    def run(loop, seed):
        loop.run_until_complete(main(loop, seed))
        loop.close()

    threads = [threading.Thread(target=run, args=(loop, seed)) for seed, loop in enumerate(loops)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT_S)
    assert failures == []
    assert_nobody_waits(limiter)


def abandon_a_waiter(limiter, key="k"):
    """Let a task wait on a loop, and close the loop; the task, which would otherwise be collected."""
    loop = asyncio.new_event_loop()

    async def start():
        (task,) = await queue_up(limiter, 1, key=key)
        await asyncio.sleep(0)
        return task

    task = loop.run_until_complete(start())
    task._log_destroy_pending = False  # the loop that could have ended it is gone, by design
    loop.close()
    return task


def test_a_closed_loop_blocks_nobody(fast):
    fast.set_config("slow", RateLimitConfig(1, 1))
    assert fast.allow_now("slow") is True
    task = abandon_a_waiter(fast, "slow")
    assert fast._waiting == 1
    fast.set_config("slow", RateLimitConfig(60_000, 1))
    while not fast.allow_now("slow"):
        pass
    assert_nobody_waits(fast)
    asyncio.run(asyncio.wait_for(fast.acquire("slow"), TIMEOUT_S))
    assert not task.done()
    del task
    gc.collect()  # its tokens do not come back, because it never had any
    assert fast._stats["allowed"] == 3
    assert_nobody_waits(fast)


def test_those_behind_a_closed_loop_get_their_turn():
    limiter = TokenBucketRateLimiter(RateLimitConfig(60_000, 1))
    limiter.set_config("k", RateLimitConfig(1, 1))
    assert limiter.allow_now("k") is True
    task = abandon_a_waiter(limiter)
    limiter.set_config("k", RateLimitConfig(60_000, 1))

    async def main():
        await asyncio.wait_for(asyncio.gather(*(limiter.acquire("k") for _ in range(3))), TIMEOUT_S)

    asyncio.run(main())
    assert_nobody_waits(limiter)
    assert not task.done()


async def test_a_second_loop_waits_behind_the_first(fast):
    fast.set_config("k", RateLimitConfig(1, 1))
    await fast.acquire("k")
    first = await queue_up(fast, 1)
    order = []

    def other():
        asyncio.run(asyncio.wait_for(fast.acquire("k"), TIMEOUT_S))
        order.append("second")

    thread = threading.Thread(target=other)
    thread.start()
    while fast._waiting < 2:
        await asyncio.sleep(0.001)
    fast.set_config("k", RateLimitConfig(60_000, 1))
    first[0].cancel()
    while thread.is_alive():
        await asyncio.sleep(0.001)
    assert order == ["second"]
    assert_nobody_waits(fast)


# -- fork


async def test_in_a_forked_child_nobody_waits(fast):
    fast.set_config("k", RateLimitConfig(1, 1))
    await fast.acquire("k")
    tasks = await queue_up(fast, 3)
    held, release = threading.Event(), threading.Event()

    def hold():
        with fast._line_lock:
            held.set()
            release.wait(TIMEOUT_S)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(TIMEOUT_S)
    child = fork()
    if child == 0:
        in_child(lambda: use_in_child(fast, tasks))
    release.set()
    holder.join()
    assert await asyncio.to_thread(exit_status, child) == 0
    assert fast._waiting == 3
    fast.set_config("k", RateLimitConfig(60_000, 1))
    tasks[0].cancel()  # its timer was set for the slow rate; the next one's is set anew by the check below
    await cancel_all(tasks)
    assert_nobody_waits(fast)


def use_in_child(limiter, tasks):
    assert_nobody_waits(limiter)
    limiter.set_config("k", RateLimitConfig(60_000, 1))
    outcome = []

    def in_a_new_thread():  # this one still counts as running the parent's loop
        asyncio.run(asyncio.wait_for(limiter.acquire("k"), TIMEOUT_S))
        outcome.append("acquired")

    thread = threading.Thread(target=in_a_new_thread)
    thread.start()
    thread.join(TIMEOUT_S)
    assert outcome == ["acquired"]
    for task in tasks:
        task.get_coro().close()  # as the collector does with them
    assert_nobody_waits(limiter)


def fork():
    # Python 3.12 warns because threads run: that is the case to test.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def in_child(work):
    status = 1
    try:
        work()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def exit_status(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
