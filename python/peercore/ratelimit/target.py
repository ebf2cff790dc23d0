"""What a middleware or dependency limits with: a limiter, or one with limits by path (faults F8 and F9)."""

from __future__ import annotations

import weakref
from collections.abc import Awaitable, Mapping
from types import MappingProxyType
from typing import Any

from peercore.ratelimit.headers import Info, Policy

_NO_PATHS: Mapping[str, Any] = MappingProxyType({})
_MINUTE_S = 60


class Target:
    """One limiter as its users see it: keys to check, and the paths that have limits of their own.

    limiter: a TokenBucketRateLimiter or an EndpointRateLimiter (or an object with the methods of one). Given the
    latter, every request is judged by `get_limit(path)`, as its own `check` does; given the inner limiter of one, only
    paths in its table are, and other requests as the inner limiter itself sees fit.
    `check_rate_limit` is called through the object, so that an overridden or patched one is honoured; the native one
    answers within the await, without a turn of the event loop. Raises TypeError for an object that cannot check.
    """

    __slots__ = ("_core", "_every_path", "_table", "limiter")

    def __init__(self, limiter: Any, apply_endpoint_limits: bool = True) -> None:
        self.limiter = limiter
        core = limiter if hasattr(limiter, "check_rate_limit") else getattr(limiter, "_rate_limiter", None)
        if not hasattr(core, "check_rate_limit"):
            raise TypeError(f"rate_limiter must be a TokenBucketRateLimiter or an EndpointRateLimiter, got {limiter!r}")
        self._core: Any = core
        # Held: the table has to outlive the caller's last reference to the limiter that owns it.
        self._table: Any = _owner_of(limiter, core) if apply_endpoint_limits else None
        self._every_path = self._table is limiter

    def __repr__(self) -> str:
        return f"<Target {self.limiter!r} paths={sorted(self.paths)}>"

    @property
    def paths(self) -> Mapping[str, Any]:
        """path -> configuration, live; empty without a path table."""
        return _NO_PATHS if self._table is None else self._table._endpoint_configs

    def check(self, key: Any, path: str) -> Awaitable[tuple[bool, Info]]:
        """Return the awaitable (allowed, info) of one request, judged by the limit of its path, else of its key."""
        table = self._table
        answer: Awaitable[tuple[bool, Info]]
        if table is not None and (self._every_path or path in table._endpoint_configs):
            answer = self._core.check_rate_limit(key, table.get_limit(path))
        else:
            answer = self._core.check_rate_limit(key)
        return answer

    def policy(self, key: Any, path: str, info: Info) -> Policy:
        """Return the rule that `check` applied: the path's, the key's or the default one."""
        name, config = path if path in self.paths else "default", None
        if self._every_path or path in self.paths:
            config = self._table.get_limit(path)
        elif hasattr(self._core, "get_config"):
            config = self._core.get_config(key)
        # The rate is per minute whatever the reporting window says, unless the window is enforced (fault F17).
        window_s = info["window"] if getattr(self._core, "_enforce_window", False) else _MINUTE_S
        if config is None:
            return Policy(name, window_s)
        return Policy(name, window_s, config.burst_size, config.refill_rate)


def _owner_of(limiter: Any, core: Any) -> Any:
    """Return the object with the path table: the limiter itself, or the one that built it, or None."""
    if limiter is not core:
        return limiter
    owner = getattr(core, "_owner", None)
    return owner() if isinstance(owner, weakref.ref) else None
