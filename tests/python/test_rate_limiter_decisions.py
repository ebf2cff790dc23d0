"""Compatibility decisions about the limiter (contract, rate_limiter, section 9): the default, and the other side.

The decisions about its web layer are tested with it, in test_rate_limit_*.
"""

import asyncio
import copy
import logging
import pickle
import time
from collections.abc import Mapping, MutableMapping

import pytest
from manual_clock import ManualClock

from peercore.services.rate_limiter import (
    EndpointRateLimiter,
    RateLimitConfig,
    RateLimitState,
    TokenBucketRateLimiter,
)

V1_2 = {"compat": "v1.2"}


@pytest.fixture
def clock():
    return ManualClock()


def denied_info(limiter, key="k"):
    while True:
        allowed, info = limiter.check_now(key)
        if not allowed:
            return info


# -- retry_after


def test_decision_retry_after_default(clock):
    limiter = TokenBucketRateLimiter(RateLimitConfig(60, 1), clock=clock)
    assert denied_info(limiter)["retry_after"] == 1.0
    clock.advance(0.75)
    retry_after = denied_info(limiter)["retry_after"]
    assert (type(retry_after), retry_after) == (float, 0.3)


@pytest.mark.parametrize("options", [{"integer_retry_after": True}, V1_2], ids=["option", "compat"])
def test_decision_retry_after_v1_2(clock, options):
    limiter = TokenBucketRateLimiter(RateLimitConfig(60, 1), clock=clock, **options)
    retry_after = denied_info(limiter)["retry_after"]
    assert (type(retry_after), retry_after) == (int, 2)
    clock.advance(0.75)
    assert denied_info(limiter)["retry_after"] == 1
    slow = TokenBucketRateLimiter(RateLimitConfig(5, 1), clock=clock, **options)
    assert denied_info(slow)["retry_after"] == 13


# -- max_buckets


def test_decision_max_buckets_default():
    assert TokenBucketRateLimiter().max_buckets == 100_000
    assert EndpointRateLimiter()._rate_limiter.max_buckets == 100_000
    limiter = TokenBucketRateLimiter()
    for start in range(0, 150_000, 10_000):
        limiter.check_many_now(range(start, start + 10_000))
    assert len(limiter._buckets) == 100_000
    assert limiter.evicted == 50_000


@pytest.mark.parametrize("options", [{"max_buckets": None}, V1_2], ids=["option", "compat"])
def test_decision_max_buckets_v1_2(options):
    limiter = TokenBucketRateLimiter(**options)
    assert limiter.max_buckets is None
    limiter.check_many_now(range(100_500))
    assert len(limiter._buckets) == 100_500
    assert limiter.evicted == 0


def test_decision_max_buckets_evicts_full_ones_first(clock):
    limiter = TokenBucketRateLimiter(RateLimitConfig(60, 10), max_buckets=3, clock=clock)
    limiter.set_config("quick", RateLimitConfig(6000, 10))
    for key in ("oldest", "quick", "young"):
        limiter.allow_now(key)
    clock.advance(0.5)  # only the quick one is full again
    limiter.allow_now("new")
    assert list(limiter._buckets) == ["oldest", "young", "new"]
    assert limiter.evicted == 1


def test_decision_max_buckets_then_the_least_recently_used(clock):
    limiter = TokenBucketRateLimiter(max_buckets=3, clock=clock)
    for key in ("a", "b", "c"):
        limiter.allow_now(key)
    limiter.allow_now("a")
    limiter.allow_now("d")
    assert list(limiter._buckets) == ["a", "c", "d"]
    limiter.allow_now("e")
    assert list(limiter._buckets) == ["a", "d", "e"]


def test_decision_max_buckets_one(clock):
    limiter = TokenBucketRateLimiter(max_buckets=1, clock=clock)
    for key in (*"abc", 1, None, ()):
        assert limiter.allow_now(key) is True
        assert list(limiter._buckets) == [key]


@pytest.mark.parametrize(
    ("bound", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), ("9", TypeError), (2**80, ValueError)]
)
def test_decision_max_buckets_out_of_range(bound, error):
    with pytest.raises(error, match="max_buckets"):
        TokenBucketRateLimiter(max_buckets=bound)


# -- window


def minute_of_requests(limiter, clock):
    admitted, end = 0, clock.now + 60
    while clock.now < end:
        admitted += limiter.allow_now("k")
        clock.advance(0.25)
    return admitted


