"""Checks per second: `check_rate_limit`, `allow` and `check_many` beside the baseline and the rivals.

Times include the `for` loop over the keys and the attribute lookup on the limiter, as in a caller's code, on every
side. They are CPU times of the one thread that does the work: other programs' turns on the processor are not in them.
"""

from __future__ import annotations

import asyncio
import importlib
import random
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from time import thread_time_ns
from types import ModuleType
from typing import Any

from peercore.bench.report import Goal, Row, compared
from peercore.bench.rounds import ResultsDiffer, Side, interleave, own_code
from peercore.bench.scale import Scale

AMPLE = 100_000_000
"""A burst that no run uses up."""
CHUNK = 1000
COLD_BYTES = 24 << 20
_CACHE_LINE = 64

RUST = "rust-py-rate-limit"
AIOLIMITER = "aiolimiter"


def shuffled_keys(count: int) -> list[str]:
    """Return `count` distinct keys of the form "<client>:<path>" in a fixed random order."""
    keys = [f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}:/api/v1/messages" for number in range(count)]
    random.Random(count).shuffle(keys)
    return keys


def known_before(keys: Sequence[str]) -> list[str]:
    """Return `keys` as earlier requests brought them: equal but other objects, in sorted order.

    Every request makes its key anew, so the object that a limiter holds is never the one that is asked for. And checked
    in the order they came in, memory would be read front to back.
    """
    return [key[:1] + key[1:] for key in sorted(keys)]


async def drive_check(limiter: Any, keys: Sequence[str]) -> int:
    """Return nanoseconds for one awaited `check_rate_limit` per key."""
    start = thread_time_ns()
    for key in keys:
        _ok, _info = await limiter.check_rate_limit(key)
    return thread_time_ns() - start


async def drive_allow(limiter: Any, keys: Sequence[str]) -> int:
    """Return nanoseconds for one awaited `allow` per key."""
    start = thread_time_ns()
    for key in keys:
        _ok = await limiter.allow(key)
    return thread_time_ns() - start


async def drive_allow_sync(limiter: Any, keys: Sequence[str]) -> int:
    """Return nanoseconds for one synchronous `allow` per key."""
    start = thread_time_ns()
    for key in keys:
        _ok = limiter.allow(key)
    return thread_time_ns() - start


async def drive_dict_of_limiters(limiters: Any, keys: Sequence[str]) -> int:
    """Return nanoseconds for one `acquire` per key on a dict of limiters."""
    start = thread_time_ns()
    for key in keys:
        await limiters[key].acquire()
    return thread_time_ns() - start


async def drive_check_many(limiter: Any, chunks: Sequence[Sequence[str]]) -> int:
    """Return nanoseconds for one awaited `check_many` per chunk."""
    start = thread_time_ns()
    for chunk in chunks:
        _answers = await limiter.check_many(chunk)
    return thread_time_ns() - start


Driver = Callable[[Any, Sequence[Any]], Coroutine[Any, Any, int]]
Run = Callable[[Awaitable[Any]], Any]


@dataclass
class Bench:
    """What the rows of one run share: the two modules, the event loop, the amount of work."""

    native: ModuleType
    opponent: ModuleType
    opponent_name: str
    scale: Scale
    loop: asyncio.AbstractEventLoop

    def limiter(self, module: ModuleType, requests_per_minute: int = 60, burst_size: int = AMPLE) -> Any:
        """Make a limiter of `module` whose every key has this configuration."""
        return module.TokenBucketRateLimiter(module.RateLimitConfig(requests_per_minute, burst_size))

    def side(self, name: str, driver: Driver, target: Any, work: Sequence[Any], operations: int, **hooks: Any) -> Side:
        """Make a side that runs `driver` on `target`; `operations` is what one sample counts as."""
        own = own_code(driver)
        return Side(name, lambda: self.loop.run_until_complete(own(target, work)) / operations, **hooks)

    def counting_side(self, name: str, driver: Driver, limiter: Any, work: Sequence[Any], expected: Counts) -> Side:
        """Like `side`, for limiters with `get_stats()`: every sample has to admit and deny just what is `expected`.

        Before each sample the `expected.primed` keys are checked once, untimed: that makes and warms their buckets.
        """
        before: dict[str, int] = {}

        async def prepare() -> None:
            if expected.reset:
                await limiter.reset()
            for key in known_before(expected.primed):
                await limiter.check_rate_limit(key)
            nonlocal before
            before = await limiter.get_stats()
            expected.after_priming()

        async def verify() -> None:
            after = await limiter.get_stats()
            counts = (after["allowed"] - before["allowed"], after["denied"] - before["denied"])
            if counts != (expected.allowed, expected.denied):
                raise ResultsDiffer(f"{name} admitted and denied {counts}, not {(expected.allowed, expected.denied)}")

        run = self.loop.run_until_complete
        hooks = {"prepare": lambda: run(prepare()), "verify": lambda: run(verify())}
        return self.side(name, driver, limiter, work, expected.allowed + expected.denied, **hooks)


