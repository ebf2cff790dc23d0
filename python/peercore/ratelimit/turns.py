"""Waiting in turn for tokens: one line per key, first come first served, one timer per line.

A line holds its waiters in order of arrival. Only the first one's wait is timed; when its tokens are due the line hands
out as many turns as there are tokens and sets the timer for the next. A cancelled waiter leaves its line in O(1), and
if it was the first, or already had its turn, the turn goes on to the next. While a line stands, other checks of its key
are refused, so that nobody overtakes.

Waiters may sit on several event loops: a turn reaches another loop through its `call_soon_threadsafe`, and a closed
loop's waiters are passed over. A line whose timer was on a loop closed since is set going again by the next check of
its key.
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

_TURNS_PER_TICK = 64
"""Turns handed out before the loop runs other work: about 0.5 ms of it with the waiters they wake."""

_LEAST_DELAY_S = 0.001
"""Finest timer asyncio keeps: a shorter one would only spin."""


class _Waiter:
    __slots__ = ("cost", "future", "has_tokens", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, cost: int) -> None:
        self.loop = loop
        self.cost = cost
        self.has_tokens = False
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

    __slots__ = ("_key", "_limiter", "_lock", "_timer", "_timer_loop", "_timing", "_waiters")

    def __init__(self, limiter: TokenBucketRateLimiter, key: Any, lock: threading.RLock) -> None:
        self._limiter = limiter
        self._key = key
        self._lock = lock
        self._waiters: OrderedDict[_Waiter, None] = OrderedDict()
        self._timer: asyncio.Handle | None = None
        # A timer on another loop cannot be cancelled from here: by its number it knows when it is out of date.
        self._timing = 0
        self._timer_loop: asyncio.AbstractEventLoop | None = None

    def join(self, cost: int, delay: float | None) -> _Waiter:
        """Adds a waiter at the end; `delay` (seconds) is when the first one's tokens are due, for a new line."""
        waiter = _Waiter(asyncio.get_running_loop(), cost)
        self._waiters[waiter] = None
        self._limiter._waiting += 1
        if delay is not None:
            self._arm(delay)
        return waiter

    def stands(self) -> bool:
        """Whether anybody waits here. A line that a closed loop left behind is set going again first."""
        loop = self._timer_loop
        if loop is not None and loop.is_closed():
            with self._lock:
                self._advance()
        return bool(self._waiters)

    def retime(self) -> None:
        """The bucket or its configuration was replaced: tokens may be due at another time than the timer waits for."""
        with self._lock:
            self._advance()

    def abandon(self, lock: threading.RLock) -> None:
        """Forget the waiters, whose loops run in another process, and the lock, which one of its threads may hold."""
        self._lock = lock
        self._waiters.clear()

    def leave(self, waiter: _Waiter) -> None:
        """A waiter was cancelled before or after its turn came."""
        with self._lock:
            if waiter not in self._waiters:
                if waiter.has_tokens:
                    self._give_back(waiter)
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

    def _first(self) -> _Waiter | None:
        """The first whose loop is open; those before it can no longer be reached and are dropped."""
        while self._waiters:
            waiter = next(iter(self._waiters))
            if not waiter.loop.is_closed():
                return waiter
            self._remove(waiter)
        return None

    def _give_back(self, waiter: _Waiter) -> None:
        # The tokens taken in its name return to the bucket, and whoever is first now may have them.
        waiter.has_tokens = False
        self._limiter._give_back(self._key, waiter.cost)
        line = self._limiter._lines.get(self._key)  # another one than this, if this one ended meanwhile
        if line is not None:
            line._advance()

    def _advance(self) -> None:
        """Hands out the turns that are due and times the next one."""
        self._disarm()
        for _ in range(_TURNS_PER_TICK):
            waiter = self._first()
            if waiter is None:
                self._close()
                return
            error: BaseException | None = None
            try:
                delay = self._limiter._take(self._key, waiter.cost)
            except Exception as failure:  # a clock or configuration of the caller's that raises: the waiter hears of it
                delay, error = 0.0, failure
            if delay > 0.0:
                self._arm(delay)
                return
            self._remove(waiter)
            waiter.has_tokens = error is None
            if not _call(waiter.loop, waiter.resolve, error) and waiter.has_tokens:
                waiter.has_tokens = False
                self._limiter._give_back(self._key, waiter.cost)
        self._arm(0.0)

    def _arm(self, delay: float) -> None:
        """Sets the one timer, on the first waiter's loop."""
        self._timing += 1
        while (waiter := self._first()) is not None:
            loop = self._timer_loop = waiter.loop
            if loop is _running_loop():
                self._timer = (
                    loop.call_later(max(delay, _LEAST_DELAY_S), self._on_time, self._timing)
                    if delay > 0.0
                    else loop.call_soon(self._on_time, self._timing)
                )
                return
            if _call(loop, self._on_other_loop, (self._timing, delay)):
                return
        self._close()

    def _on_other_loop(self, order: tuple[int, float]) -> None:
        timing, delay = order
        with self._lock:
            if timing == self._timing and self._waiters:
                self._arm(delay)

    def _on_time(self, timing: int) -> None:
        with self._lock:
            if timing == self._timing:
                self._timer = None
                self._advance()

    def _disarm(self) -> None:
        self._timing += 1
        timer, self._timer = self._timer, None
        if timer is not None and self._timer_loop is _running_loop():
            timer.cancel()

    def _close(self) -> None:
        self._disarm()
        if self._limiter._lines.get(self._key) is self:
            del self._limiter._lines[self._key]


async def wait_in_line(limiter: TokenBucketRateLimiter, key: Any, cost: int) -> None:
    """Returns once `cost` tokens of `key` have been taken, in turn. See `TokenBucketRateLimiter.acquire`."""
    with limiter._line_lock:
        line = limiter._lines.get(key)
        delay = None
        if line is None or not line.stands():
            line = None
            delay = limiter._take(key, cost)
            if delay <= 0.0:
                return
        else:
            _check_cost(cost, limiter.get_config(key).burst_size)
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


def _check_cost(cost: int, burst_size: float) -> None:
    """What the native half asks of a cost when it is used, asked on joining a line."""
    if not isinstance(cost, int):
        raise TypeError(f"cost must be an int, not {type(cost).__name__}")
    if cost < 1:
        raise ValueError(f"cost must be at least 1, got {cost}")
    if cost > burst_size:
        raise ValueError(f"cost {cost} is more than a full bucket holds (burst_size {burst_size})")


_limiters_with_lines: weakref.WeakSet[TokenBucketRateLimiter] = weakref.WeakSet()


def _forget_lines_after_fork() -> None:
    """The waiters' loops stayed in the parent: in the child nobody waits."""
    for limiter in list(_limiters_with_lines):
        lock = limiter._line_lock = threading.RLock()
        for line in limiter._lines.values():
            line.abandon(lock)
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
