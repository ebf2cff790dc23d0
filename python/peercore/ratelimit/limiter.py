"""TokenBucketRateLimiter: v1.2's limiter on the native bucket table (contract section 3)."""

from __future__ import annotations

import asyncio
import functools
import logging
import threading
import weakref
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from peercore import _core
from peercore.ratelimit.config import RateLimitConfig
from peercore.ratelimit.turns import wait_in_line
from peercore.ratelimit.views import BucketsView, StatsView, replace_contents

if TYPE_CHECKING:
    from peercore.ratelimit.endpoint import EndpointRateLimiter

logger = logging.getLogger("services.rate_limiter")

DEFAULT_MAX_BUCKETS = 100_000
DEFAULT_MAX_WAITERS = 100_000
V1_2 = "v1.2"

_SWEEP_SLICE = 4096
"""Buckets looked at before the loop runs other work: at most 0.5 ms of it."""


def native(operation: str) -> Callable[[Callable[..., Any]], Any]:
    """Decorator: the coroutine function is performed by the native `operation`.

    Its own body is the definition, and runs where the native operation does not apply.
    """
    return functools.partial(_core.NativeMethod, operation)


def check_compat(compat: str | None) -> bool:
    """True for the v1.2 side of the compatibility decisions (contract section 9)."""
    if compat not in (None, V1_2):
        raise ValueError(f"compat must be None or {V1_2!r}, got {compat!r}")
    return compat == V1_2


