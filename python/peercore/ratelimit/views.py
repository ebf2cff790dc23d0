"""Mappings over a limiter's live native state, where v1.2 had plain dictionaries (contract sections 3 and 9)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

from peercore.ratelimit.config import RateLimitState

if TYPE_CHECKING:
    from peercore.ratelimit.limiter import TokenBucketRateLimiter

_FIELDS = ("tokens", "last_update", "request_count", "window_start")


class _LiveState(RateLimitState):
    """The state of a bucket that is still in its limiter: reading and setting a field goes through to it.

    Once the bucket is gone (reset, evicted) it keeps the last values it knew, as v1.2's detached object did.
    """

    def __init__(self, limiter: TokenBucketRateLimiter, key: Any, known: tuple[float, float, int, float]) -> None:
        object.__setattr__(self, "_limiter", limiter)
        object.__setattr__(self, "_key", key)
        object.__setattr__(self, "_known", known)

    @property  # type: ignore[misc]
    def __class__(self) -> type:  # so that == and isinstance take it for the dataclass that it stands for
        return RateLimitState

    def __getattribute__(self, name: str) -> Any:
        if name not in _FIELDS:
            return object.__getattribute__(self, name)
        known = self._limiter._bucket_get(self._key) or self._known
        object.__setattr__(self, "_known", known)
        return known[_FIELDS.index(name)]

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in _FIELDS:
            raise AttributeError(f"RateLimitState has no field {name!r}")
        values = {field: getattr(self, field) for field in _FIELDS} | {name: value}
        if self._limiter._bucket_contains(self._key):
            self._limiter._buckets[self._key] = RateLimitState(**values)
        object.__setattr__(self, "_known", tuple(values[field] for field in _FIELDS))

    def __repr__(self) -> str:
        return f"RateLimitState({', '.join(f'{field}={getattr(self, field)!r}' for field in _FIELDS)})"

    def __reduce_ex__(self, protocol: Any) -> Any:
        return RateLimitState, tuple(getattr(self, field) for field in _FIELDS)


class BucketsView(MutableMapping[Any, RateLimitState]):
    """key -> RateLimitState, in order of creation. Setting an item replaces the bucket's state; deleting one drops the
    bucket, which the next check makes anew and full."""

    __slots__ = ("_limiter",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, limiter: TokenBucketRateLimiter) -> None:
        self._limiter = limiter

    def __len__(self) -> int:
        return self._limiter._bucket_count()

    def __contains__(self, key: object) -> bool:
        return self._limiter._bucket_contains(key)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._limiter._bucket_keys())

    def __getitem__(self, key: Any) -> RateLimitState:
        known = self._limiter._bucket_get(key)  # at one go: other threads may drop the bucket in between
        if known is None:
            raise KeyError(key)
        return _LiveState(self._limiter, key, known)

    def __setitem__(self, key: Any, state: RateLimitState) -> None:
        limiter = self._limiter
        limiter._bucket_put(
            key, limiter.get_config(key), state.tokens, state.last_update, state.request_count, state.window_start
        )

    def __delitem__(self, key: Any) -> None:
        if not self._limiter._bucket_delete(key):
            raise KeyError(key)

    def clear(self) -> None:
        self._limiter._bucket_clear()

    def __repr__(self) -> str:
        return repr({key: self[key] for key in self})


class StatsView(MutableMapping[str, int]):
    """The counters `allowed`, `denied` and `cleaned`; they can be set, not removed."""

    __slots__ = ("_limiter",)
    __hash__ = None  # type: ignore[assignment]
    _NAMES = ("allowed", "denied", "cleaned")

    def __init__(self, limiter: TokenBucketRateLimiter) -> None:
        self._limiter = limiter

    def __len__(self) -> int:
        return len(self._NAMES)

    def __iter__(self) -> Iterator[str]:
        return iter(self._NAMES)

    def __getitem__(self, name: str) -> int:
        if name not in self._NAMES:
            raise KeyError(name)
        value: int = getattr(self._limiter, "_" + name)
        return value

    def __setitem__(self, name: str, value: int) -> None:
        if name not in self._NAMES:
            raise KeyError(f"{name!r} is not one of the counters {', '.join(self._NAMES)}")
        setattr(self._limiter, "_" + name, value)

    def __delitem__(self, name: str) -> None:
        raise TypeError("a counter cannot be removed")

    def __repr__(self) -> str:
        return repr(dict(self))


def replace_contents(view: MutableMapping[Any, Any], contents: Mapping[Any, Any]) -> None:
    """What assigning a new dictionary to the attribute means: the view stays, its contents become `contents`."""
    items = list(contents.items())
    if isinstance(view, BucketsView):
        view.clear()
    for key, value in items:
        view[key] = value
