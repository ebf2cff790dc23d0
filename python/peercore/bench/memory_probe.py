"""The process whose memory is measured: ``python -m peercore.bench.memory_probe TASK``, TASK as JSON; prints JSON."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import importlib
import json
import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from peercore.bench.baseline import load_file
from peercore.bench.rate_limiter_memory import NATIVE, RIVAL, Task

_BATCH = 10_000


def key(number: int) -> str:
    """Return distinct keys of 31 characters, pure ASCII, so that characters are bytes."""
    return f"10.{number % 256:03}.{number // 256 % 256:03}.{number // 65536:03}:/api/v1/messages"


def resident_bytes() -> int:
    """Resident memory of this process, after handing back what is free."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def idle_keys(task: Task) -> dict[str, Any]:
    """Bytes per key that one check each of `task.keys` distinct keys leaves behind, less the key's characters."""
    check_all, count = _checker(task)
    check_all(range(1000))  # whatever a first use sets up
    before = resident_bytes()
    check_all(range(1000, 1000 + task.keys))
    grown = resident_bytes() - before
    if count() != 1000 + task.keys:
        raise RuntimeError(f"{count()} keys are held, not {1000 + task.keys}")
    return {"bytes_per_key": grown / task.keys - len(key(0))}


def _checker(task: Task) -> tuple[Callable[[range], None], Callable[[], int]]:
    """Return a function that checks keys, which are not kept here, and one that tells how many the limiter holds."""
    if task.side == RIVAL:
        return _rival_checker()
    if task.side == NATIVE:
        from peercore.services.rate_limiter import TokenBucketRateLimiter

        limiter: Any = TokenBucketRateLimiter(max_buckets=None)
    else:
        limiter = load_file(Path(task.file)).TokenBucketRateLimiter()

    async def check(numbers: range) -> None:
        for number in numbers:
            await limiter.check_rate_limit(key(number))

    loop = asyncio.new_event_loop()
    run: Callable[[Coroutine[Any, Any, None]], None] = loop.run_until_complete
    return lambda numbers: run(check(numbers)), lambda: len(limiter._buckets)


def _rival_checker() -> tuple[Callable[[range], None], Callable[[], int]]:
    rust: Any = importlib.import_module("rust_py_rate_limit")
    limiter = rust.RateLimiter(limit=10, window_seconds=3600)

    def check(numbers: range) -> None:
        for number in numbers:
            limiter.allow(key(number))

    return check, lambda: int(limiter.stats()["active_keys"])


def flood(task: Task) -> dict[str, Any]:
    """Resident megabytes after each tenth of `task.keys` distinct keys through a limiter with the default cap."""
    from peercore.ratelimit.limiter import DEFAULT_MAX_BUCKETS, TokenBucketRateLimiter

    limiter = TokenBucketRateLimiter()
    taken = []
    tenth = task.keys // 10
    for part in range(10):
        for start in range(part * tenth, (part + 1) * tenth, _BATCH):
            limiter.check_many_now([key(number) for number in range(start, min(start + _BATCH, (part + 1) * tenth))])
        taken.append(round(resident_bytes() / 1e6, 2))
    if len(limiter._buckets) > DEFAULT_MAX_BUCKETS:
        raise RuntimeError("the cap was not kept")
    return {"rss_mb": taken}


if __name__ == "__main__":
    _task = Task(**json.loads(sys.argv[1]))
    print(json.dumps(flood(_task) if _task.flood else idle_keys(_task)))