@dataclass(frozen=True)
class Counts:
    """What one sample has to count, and the checks that set it up."""

    allowed: int
    denied: int
    primed: Sequence[str] = ()
    reset: bool = False
    after_priming: Callable[[], object] = lambda: None


def check_rows(bench: Bench) -> list[Row]:
    """`check_rate_limit`, all admitted and 90 % denied, against the other side's `check_rate_limit`."""
    keys = shuffled_keys(bench.scale.keys)
    admitted = Counts(len(keys) * bench.scale.passes, 0, primed=keys)
    denied = Counts(len(keys), len(keys) * 9, primed=keys, reset=True)
    cases = [
        ("check_rate_limit, all admitted", Goal("ratio", 6), admitted, keys * bench.scale.passes, (60, AMPLE)),
        # Two tokens, one taken beforehand; the next one comes after a minute.
        ("check_rate_limit, 90 % denied", Goal("ratio", 5), denied, keys * 10, (1, 2)),
    ]
    rows = []
    for name, goal, counts, work, config in cases:
        ours, theirs = bench.limiter(bench.native, *config), bench.limiter(bench.opponent, *config)
        bench.loop.run_until_complete(same_answers(bench, *config, work))
        sides = [
            bench.counting_side("peercore", drive_check, ours, work, counts),
            bench.counting_side(bench.opponent_name, drive_check, theirs, work, counts),
        ]
        samples = interleave(sides, bench.scale.rounds)
        rows.append(compared(name, goal, bench.opponent_name, samples))
    return rows


async def same_answers(bench: Bench, requests_per_minute: int, burst_size: int, keys: Sequence[str]) -> None:
    """Run `keys` through new limiters of both sides; raises ResultsDiffer at the first answer that is not the same."""
    ours, allow, many, theirs = (
        bench.limiter(module, requests_per_minute, burst_size)
        for module in (bench.native, bench.native, bench.native, bench.opponent)
    )
    answers = []
    for key in keys:
        mine, yours = await ours.check_rate_limit(key), await theirs.check_rate_limit(key)
        if not same_answer(mine, yours):
            raise ResultsDiffer(f"check_rate_limit({key!r}): {mine} here, {yours} there")
        if await allow.allow(key) != yours[0]:
            raise ResultsDiffer(f"allow({key!r}) differs from check_rate_limit, which gave {yours[0]}")
        answers.append(yours[0])
    if await many.check_many(keys) != answers:
        raise ResultsDiffer("check_many differs from check_rate_limit")
    for name in ("allowed", "denied", "active_buckets"):
        mine, yours = (await ours.get_stats())[name], (await theirs.get_stats())[name]
        if mine != yours:
            raise ResultsDiffer(f"get_stats()[{name!r}]: {mine} here, {yours} there")


def same_answer(ours: tuple[bool, dict[str, Any]], theirs: tuple[bool, dict[str, Any]]) -> bool:
    """Compare two answers taken moments apart on clocks of their own.

    `retry_after` is rounded up to 0.1 s here and to more than the next second in v1.2 (fault F16, contract section 9).
    """
    (ok, info), (other_ok, other) = ours, theirs
    return (
        ok == other_ok
        and info.keys() == other.keys()
        and all(info[name] == other[name] for name in ("limit", "remaining", "window"))
        and abs(info["reset_at"] - other["reset_at"]) < 1.0
        and (ok or -0.2 < other["retry_after"] - info["retry_after"] < 1.2)
    )