@pytest.mark.parametrize("options", [{}, V1_2], ids=["default", "compat"])
def test_decision_window_is_informational(clock, options):
    limiter = TokenBucketRateLimiter(RateLimitConfig(60, 10), clock=clock, **options)
    start = clock.now
    assert limiter.check_now("k")[1]["reset_at"] == start + 60
    assert minute_of_requests(limiter, clock) == 68  # 69 with the one above: the burst, and a token each second
    assert limiter._buckets["k"].request_count == 69


def test_decision_window_enforced(clock):
    limiter = TokenBucketRateLimiter(RateLimitConfig(60, 10), clock=clock, enforce_window=True)
    start = clock.now
    assert limiter.check_now("k")[1]["reset_at"] == start + 60
    assert minute_of_requests(limiter, clock) == 59


# -- default burst


@pytest.mark.parametrize(("rate", "burst"), [(1, 1), (5, 1), (6, 1), (11, 1), (12, 2), (60, 10), (100, 16)])
@pytest.mark.parametrize("options", [{}, V1_2], ids=["default", "compat"])
def test_decision_default_burst(rate, burst, options):
    endpoint = EndpointRateLimiter(**options)
    endpoint.set_limit("/x", rate)
    assert endpoint.get_limit("/x").burst_size == burst


# -- invalid configurations

INVALID = [
    {"requests_per_minute": 0},
    {"requests_per_minute": -1},
    {"requests_per_minute": float("nan")},
    {"requests_per_minute": float("inf")},
    {"burst_size": 0},
    {"burst_size": -5},
    {"burst_size": float("inf")},
    {"window_seconds": 0},
    {"window_seconds": -60},
]


@pytest.mark.parametrize("fields", INVALID, ids=repr)
def test_decision_invalid_config_default(fields):
    ((name, value),) = fields.items()
    with pytest.raises(ValueError, match=f"^{name} must be .*{name}={value}"):
        RateLimitConfig(**fields)
    config = RateLimitConfig()
    with pytest.raises(ValueError, match=f"^{name} must be .*{name}={value}"):
        setattr(config, name, value)
    assert config == RateLimitConfig()


@pytest.mark.parametrize("fields", INVALID, ids=repr)
def test_decision_invalid_config_unvalidated(fields, clock):
    config = RateLimitConfig(**fields, validate=False)
    limiter = TokenBucketRateLimiter(config, clock=clock)
    for step in (0.0, 1e3, 1e6, -1e6):
        clock.advance(step)
        for _ in range(12):
            allowed, info = limiter.check_now("k")
            assert type(allowed) is bool
            assert info["limit"] is config.requests_per_minute
            if not allowed:
                assert 0 < info["retry_after"] <= 365 * 86400
    if fields.get("burst_size", 1) < 1:
        assert limiter._stats["allowed"] == 0


def test_decision_invalid_config_v1_2(clock):
    endpoint = EndpointRateLimiter(0, 0, clock=clock, **V1_2)
    endpoint.set_limit("/x", -1, 0)
    assert asyncio.run(endpoint.check("c", "/x"))[0] is False
    assert asyncio.run(endpoint.check("c", "/y"))[0] is False


def test_decision_invalid_config_survives_copies():
    config = RateLimitConfig(0, 0, 0, validate=False)
    for copied in (copy.copy(config), copy.deepcopy(config), pickle.loads(pickle.dumps(config))):
        assert copied == config
        copied.burst_size = -1  # still not validated
    with pytest.raises(ValueError, match="burst_size"):
        copy.copy(RateLimitConfig()).burst_size = -1


@pytest.mark.parametrize("field", ["requests_per_minute", "burst_size", "window_seconds"])
@pytest.mark.parametrize("value", ["60", None, [], object(), 1j])
@pytest.mark.parametrize("validate", [True, False])
def test_decision_invalid_config_of_another_type(field, value, validate):
    with pytest.raises(TypeError, match=f"{field} must be a number"):
        RateLimitConfig(**{field: value}, validate=validate)
    with pytest.raises(TypeError, match=f"{field} must be a number"):
        setattr(RateLimitConfig(validate=validate), field, value)


# -- reset("")


async def test_decision_reset_of_the_empty_key_default():
    limiter = TokenBucketRateLimiter()
    limiter.check_many_now(["", "a"])
    await limiter.reset("")
    assert list(limiter._buckets) == ["a"]


async def test_decision_reset_of_the_empty_key_v1_2():
    limiter = TokenBucketRateLimiter(**V1_2)
    limiter.check_many_now(["", "a"])
    await limiter.reset("")
    assert list(limiter._buckets) == []


# -- clocks


