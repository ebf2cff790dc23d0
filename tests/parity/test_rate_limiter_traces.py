"""Random traces through the baseline and the native limiter side by side: every answer and every bucket compared.

Rates are powers of two per second and time moves in 1/64 s, so no result depends on how a sum is rounded.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rate_limiter_sides import BASELINE, NATIVE, NATIVE_V1_2, ManualClock, Side, side

STATE_FIELDS = ("tokens", "last_update", "request_count", "window_start")
KEYS = st.sampled_from(["a", "schlüssel", None, ("t", 1)])
CONFIGS = st.builds(
    lambda exponent, burst, window: (int(60 * 2.0**exponent), burst, window),
    st.integers(-2, 6),
    st.integers(1, 64),
    st.sampled_from([1, 2, 8, 60]),
)
STEPS = st.one_of(
    st.tuples(st.just("check"), KEYS, st.one_of(st.none(), CONFIGS)),
    st.tuples(st.just("check"), KEYS, st.none()),
    st.tuples(st.just("wait"), st.integers(0, 64 * 8)),
    # The lengths of the windows and of the cleanup: what happens at the very end of one is specified too.
    st.tuples(st.just("wait"), st.sampled_from([64 * seconds for seconds in (1, 2, 8, 60, 600, 1000)])),
    st.tuples(st.just("configure"), KEYS, CONFIGS),
    st.tuples(st.just("reset"), KEYS),
    st.tuples(st.just("clean")),
)
TRACES = st.lists(STEPS, min_size=1, max_size=60)


@pytest.mark.parametrize("name", [NATIVE, NATIVE_V1_2])
@settings(max_examples=300, deadline=None)
@given(default=CONFIGS, trace=TRACES)
def test_random_traces(name: str, default: tuple[int, int, int], trace: list[Any]) -> None:
    clock = ManualClock()
    made = [side(BASELINE, clock), side(name, clock)]
    limiters = [each.limiter(each.module.RateLimitConfig(*default)) for each in made]
    loop = asyncio.new_event_loop()
    try:
        for step in trace:
            theirs, ours = (loop.run_until_complete(_apply(*pair, step)) for pair in zip(made, limiters, strict=True))
            if step[0] == "check" and name == NATIVE:
                theirs = _with_our_retry_after(theirs, limiters[0], step, made[0])
            assert ours == theirs
            assert _types(ours) == _types(theirs)
            assert _state(limiters[1]) == _state(limiters[0])
    finally:
        loop.close()


async def _apply(made: Side, limiter: Any, step: tuple[Any, ...]) -> Any:
    """Do one step of the trace and return what it gives."""
    kind, *arguments = step
    config = made.module.RateLimitConfig
    if kind == "check":
        key, chosen = arguments
        return await limiter.check_rate_limit(key, chosen and config(*chosen))
    if kind == "wait":
        # One clock drives both sides: it moves on the native side's turn.
        made.clock.now += arguments[0] / 64 if made.is_native else 0
    elif kind == "configure":
        limiter.set_config(arguments[0], config(*arguments[1]))
    elif kind == "reset":
        await limiter.reset(arguments[0])
    else:
        return await limiter._cleanup_old_buckets()
    return None


def _with_our_retry_after(answer: tuple[bool, dict[str, Any]], limiter: Any, step: Any, made: Side) -> Any:
    """Put into v1.2's answer the `retry_after` that ours gives by choice (known difference "retry_after")."""
    ok, info = answer
    if ok:
        return answer
    key, chosen = step[1:]
    config = made.module.RateLimitConfig(*chosen) if chosen else limiter.get_config(key)
    wait = (1.0 - limiter._buckets[key].tokens) / config.refill_rate
    return ok, {**info, "retry_after": math.ceil(wait * 10) / 10}


def _types(answer: Any) -> Any:
    return {name: type(value) for name, value in answer[1].items()} if isinstance(answer, tuple) else type(answer)


def _state(limiter: Any) -> Any:
    """Everything a caller can read, in order."""
    buckets = [
        (key, *(getattr(bucket, name) for name in STATE_FIELDS)) for key, bucket in dict(limiter._buckets).items()
    ]
    return buckets, dict(limiter._stats)