def allow_rows(bench: Bench) -> list[Row]:
    """`allow` with warm and with cold caches, against the other side's `check_rate_limit` and the rivals."""
    keys = shuffled_keys(bench.scale.keys)
    warm = keys * bench.scale.passes
    name = bench.opponent_name
    ours, theirs = bench.limiter(bench.native), bench.limiter(bench.opponent)
    bench.loop.run_until_complete(same_answers(bench, 60, AMPLE, keys))
    counts = Counts(len(warm), 0, primed=keys)
    sides = [
        bench.counting_side("peercore", drive_allow, ours, warm, counts),
        bench.counting_side(name, drive_check, theirs, warm, counts),
        *_rivals(bench, keys, warm),
    ]
    samples = interleave(sides, bench.scale.rounds)
    aiolimiter_goal = 4 if sys.version_info >= (3, 13) else 6
    return [
        compared("allow, warm cache", Goal("ratio", 10), name, samples, note="there: check_rate_limit"),
        _cold_row(bench, keys),
        _rival_row("allow, there a synchronous one", Goal("ratio", 1.3), RUST, samples),
        _rival_row("allow, there acquire() in a dict per key", Goal("ratio", aiolimiter_goal), AIOLIMITER, samples),
    ]


def _cold_row(bench: Bench, keys: Sequence[str]) -> Row:
    """Each sample is one pass over the keys after 24 MB of other memory has been touched."""
    other_memory = bytearray(COLD_BYTES)

    def touch() -> int:
        return sum(other_memory[::_CACHE_LINE])

    ours, theirs = bench.limiter(bench.native), bench.limiter(bench.opponent)
    counts = Counts(len(keys), 0, primed=keys, after_priming=touch)
    sides = [
        bench.counting_side("peercore", drive_allow, ours, keys, counts),
        bench.counting_side(bench.opponent_name, drive_check, theirs, keys, counts),
    ]
    samples = interleave(sides, bench.scale.rounds)
    note = "there: check_rate_limit"
    return compared("allow, cold cache (24 MB touched)", Goal("ratio", 7), bench.opponent_name, samples, note=note)


def _rivals(bench: Bench, keys: Sequence[str], work: Sequence[str]) -> list[Side]:
    """Other packages' limiters, where installed, set up to admit everything and to know every key."""
    sides = []
    if rust := installed("rust_py_rate_limit"):
        limiter = rust.RateLimiter(limit=AMPLE, window_seconds=3600)
        if not all(limiter.allow(key) for key in known_before(keys)):
            raise ResultsDiffer(f"{RUST} refused a request")
        sides.append(bench.side(RUST, drive_allow_sync, limiter, work, len(work)))
    if aio := installed("aiolimiter"):
        limiters = {key: aio.AsyncLimiter(AMPLE, 60) for key in known_before(keys)}
        sides.append(bench.side(AIOLIMITER, drive_dict_of_limiters, limiters, work, len(work)))
    return sides


def installed(module: str) -> ModuleType | None:
    """Return an optional package, or None where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError:
        return None


def _rival_row(name: str, goal: Goal, rival: str, samples: dict[str, list[float]]) -> Row:
    if rival not in samples:
        return Row(name, "ns", goal, rival, absent="not installed")
    return compared(name, goal, rival, samples)


def check_many_row(bench: Bench) -> Row:
    """`check_many` of 1000 keys at a time, per key, against the other side's `check_rate_limit` of each."""
    keys = shuffled_keys(bench.scale.keys)
    work = keys * bench.scale.passes
    chunks = [work[start : start + CHUNK] for start in range(0, len(work), CHUNK)]
    counts = Counts(len(work), 0, primed=keys)
    ours, theirs = bench.limiter(bench.native), bench.limiter(bench.opponent)
    sides = [
        bench.counting_side("peercore", drive_check_many, ours, chunks, counts),
        bench.counting_side(bench.opponent_name, drive_check, theirs, work, counts),
    ]
    samples = interleave(sides, bench.scale.rounds)
    name = f"check_many of {CHUNK} keys, per key"
    return compared(name, Goal("ratio", 20), bench.opponent_name, samples, note="there: check_rate_limit")
