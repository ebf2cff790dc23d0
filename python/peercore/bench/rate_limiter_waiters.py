"""Callers that wait in `acquire()`: how the loop feels while many do, and that cancelled ones leave nothing."""

from __future__ import annotations

import asyncio
import random
from time import perf_counter
from typing import Any

from peercore.bench.rate_limiter_checks import Bench
from peercore.bench.report import Goal, Row
from peercore.bench.rounds import ResultsDiffer

TICK_S = 0.001
SERVED_IN_S = 2.0
BURST = 50
_BATCH = 500
_KEY = "203.0.113.7:/api/v1/messages"


def lag_row(bench: Bench) -> Row:
    """99th percentile of how late a 1 ms ticker is while the waiters of one key are served one by one."""
    count = bench.scale.waiters
    lags, seconds = bench.loop.run_until_complete(_lags_while_waiting(bench, count))
    p99 = sorted(lags)[int(len(lags) * 0.99)] * 1000
    note = f"{len(lags)} ticks, worst {max(lags) * 1000:.1f} ms, {count / seconds:.0f} turns/s"
    return Row(f"{count:,} waiters on one key, lag of a 1 ms ticker, p99", "ms", Goal("value", 5), ours=p99, note=note)


async def _lags_while_waiting(bench: Bench, count: int) -> tuple[list[float], float]:
    """Return by how much each tick was late, and how long serving took, both in seconds."""
    limiter = bench.limiter(bench.native, requests_per_minute=int(count / SERVED_IN_S * 60), burst_size=BURST)
    served: list[int] = []

    async def wait(number: int) -> None:
        await limiter.acquire(_KEY)
        served.append(number)

    tasks = []
    for number in range(count):  # in batches: creating tasks is this program's load on the loop, not the limiter's
        tasks.append(asyncio.create_task(wait(number)))
        if number % _BATCH == 0:
            await asyncio.sleep(0)
    start = perf_counter()
    lags = await _ticker(tasks)
    seconds = perf_counter() - start
    await asyncio.gather(*tasks)
    if served != sorted(served):
        raise ResultsDiffer("acquire() did not serve in order of arrival")
    return lags, seconds


async def _ticker(tasks: list[asyncio.Task[None]]) -> list[float]:
    """Tick until the last of `tasks` is done; return by how much each tick was late, in seconds."""
    lags = []
    while not tasks[-1].done():
        start = perf_counter()
        await asyncio.sleep(TICK_S)
        lags.append(perf_counter() - start - TICK_S)
    return lags


def cancellation_row(bench: Bench) -> Row:
    """Waits cancelled at random moments; what is left of them afterwards: waiters, lines, missing tokens."""
    left, seconds = bench.loop.run_until_complete(_cancel_many(bench, bench.scale.cancellations))
    count = bench.scale.cancellations
    note = f"{seconds / count * 1e6:.1f} µs each, task and cancellation included"
    name = f"{count:,} cancelled waits, waiters and tokens left behind"
    return Row(name, "", Goal("value", 0), ours=float(left), note=note)


async def _cancel_many(bench: Bench, count: int) -> tuple[int, float]:
    # Turns come quicker than a wave of waiters is cancelled, so that many are cancelled with their turn just given.
    limiter = bench.limiter(bench.native, requests_per_minute=60 * 20_000, burst_size=BURST)
    chance = random.Random(count)
    cancelled = 0
    start = perf_counter()
    while cancelled < count:
        tasks = [asyncio.create_task(limiter.acquire(_KEY)) for _ in range(min(_BATCH, count - cancelled) + BURST)]
        await asyncio.sleep(0)
        chance.shuffle(tasks)
        for number, task in enumerate(tasks):
            cancelled += task.cancel()
            if number % 100 == 0:
                await asyncio.sleep(0)
        await asyncio.gather(*tasks, return_exceptions=True)
    seconds = perf_counter() - start
    return await _left_behind(limiter), seconds


async def _left_behind(limiter: Any) -> int:
    """Count waiters still in line and tokens that a quiet key should hold again and does not."""
    await asyncio.sleep(0.05)
    admitted = sum(limiter.check_many_now([_KEY] * BURST))
    missing: int = BURST - admitted
    return missing + int(limiter._waiting) + len(limiter._lines)