async def test_decision_clocks_default_show_epoch_time():
    limiter = TokenBucketRateLimiter()
    info = (await limiter.check_rate_limit("k"))[1]
    state = limiter._buckets["k"]
    for shown in (info["reset_at"] - 60, state.last_update, state.window_start):
        assert shown == pytest.approx(time.time(), abs=5)
    before = state.window_start
    await limiter.check_rate_limit("k")
    assert limiter._buckets["k"].window_start == before


async def test_decision_clocks_given():
    readings = iter(range(5, 100))
    limiter = TokenBucketRateLimiter(clock=lambda: next(readings))
    assert (await limiter.check_rate_limit("k"))[1]["reset_at"] == 65.0
    state = limiter._buckets["k"]
    assert (state.last_update, state.window_start) == (5.0, 5.0)
    limiter.allow_now("k")
    assert limiter._buckets["k"].last_update > 5.0


@pytest.mark.parametrize("clock", [1, "now", object()])
def test_decision_clocks_have_to_be_callable(clock):
    with pytest.raises(TypeError, match="clock must be callable"):
        TokenBucketRateLimiter(clock=clock)


def test_decision_clocks_errors_reach_the_caller():
    def broken():
        raise OSError("no clock")

    limiter = TokenBucketRateLimiter(clock=broken)
    with pytest.raises(OSError, match="no clock"):
        limiter.allow_now("k")
    with pytest.raises(TypeError):
        TokenBucketRateLimiter(clock=lambda: "noon").allow_now("k")
    assert dict(limiter._stats) == {"allowed": 0, "denied": 0, "cleaned": 0}
    assert len(limiter._buckets) == 0


# -- views


def test_decision_buckets_view(clock):
    limiter = TokenBucketRateLimiter(clock=clock)
    view = limiter._buckets
    assert isinstance(view, MutableMapping)
    limiter.check_many_now(["b", "a", "b"])
    assert (len(view), "a" in view, "x" in view, list(view), list(view.keys())) == (
        2,
        True,
        False,
        ["b", "a"],
        ["b", "a"],
    )
    assert view["b"] == RateLimitState(8.0, clock.now, 2, clock.now)
    assert view.get("x") is None
    assert [state.tokens for state in view.values()] == [8.0, 9.0]
    assert dict(view.items())["a"].request_count == 1
    assert repr(view).startswith("{'b': RateLimitState(tokens=8.0, ")
    with pytest.raises(KeyError):
        view["x"]
    with pytest.raises(KeyError):
        del view["x"]


def test_decision_buckets_view_writes_go_through(clock):
    limiter = TokenBucketRateLimiter(clock=clock)
    limiter._buckets["k"] = RateLimitState(2.0, clock.now, 5, clock.now)
    assert [limiter.allow_now("k") for _ in range(3)] == [True, True, False]
    limiter._buckets["k"].tokens = 1.0
    assert [limiter.allow_now("k") for _ in range(2)] == [True, False]
    limiter._buckets["k"].last_update -= 3
    assert limiter.check_now("k")[1]["remaining"] == 2
    del limiter._buckets["k"]
    assert limiter.check_now("k")[1]["remaining"] == 9
    assert limiter._buckets.pop("k").tokens == 9.0
    limiter.check_many_now(["a", "b"])
    limiter._buckets.clear()
    assert len(limiter._buckets) == 0
    limiter._buckets = {"k": RateLimitState(1.0, clock.now, 0, clock.now)}
    assert [limiter.allow_now("k") for _ in range(2)] == [True, False]


def test_decision_buckets_view_states_are_live_and_survive_their_bucket(clock):
    limiter = TokenBucketRateLimiter(clock=clock)
    limiter.allow_now("k")
    state = limiter._buckets["k"]
    limiter.allow_now("k")
    assert (state.tokens, state.request_count) == (8.0, 2)
    kept = copy.copy(state)
    del limiter._buckets["k"]
    assert state == kept == RateLimitState(8.0, clock.now, 2, clock.now)
    assert isinstance(state, RateLimitState)
    assert pickle.loads(pickle.dumps(state)) == kept


def test_decision_buckets_view_while_it_changes():
    limiter = TokenBucketRateLimiter()
    limiter.check_many_now(range(100))
    for key in limiter._buckets:
        del limiter._buckets[key]
        limiter.allow_now(f"new {key}")
    assert len(limiter._buckets) == 100


