"""The rate limiters that the parity tests run on, each on a clock that the test sets."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from peercore.bench.baseline import load_file

BASELINE = "baseline"
NATIVE = "native"
NATIVE_V1_2 = "native, compat v1.2"
SIDES = (BASELINE, NATIVE, NATIVE_V1_2)

_FOLDER = Path(__file__).parents[2] / "benchmarks" / "baseline"
_baseline = load_file(_FOLDER / "rate_limiter.py")


class ManualClock:
    """Seconds that only the test moves. Starts at a number that 1/64 s steps never round."""

    def __init__(self) -> None:
        self.now = float(2**20)

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Side:
    """One implementation: its module, and how to make its limiters on `clock`."""

    name: str
    module: ModuleType
    clock: ManualClock

    @property
    def is_native(self) -> bool:
        return self.name != BASELINE

    @property
    def compat(self) -> dict[str, Any]:
        """Options that select the v1.2 side of the decisions, where this side is to behave so."""
        return {"compat": "v1.2"} if self.name == NATIVE_V1_2 else {}

    @property
    def options(self) -> dict[str, Any]:
        """Options of this side's limiters."""
        return {"clock": self.clock, **self.compat} if self.is_native else {}

    def limiter(self, *args: Any, **kwargs: Any) -> Any:
        return self.module.TokenBucketRateLimiter(*args, **kwargs, **self.options)

    def limiter_of(self, requests_per_minute: int, burst_size: int) -> Any:
        return self.limiter(self.module.RateLimitConfig(requests_per_minute, burst_size))

    def endpoint_limiter(self, *args: Any, **kwargs: Any) -> Any:
        return self.module.EndpointRateLimiter(*args, **kwargs, **self.options)

    def middleware(self, app: Any, limiter: Any, **kwargs: Any) -> Any:
        return self.module.RateLimitMiddleware(app, rate_limiter=limiter, **kwargs, **self.compat)

    def rate_limit(self, *args: Any, **kwargs: Any) -> Any:
        return self.module.rate_limit(*args, **kwargs, **self.compat)


def side(name: str, clock: ManualClock | None = None) -> Side:
    """Make the side called `name`. The baseline reads the clock of the side made last."""
    clock = clock or ManualClock()
    if name != BASELINE:
        return Side(name, importlib.import_module("peercore.services.rate_limiter"), clock)
    vars(_baseline).update(time=SimpleNamespace(time=clock), _default_limiter=None, _endpoint_limiter=None)
    return Side(name, _baseline, clock)
