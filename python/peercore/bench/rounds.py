"""Interleaved rounds: every side measured once per round, in changing order, and compared round by round.

A shared machine drifts (frequency, neighbours, caches) by more than the differences looked for. Sides measured moments
apart drift together, so each round gives one ratio, and the median of those ratios is the figure quoted.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median, quantiles
from types import FunctionType
from typing import Any, TypeVar

Driver = TypeVar("Driver", bound=Callable[..., Any])

WARM_UP_ROUNDS = 1


@dataclass(frozen=True)
class Side:
    """One of the things compared.

    `sample` does the work once and returns nanoseconds per operation. `prepare` and `verify` run before and after it,
    untimed; `verify` raises `ResultsDiffer` when the work was not what it should have been.
    """

    name: str
    sample: Callable[[], float]
    prepare: Callable[[], object] | None = None
    verify: Callable[[], object] | None = None


@dataclass(frozen=True)
class Spread:
    """Median and the quartiles around it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarise `values` (at least one)."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, middle, high = quantiles(values, n=4, method="inclusive")
        return cls(middle, low, high)


class ResultsDiffer(Exception):
    """The sides did not do the same work, so their times mean nothing. The text says what differs."""


@contextmanager
def quiet_gc() -> Iterator[None]:
    """Collect, then keep the cyclic collector out of what runs inside: the same on every side."""
    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def own_code(driver: Driver) -> Driver:
    """Return a copy of `driver` with a code object of its own.

    The interpreter specialises the code it runs (from 3.11 on). Sides that shared a driver would keep undoing each
    other's specialisation, which costs the quicker one more.
    """
    assert isinstance(driver, FunctionType)
    copy = FunctionType(
        driver.__code__.replace(), driver.__globals__, driver.__name__, driver.__defaults__, driver.__closure__
    )
    copy.__kwdefaults__ = driver.__kwdefaults__
    return copy  # type: ignore[return-value]


def order_of(count: int, round_number: int) -> list[int]:
    """Order of `count` sides in a round: rotated, and backwards in every other cycle."""
    order = [(position + round_number) % count for position in range(count)]
    return order if (round_number // count) % 2 == 0 else order[::-1]


def interleave(sides: Sequence[Side], rounds: int) -> dict[str, list[float]]:
    """Measure all `sides` in each of `rounds` rounds, after warm-up; return nanoseconds per operation by side name."""
    samples: dict[str, list[float]] = {side.name: [] for side in sides}
    for round_number in range(-WARM_UP_ROUNDS, rounds):
        for position in order_of(len(sides), round_number):
            side = sides[position]
            value = _sample(side)
            if round_number >= 0:
                samples[side.name].append(value)
    return samples


def _sample(side: Side) -> float:
    if side.prepare is not None:
        side.prepare()
    with quiet_gc():
        value = side.sample()
    if side.verify is not None:
        side.verify()
    return value


def ratios(slower: Sequence[float], quicker: Sequence[float]) -> list[float]:
    """Per-round ratios: how many times as long `slower` took."""
    return [a / b for a, b in zip(slower, quicker, strict=True)]


def middle(values: Sequence[float]) -> float:
    """Median."""
    return float(median(values))