def test_decision_configs_and_endpoint_configs_are_live_mappings(clock):
    limiter = TokenBucketRateLimiter(clock=clock)
    assert isinstance(limiter._configs, Mapping)
    limiter._configs["k"] = RateLimitConfig(60, 2)
    assert limiter.get_config("k").burst_size == 2
    assert limiter.check_now("k")[1]["remaining"] == 1
    del limiter._configs["k"]
    assert limiter.check_now("j")[1]["remaining"] == 9
    limiter._configs = {"j": RateLimitConfig(60, 4)}
    assert limiter.check_now("j")[1]["remaining"] == 3
    endpoint = EndpointRateLimiter(clock=clock)
    endpoint._endpoint_configs["/x"] = RateLimitConfig(60, 3)
    assert asyncio.run(endpoint.check("c", "/x"))[1]["remaining"] == 2
    assert (len(endpoint._endpoint_configs), "/x" in endpoint._endpoint_configs) == (1, True)
    del endpoint._endpoint_configs["/x"]
    assert endpoint.get_limit("/x") is endpoint.default_config


def test_decision_configs_may_be_any_mapping(clock):
    class Everything(dict):
        def get(self, key, default=None):
            return RateLimitConfig(60, 5)

    limiter = TokenBucketRateLimiter(clock=clock)
    limiter._configs = Everything()
    assert limiter.check_now("k")[1]["remaining"] == 4


def test_decision_stats_view_is_live():
    limiter = TokenBucketRateLimiter()
    stats = limiter._stats
    limiter.allow_now("k")
    assert (stats["allowed"], len(stats), list(stats)) == (1, 3, ["allowed", "denied", "cleaned"])
    stats["allowed"] += 10
    assert asyncio.run(limiter.get_stats())["allowed"] == 11
    limiter._stats = {"allowed": 0, "denied": 0, "cleaned": 0}
    assert dict(stats) == {"allowed": 0, "denied": 0, "cleaned": 0}
    with pytest.raises(KeyError):
        stats["other"]
    with pytest.raises(KeyError):
        stats["other"] = 1
    with pytest.raises(TypeError):
        del stats["allowed"]


def test_decision_default_config_can_be_replaced(clock):
    limiter = TokenBucketRateLimiter(clock=clock)
    limiter.default_config = RateLimitConfig(60, 3)
    assert limiter.check_now("k")[1]["remaining"] == 2


# -- cleanup


async def test_decision_cleanup_task_looks_like_a_task():
    limiter = TokenBucketRateLimiter()
    assert limiter._cleanup_task is None
    await limiter.start()
    task = limiter._cleanup_task
    assert (task.done(), task.cancelled()) == (False, False)
    assert task.cancel() is True
    await asyncio.wait([task])
    assert task.done()
    await limiter.start()
    assert limiter._cleanup_task is not task
    await limiter.stop()


async def test_decision_cleanup_runs_while_started(clock):
    limiter = TokenBucketRateLimiter(cleanup_interval=0.005, clock=clock)
    limiter.check_many_now(["a", "b"])
    clock.advance(1000)
    await limiter.start()
    for _ in range(1000):
        if not limiter._buckets:
            break
        await asyncio.sleep(0.005)
    await limiter.stop()
    assert await limiter.get_stats() == {"allowed": 2, "denied": 0, "cleaned": 2, "active_buckets": 0}


# -- logging, compat


async def test_decision_logging_configures_no_root(monkeypatch, caplog):
    before = logging.root.level, list(logging.root.handlers)
    limiter = TokenBucketRateLimiter(RateLimitConfig(60, 1))
    with caplog.at_level(logging.DEBUG):
        await limiter.start()
        denied_info(limiter)
        await limiter.stop()
    assert caplog.records == []
    assert (logging.root.level, list(logging.root.handlers)) == before


@pytest.mark.parametrize("compat", ["v1.3", "", 1, True])
@pytest.mark.parametrize("make", [TokenBucketRateLimiter, EndpointRateLimiter])
def test_decision_unknown_compat(make, compat):
    with pytest.raises(ValueError, match=r"compat must be None or 'v1\.2'"):
        make(compat=compat)


def test_decision_options_are_keyword_only():
    with pytest.raises(TypeError):
        TokenBucketRateLimiter(None, 300, 1000)
    with pytest.raises(TypeError):
        EndpointRateLimiter(60, 10, 1000)
    with pytest.raises(TypeError):
        RateLimitConfig(60, 10, 60, "rl", False)
    with pytest.raises(TypeError):
        TokenBucketRateLimiter(no_such_option=1)
    with pytest.raises(TypeError):
        EndpointRateLimiter(no_such_option=1)
