"""Waiting in turn for tokens: one line per key, first come first served, one timer per line.

A line holds its waiters in order of arrival. Only the first one's wait is timed; when its tokens are due the line hands out as
many turns as there are tokens and sets the timer for the next. A cancelled waiter leaves its line in O(1), and if it was
the first, or already had its turn, the turn goes on to the next. While a line stands, other checks of its key are refused, so that
nobody overtakes.

Waiters may sit on several event loops: a turn reaches another loop through its `call_soon_threadsafe`, and a closed loop's
waiters are passed over.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from peercore.ratelimit.config import RateLimitExceeded

if TYPE_CHECKING:
    from peercore.ratelimit.limiter import TokenBucketRateLimiter

_TURNS_PER_TICK = 256
"""Turns handed out before the loop runs other work: about 0.5 ms of it."""

_LEAST_DELAY_S = 0.001
"""Finest timer asyncio keeps: a shorter one would only spin."""


class _Waiter:
    __slots__ = ("cost", "future", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, cost: int) -> None:
        self.loop = loop
        self.cost = cost
        self.future: asyncio.Future[None] = loop.create_future()

    def resolve(self, error: BaseException | None = None) -> None:
        """On the waiter's own loop. A waiter cancelled meanwhile passes its turn on itself."""
        if self.future.done():
            return
        if error is None:
            self.future.set_result(None)
        else:
            self.future.set_exception(error)


class Line:
    """The waiters for one key of one limiter. Thread-safe: every method runs under the limiter's lock of lines."""

    __slots__ = ("_limiter", "_key", "_lock", "_waiters", "_timer", "_timer_loop")

    def __init__(self, limiter: TokenBucketRateLimiter, key: Any, lock: threading.RLock) -> None:
        self._limiter = limiter
        self._key = key
        self._lock = lock
        self._waiters: OrderedDict[_Waiter, None] = OrderedDict()
        self._timer: asyncio.Handle | None = None
        self._timer_loop: asyncio.AbstractEventLoop | None = None

    def join(self, cost: int, delay: float | None) -> _Waiter:
        """Adds a waiter at the end; `delay` (seconds) is when the first one's tokens are due, for a new line."""
        waiter = _Waiter(asyncio.get_running_loop(), cost)
        self._waiters[waiter] = None
        self._limiter._waiting += 1
        if delay is not None:
            self._arm(delay)
        return waiter

    def leave(self, waiter: _Waiter) -> None:
        """A waiter was cancelled before or after its turn came."""
        with self._lock:
            if waiter not in self._waiters:
                self._give_back(waiter.cost)
                return
            was_first = next(iter(self._waiters)) is waiter
            self._remove(waiter)
            if not self._waiters:
                self._close()
            elif was_first:
                first = next(iter(self._waiters))
                # The timer that runs serves as well when it cannot be late for the new first one.
                if first.loop is not waiter.loop or first.cost < waiter.cost:
                    self._advance()

    def _remove(self, waiter: _Waiter) -> None:
        del self._waiters[waiter]
        self._limiter._waiting -= 1

    def _give_back(self, cost: int) -> None:
        # Its tokens were taken in its name: they return to the bucket, and whoever is first now may have them.
        self._limiter._give_back(self._key, cost)
        if self._waiters:
            self._advance()

    def _advance(self) -> None:
        """Hands out the turns that are due and times the next one."""
        self._disarm()
        for _ in range(_TURNS_PER_TICK):
            if not self._waiters:
                self._close()
                return
            waiter = next(iter(self._waiters))
            error: BaseException | None = None
            try:
                delay = self._limiter._take(self._key, waiter.cost)
            except Exception as failure:  # a clock or configuration of the caller's that raises: the waiter hears of it
                delay, error = 0.0, failure
            if delay > 0.0:
                self._arm(delay)
                return
            self._remove(waiter)
            if not _call(waiter.loop, waiter.resolve, error) and error is None:
                self._limiter._give_back(self._key, waiter.cost)
        self._arm(0.0)

    def _arm(self, delay: float) -> None:
        """Sets the one timer, on the first waiter's loop."""
        while self._waiters:
            waiter = next(iter(self._waiters))
            self._timer_loop = waiter.loop
            if waiter.loop is _running_loop():
                self._timer = waiter.loop.call_later(max(delay, _LEAST_DELAY_S), self._on_time) if delay > 0.0 else (
                    waiter.loop.call_soon(self._on_time)
                )
                return
            if _call(waiter.loop, self._on_other_loop, delay):
                return
            self._remove(waiter)
        self._close()

    def _on_other_loop(self, delay: float) -> None:
        with self._lock:
            if self._waiters and self._timer is None and self._timer_loop is _running_loop():
                self._arm(delay)

    def _on_time(self) -> None:
        with self._lock:
            self._timer = None
            self._advance()

    def _disarm(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and self._timer_loop is _running_loop():
            timer.cancel()

    def _close(self) -> None:
        self._disarm()
        self._limiter._lines.pop(self._key, None)


async def wait_in_line(limiter: TokenBucketRateLimiter, key: Any, cost: int) -> None:
    """Returns once `cost` tokens of `key` have been taken, in turn. See `TokenBucketRateLimiter.acquire`."""
    with limiter._line_lock:
        line = limiter._lines.get(key)
        delay = None
        if line is None:
            delay = limiter._take(key, cost)
            if delay <= 0.0:
                return
        elif cost > limiter.get_config(key).burst_size:
            raise ValueError(f"cost {cost} is more than a full bucket holds")
        if limiter._waiting >= limiter.max_waiters:
            raise RateLimitExceeded(f"{limiter._waiting} callers are waiting already (max_waiters)")
        if line is None:
            line = limiter._lines[key] = Line(limiter, key, limiter._line_lock)
            _limiters_with_lines.add(limiter)
        waiter = line.join(cost, delay)
    try:
        await waiter.future
    except (asyncio.CancelledError, GeneratorExit):
        line.leave(waiter)
        raise


_limiters_with_lines: weakref.WeakSet[TokenBucketRateLimiter] = weakref.WeakSet()


def _forget_lines_after_fork() -> None:
    """The waiters' loops stayed in the parent: in the child nobody waits."""
    for limiter in list(_limiters_with_lines):
        limiter._line_lock = threading.RLock()
        limiter._lines.clear()
        limiter._waiting = 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_lines_after_fork)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _call(loop: asyncio.AbstractEventLoop, callback: Any, argument: Any) -> bool:
    """Runs `callback(argument)` on `loop`; False when that loop is closed."""
    if loop is _running_loop():
        callback(argument)
        return True
    try:
        loop.call_soon_threadsafe(callback, argument)
    except RuntimeError:
        return False
    return True
