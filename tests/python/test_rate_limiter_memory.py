"""The rate limiter's memory stays what it is, whatever is done for however long."""

import asyncio
import gc
import os
import sys

import pytest

from peercore.services.rate_limiter import EndpointRateLimiter, RateLimitConfig, TokenBucketRateLimiter


class Unhashable:
    """A key whose hash raises an error of its own."""

    def __hash__(self):
        raise LookupError("no hash")


def resident_bytes():
    gc.collect()
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def slope(work, warm_up=2, rounds=4):
    """How many bytes this process grows by while `work(round)` is done `rounds` times, after a warm-up."""
    for number in range(warm_up):
        work(number)
    before = resident_bytes()
    for number in range(warm_up, warm_up + rounds):
        work(number)
    return resident_bytes() - before


@pytest.mark.rss
def test_rss_is_flat_through_ever_new_keys():
    limiter = TokenBucketRateLimiter(max_buckets=10_000)

    def work(number):
        limiter.check_many_now([f"client {number} {each}" for each in range(100_000)])
        limiter.check_many_now([(number, each) for each in range(20_000)])

    assert slope(work) < 4 << 20


@pytest.mark.rss
def test_rss_is_flat_through_coroutines_infos_and_configs():
    async def work(number):
        limiter = TokenBucketRateLimiter()
        endpoint = EndpointRateLimiter()
        for each in range(20_000):
            await limiter.check_rate_limit("k")
            await limiter.allow("k")
            limiter.check_rate_limit("k").close()
            await endpoint.check("client", "/path")
            limiter.set_config("k", RateLimitConfig(60, 1 + each % 50))

    assert slope(lambda number: asyncio.run(work(number))) < 2 << 20


@pytest.mark.rss
def test_rss_is_flat_through_errors():
    limiter = TokenBucketRateLimiter()

    def work(_):
        for each in range(10_000):
            for bad, *args in (
                (limiter.allow_now, []),
                (limiter.allow_now, "k", 0),
                (limiter.check_now, Unhashable()),
                (limiter.check_now, ("new", each), 7),
                (RateLimitConfig, 0),
            ):
                with pytest.raises((TypeError, ValueError, LookupError, AttributeError)):
                    bad(*args)

    assert slope(work, rounds=2) < 2 << 20


@pytest.mark.rss
def test_waiting_leaves_no_memory_behind():
    async def work():
        limiter = TokenBucketRateLimiter(RateLimitConfig(60, 1))
        await limiter.acquire("k")
        tasks = [asyncio.ensure_future(limiter.acquire("k")) for _ in range(2000)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def blocks_after_work():
        asyncio.run(work())
        gc.collect()
        return sys.getallocatedblocks()  # tasks break memory up too much for the process's size to tell

    blocks_after_work()
    first = blocks_after_work()
    for _ in range(5):
        last = blocks_after_work()
    assert last - first < 500
