"""How much work a run does: the full measurement, or a quick one that only shows that everything works."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """Amounts of work. The goals are meant for `FULL`."""

    rounds: int
    """Interleaved rounds of every comparison."""
    keys: int
    """Distinct keys of the checks."""
    passes: int
    """Times a warm sample goes through all keys; at least 2."""
    idle_keys: tuple[int, ...]
    """Numbers of idle keys at which memory is taken: several, because tables grow in steps."""
    flood_keys: int
    """Distinct keys sent through a limiter with the default cap."""
    requests: int
    """HTTP requests per sample."""
    waiters: int
    """Callers waiting on one key."""
    cancellations: int
    """Waits cancelled."""


FULL = Scale(
    rounds=25,
    keys=10_000,
    passes=5,
    idle_keys=(200_000, 250_000, 300_000, 350_000, 400_000),
    flood_keys=10_000_000,
    requests=2_000,
    waiters=10_000,
    cancellations=1_000_000,
)
QUICK = Scale(
    rounds=3,
    keys=500,
    passes=2,
    idle_keys=(20_000,),
    flood_keys=2_000_000,
    requests=100,
    waiters=200,
    cancellations=2_000,
)