class TokenBucketRateLimiter(_core.RateLimiter):
    """Token buckets by key. Thread-safe; needs no running event loop; works without `start()`.

    default_config: RateLimitConfig of keys without one of their own; falsy means `RateLimitConfig()`.
    cleanup_interval: seconds between cleanups while started; a bucket idle for twice as long is dropped once it is
    full.
    max_buckets: most buckets kept (int >= 1; None: no bound). Beyond it full buckets go first, then the least recently
    used.
    clock: callable returning seconds as float, used for everything in place of the machine's clocks.
    integer_retry_after: report `retry_after` as v1.2 did, a whole number that is up to one second too long.
    enforce_window: also refuse more than `requests_per_minute` requests in one window.
    max_waiters: most callers waiting in `acquire()` (int >= 0).
    compat: "v1.2" selects v1.2's side of every one of these decisions.

    Any hashable object is a key. Raises ValueError and TypeError for arguments out of range.
    Source: contract sections 3, 7, 9.
    """

    __slots__ = (
        "_cleanup_task",
        "_cleanup_interval",
        "_compat",
        "_line_lock",
        "_loop_lock",
        "_owner",
        "_waiting",
        "max_waiters",
    )

    def __init__(
        self,
        default_config: RateLimitConfig | None = None,
        cleanup_interval: int = 300,
        *,
        max_buckets: int | None = DEFAULT_MAX_BUCKETS,
        clock: Callable[[], float] | None = None,
        integer_retry_after: bool = False,
        enforce_window: bool = False,
        max_waiters: int = DEFAULT_MAX_WAITERS,
        compat: str | None = None,
    ) -> None:
        v1_2 = check_compat(compat)
        if not isinstance(max_waiters, int):
            raise TypeError(f"max_waiters must be an int, not {type(max_waiters).__name__}")
        if max_waiters < 0:
            raise ValueError(f"max_waiters must be at least 0, got {max_waiters}")
        super().__init__(
            max_buckets=None if v1_2 else max_buckets,
            clock=clock,
            integer_retry_after=v1_2 or integer_retry_after,
            enforce_window=enforce_window,
            exact=v1_2,
        )
        self.default_config = default_config or RateLimitConfig()
        self.max_waiters = max_waiters
        self._compat = compat
        self._cleanup_interval = cleanup_interval
        self._cleanup_task: asyncio.Task[None] | None = None
        self._owner: weakref.ref[EndpointRateLimiter] | None = None
        self._line_lock = threading.RLock()
        self._loop_lock: asyncio.Lock | None = None
        self._waiting = 0

    # -- configuration

    def set_config(self, key: str, config: RateLimitConfig) -> None:
        """Give `key` a configuration of its own, replacing an earlier one."""
        self._configs[key] = config
        line = self._lines.get(key)
        if line is not None:
            line.retime()

    def get_config(self, key: str) -> RateLimitConfig:
        """The key's own configuration, or the `default_config` object itself."""
        config: RateLimitConfig = self._configs.get(key, self.default_config)
        return config

    # -- checks

    @native("rate_limiter.check_rate_limit")
    async def check_rate_limit(
        self, key: str, config: RateLimitConfig | None = None, *, cost: int = 1
    ) -> tuple[bool, dict[str, Any]]:
        """Judge one request. Never waits and never raises for a denial.

        key: any hashable. config: used when truthy, else `get_config(key)`. cost: tokens the request takes, 1 or more.
        Returns (allowed, info); info has `limit` (int), `remaining` (int), `reset_at` (epoch seconds, float), `window`
        (int) and, when denied, `retry_after` (seconds, float rounded up to 0.1; int with `integer_retry_after`).
        Raises TypeError for an unhashable key, ValueError for a cost below 1. Source: contract section 3.1.
        """
        return self.check_now(key, config, cost)

    @native("rate_limiter.allow")
    async def allow(self, key: Hashable, cost: int = 1) -> bool:
        """Take `cost` tokens from the key's bucket; True if they were there. Never waits.

        `check_rate_limit` without the info, for callers that need only the answer. Errors as there.
        """
        return self.allow_now(key, cost)

    @native("rate_limiter.check_many")
    async def check_many(self, keys: Iterable[Hashable], cost: int = 1) -> list[bool]:
        """`allow` for each of `keys`, at one reading of the clock: list of bool in the same order. Errors as there."""
        return self.check_many_now(keys, cost)

    async def acquire(self, key: Hashable, cost: int = 1) -> None:
        """Wait until `cost` tokens of `key` are there and take them.

        First come, first served: while callers wait for a key, `allow` and `check_rate_limit` refuse it to others. A
        cancelled wait leaves nothing behind, and a turn it had already been given goes to the next. Callers may wait on
        different event loops. Raises ValueError when `cost` exceeds the burst size, RateLimitExceeded when
        `max_waiters` callers wait already.
        """
        await wait_in_line(self, key, cost)

    # -- housekeeping

    async def start(self) -> None:
        """Start the cleanup task on the running loop; nothing if it runs already (on any loop that is still open)."""
        task = self._cleanup_task
        if task is None or task.done() or task.get_loop().is_closed():
            self._cleanup_task = asyncio.get_running_loop().create_task(self._cleanup_loop())

    async def stop(self) -> None:
        """Cancel the cleanup task and wait for its end; nothing when not started. Can be cancelled (fault F24)."""
        task, self._cleanup_task = self._cleanup_task, None
        if task is None or task.done():
            return
        loop = task.get_loop()
        if loop is asyncio.get_running_loop():
            task.cancel()
            await asyncio.wait([task])
        elif not loop.is_closed():
            loop.call_soon_threadsafe(task.cancel)

    async def get_stats(self) -> dict[str, int]:
        """Counters `allowed`, `denied`, `cleaned`, and `active_buckets`."""
        return {**self._stats, "active_buckets": len(self._buckets)}

    async def reset(self, key: str | None = None) -> None:
        """Drop the bucket of `key` (unknown ones are fine), or all for None. Statistics and configurations stay."""
        if key is None or (not key and self._compat == V1_2):
            self._bucket_clear()
            lines = list(self._lines.values())
        else:
            self._bucket_delete(key)
            lines = [self._lines[key]] if key in self._lines else []
        for line in lines:
            line.retime()

    async def _cleanup_loop(self) -> None:
        """Every `_cleanup_interval` seconds: `_cleanup_old_buckets()`. Errors are logged and the loop goes on."""
        while True:
            await asyncio.sleep(self._cleanup_interval)
            try:
                await self._cleanup_old_buckets()
            except Exception:
                logger.exception("Rate limiter cleanup failed")

    async def _cleanup_old_buckets(self) -> int:
        """Remove buckets idle for more than twice `_cleanup_interval` that are full again (fault F18); how many."""
        before = self._cleaned
        position: int | None = 0
        while position is not None:
            position = self._sweep(position, _SWEEP_SLICE, 2.0 * self._cleanup_interval)
            if position is not None:
                await asyncio.sleep(0)
        return self._cleaned - before

    # -- state, under v1.2's private names

    @property
    def _buckets(self) -> BucketsView:
        """key -> RateLimitState over the live buckets."""
        return BucketsView(self)

    @_buckets.setter
    def _buckets(self, contents: Mapping[Any, Any]) -> None:
        replace_contents(BucketsView(self), contents)

    @_buckets.deleter
    def _buckets(self) -> None:
        self._bucket_clear()

    @property
    def _stats(self) -> StatsView:
        """The counters, live."""
        return StatsView(self)

    @_stats.setter
    def _stats(self, contents: Mapping[str, int]) -> None:
        replace_contents(StatsView(self), contents)

    @property
    def _lock(self) -> asyncio.Lock:
        """v1.2's one lock for all keys. Kept for callers that take it; the native checks need none."""
        if self._loop_lock is None:
            self._loop_lock = asyncio.Lock()
        return self._loop_lock

    def __repr__(self) -> str:
        bound = "unbounded" if self.max_buckets is None else f"max_buckets={self.max_buckets}"
        return (
            f"<{type(self).__name__} buckets={len(self._buckets)} {bound} allowed={self._allowed} denied={self._denied}"
            f"{' started' if self._cleanup_task is not None else ''} default={self.default_config!r}>"
        )


TokenBucketRateLimiter._bind()
