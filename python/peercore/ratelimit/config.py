"""Configuration and state of the rate limiter: v1.2's two dataclasses and its exception (contract sections 1 and 2)."""

from __future__ import annotations

import contextlib
import copyreg
import time
from dataclasses import InitVar, dataclass, field
from typing import Any

from peercore import _core


class RateLimitExceeded(Exception):
    """A caller went over its limit. v1.2's `connection_pool` imports it from here (fault F30)."""


_NUMBERS = ("requests_per_minute", "burst_size", "window_seconds")
_STORED_NATIVELY = {*_NUMBERS, "refill_rate", "_validated"}


class _NativeField:
    """Dataclass field kept in the native half: the default on the class, the native value on an instance."""

    def __init__(self, name: str, default: int) -> None:
        self._native = getattr(_core.RateLimitConfigBase, name)
        self._default = default

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self._default if instance is None else self._native.__get__(instance)

    def __set__(self, instance: Any, value: Any) -> None:
        self._native.__set__(instance, value)


@dataclass
class RateLimitConfig(_core.RateLimitConfigBase):
    """Limits of one token bucket. Mutable: a change takes effect at the next check.

    requests_per_minute: sustained rate, a number above 0.
    burst_size: bucket capacity, at least 1.
    window_seconds: length of the reporting window, above 0; limits requests only under `enforce_window=True`.
    key_prefix: stored, never used to build keys.
    validate: `False` accepts any number; what cannot work then denies instead of raising.

    `refill_rate` (float, tokens per second) follows `requests_per_minute` until it is set by hand; setting
    `requests_per_minute` makes it follow again.
    Raises ValueError for a number out of range, naming the fields and their values, and TypeError for what is not a
    number; both also on assignment. Source: contract section 2, faults F14, F15, F20, F22.
    """

    requests_per_minute: int = _NativeField("_requests_per_minute", 60)  # type: ignore[assignment]
    burst_size: int = _NativeField("_burst_size", 10)  # type: ignore[assignment]
    window_seconds: int = _NativeField("_window_seconds", 60)  # type: ignore[assignment]
    key_prefix: str = "rl"
    validate: InitVar[bool] = field(default=True, kw_only=True)

    def __post_init__(self, validate: bool) -> None:
        self._validated = validate

    def __reduce_ex__(self, protocol: Any) -> Any:
        # Python's own way for protocols 0 and 1 refuses every class with a native base.
        if protocol >= 2:
            return super().__reduce_ex__(protocol)
        return copyreg.__newobj__, (type(self),), self.__getstate__()  # type: ignore[attr-defined]

    def __getstate__(self) -> dict[str, Any]:
        """The instance dictionary that a v1.2 object has, so that pickles look alike."""
        state = {name: getattr(self, name) for name in _NUMBERS} | self.__dict__ | {"refill_rate": self.refill_rate}
        return state if self._validated else state | {"_validated": False}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # v1.2 could have stored any number, and a rate gone stale after a change (fault F20): a pickle's numbers are
        # taken as they are, and checked from then on only if they are valid now.
        self.__dict__.update({name: value for name, value in state.items() if name not in _STORED_NATIVELY})
        for name in _NUMBERS:
            if name in state:
                setattr(self, name, state[name])
        if state.get("refill_rate", self.refill_rate) != self.refill_rate:
            self.refill_rate = state["refill_rate"]
        if state.get("_validated", True):
            with contextlib.suppress(ValueError):
                self._validated = True


@dataclass
class RateLimitState:
    """State of one token bucket: tokens left, and requests admitted in the current window.

    tokens: float. last_update, window_start: epoch seconds. request_count: requests admitted since `window_start`.
    Source: contract section 2.
    """

    tokens: float = 0.0
    last_update: float = field(default_factory=time.time)
    request_count: int = 0
    window_start: float = field(default_factory=time.time)
