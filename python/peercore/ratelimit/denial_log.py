"""Log lines about refused requests that a stranger can neither flood nor forge (fault F29)."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

logger = logging.getLogger("services.rate_limiter")

_MAX_SHOWN = 200


def printable(text: object, limit: int = _MAX_SHOWN) -> str:
    r"""Return `text` on one line of plain ASCII: other characters as ``\n``, ``\x1b``, ``\u2028``; cut after `limit`.

    What is cut is counted, so that a truncated line does not pass for a whole one.
    """
    full = text if isinstance(text, str) else repr(text)
    shown = full[:limit].encode("unicode_escape").decode("ascii")
    return shown if len(full) <= limit else f"{shown}... ({len(full)} characters)"


class DenialLog:
    """At most `lines` WARNING lines per `period_s` seconds; what was left out is counted and told with the next period.

    The first denial after a period with suppressed lines is preceded by one line with their number.
    clock: callable returning monotonic seconds. Thread-safe.
    """

    def __init__(self, lines: int = 10, period_s: float = 10.0, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._lines = lines
        self._period_s = period_s
        self._clock = clock
        self._lock = threading.Lock()
        self._period_end = float("-inf")
        self._written = 0
        self._suppressed = 0

    def __repr__(self) -> str:
        return f"<DenialLog {self._lines} lines per {self._period_s:g} s, suppressed={self._suppressed}>"

    def denied(self, key: object) -> None:
        """Log that the bucket `key` refused a request, or count it."""
        if not logger.isEnabledFor(logging.WARNING):
            return
        write, earlier = self._admit()
        # Handlers may block or log themselves: never under the lock.
        if earlier:
            logger.warning(
                "Rate limit exceeded %d more times in the last period of %g s, not logged", earlier, self._period_s
            )
        if write:
            logger.warning("Rate limit exceeded for %s", printable(key))

    def _admit(self) -> tuple[bool, int]:
        """Return whether a line may be written, and how many were suppressed in a period that has ended."""
        with self._lock:
            now = self._clock()
            earlier = 0
            if now >= self._period_end:
                earlier, self._suppressed = self._suppressed, 0
                self._period_end = now + self._period_s
                self._written = 0
            if self._written < self._lines:
                self._written += 1
                return True, earlier
            self._suppressed += 1
            return False, earlier
