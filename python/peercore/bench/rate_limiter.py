"""The benchmark of the rate limiter: every row of its table, in one run."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable
from contextlib import closing

from peercore.bench.baseline import Opponent
from peercore.bench.google_benchmark import core_rows
from peercore.bench.rate_limiter_asgi import middleware_row
from peercore.bench.rate_limiter_checks import Bench, allow_rows, check_many_row, check_rows
from peercore.bench.rate_limiter_memory import flood_row, memory_rows
from peercore.bench.rate_limiter_waiters import cancellation_row, lag_row
from peercore.bench.report import Row
from peercore.bench.scale import Scale

COMPONENT = "rate_limiter"
Announce = Callable[[str], object]

CORE = {"keyed_check": "C++ core, keyed check, 10k keys (figure wanted: ≤ 80 ns)"}


Part = Callable[[Bench, Opponent], list[Row]]
PARTS: dict[str, Part] = {
    "check_rate_limit": lambda bench, _: check_rows(bench),
    "allow and the rivals": lambda bench, _: allow_rows(bench),
    "check_many": lambda bench, _: [check_many_row(bench)],
    "middleware": lambda bench, _: [middleware_row(bench)],
    "memory per idle key": lambda bench, opponent: memory_rows(bench.scale, opponent.file(COMPONENT), opponent.name),
    "memory under a flood of keys": lambda bench, _: [flood_row(bench.scale)],
    "waiters on one key": lambda bench, _: [lag_row(bench)],
    "cancelled waits": lambda bench, _: [cancellation_row(bench)],
    "C++ core": lambda _bench, _: core_rows("rate_limiter_bench", CORE),
}


def measure(opponent: Opponent, scale: Scale, announce: Announce, done: Callable[[], object]) -> list[Row]:
    """Measure everything; `announce` hears the name of each part, `done` is called after it.

    Raises NoBaseline, and ResultsDiffer when the two sides do not do the same work."""
    native = importlib.import_module(f"peercore.services.{COMPONENT}")
    rows: list[Row] = []
    with closing(asyncio.new_event_loop()) as loop:
        bench = Bench(native, opponent.load(COMPONENT), opponent.name, scale, loop)
        for name, part in PARTS.items():
            announce(name)
            rows += part(bench, opponent)
            done()
    return rows
