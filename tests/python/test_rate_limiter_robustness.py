"""Bad input, threads, forks, other loops, the end of the interpreter, the collector and memory: quiet and defined."""

import asyncio
import contextlib
import gc
import random
import sys
import threading
import traceback
import weakref

import pytest
from manual_clock import ManualClock

from peercore.services.rate_limiter import EndpointRateLimiter, RateLimitConfig, TokenBucketRateLimiter

UNHASHABLE = [[], {}, set(), bytearray(b"k"), ([],)]
WAYS = ["check_rate_limit", "allow", "check_now", "allow_now"]


def ask(limiter, way, *args, **kwargs):
    """Call a method, in a loop of its own if it is async."""

    async def wait(result):
        return await result

    result = getattr(limiter, way)(*args, **kwargs)
    return asyncio.run(wait(result)) if asyncio.iscoroutine(result) else result


def untouched(limiter):
    return (len(limiter._buckets), dict(limiter._stats)) == (0, {"allowed": 0, "denied": 0, "cleaned": 0})


# -- bad input


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("key", UNHASHABLE, ids=repr)
def test_unhashable_keys(way, key):
    limiter = TokenBucketRateLimiter()
    with pytest.raises(TypeError, match="unhashable"):
        ask(limiter, way, key)
    limiter.set_config("other", RateLimitConfig())
    with pytest.raises(TypeError, match="unhashable"):
        ask(limiter, way, key)
    assert untouched(limiter)


@pytest.mark.parametrize("key", UNHASHABLE, ids=repr)
def test_unhashable_keys_elsewhere(key):
    limiter = TokenBucketRateLimiter()
    for use in (
        lambda: limiter.check_many_now(["a", key]),
        lambda: limiter._buckets[key],
        lambda: key in limiter._buckets,
        lambda: limiter._buckets.pop(key),
        lambda: asyncio.run(limiter.reset(key)),
        lambda: limiter.set_config(key, RateLimitConfig()),
    ):
        with pytest.raises(TypeError, match="unhashable"):
            use()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("cost", "error"),
    [
        (0, ValueError),
        (-1, ValueError),
        (2**31, ValueError),
        (2**100, ValueError),
        (-(2**100), ValueError),
        (1.0, TypeError),
        ("1", TypeError),
        (None, TypeError),
    ],
)
def test_costs_out_of_range(way, cost, error):
    limiter = TokenBucketRateLimiter()
    with pytest.raises(error, match="cost must be"):
        ask(limiter, way, "k", cost=cost)
    assert untouched(limiter)


@pytest.mark.parametrize("config", [1, "60", object(), {"requests_per_minute": 60}])
@pytest.mark.parametrize("way", ["check_rate_limit", "check_now"])
def test_configs_of_another_type(way, config):
    limiter = TokenBucketRateLimiter()
    with pytest.raises((AttributeError, TypeError)):
        ask(limiter, way, "k", config)
    limiter.set_config("k", config)
    with pytest.raises((AttributeError, TypeError)):
        ask(limiter, way, "k")
    assert untouched(limiter)


def test_configs_that_only_look_like_one():
    class Duck:
        requests_per_minute, burst_size, window_seconds = 60, 2, 30

    limiter = TokenBucketRateLimiter(clock=ManualClock())
    assert limiter.check_now("k", Duck())[1] == {"limit": 60, "remaining": 1, "reset_at": 2.0**20 + 30, "window": 30}
    limiter.default_config = Duck()
    assert [limiter.allow_now("j") for _ in range(3)] == [True, True, False]


@pytest.mark.parametrize("keys", [None, 1, "abc"])
def test_check_many_of_no_keys(keys):
    with pytest.raises(TypeError):
        TokenBucketRateLimiter().check_many_now(keys)


@pytest.mark.parametrize("value", ["5", None, object()])
def test_bucket_states_of_another_type(value):
    limiter = TokenBucketRateLimiter()
    limiter.allow_now("k")
    with pytest.raises(TypeError):
        limiter._buckets["k"].tokens = value
    with pytest.raises((AttributeError, TypeError)):
        limiter._buckets["k"] = value
    assert limiter._buckets["k"].tokens == 9.0


@pytest.mark.parametrize("text", ["x" * 65536, "é" * 65536, "\U0001f600" * 65536], ids=["1 byte", "2 bytes", "4 bytes"])
def test_long_keys(text):
    limiter = TokenBucketRateLimiter(RateLimitConfig(60, 2), clock=ManualClock())
    assert [limiter.allow_now(text) for _ in range(3)] == [True, True, False]
    assert limiter.allow_now(text + "!") is True
    assert list(limiter._buckets) == [text, text + "!"]


def test_key_text_is_bounded_too():
    limiter = TokenBucketRateLimiter()
    for number in range(200):
        limiter.allow_now(f"{number}:" + "x" * 1_000_000)
    assert 0 < len(limiter._buckets) < 80
    assert limiter.memory_bytes < 150 << 20
    assert limiter.evicted == 200 - len(limiter._buckets)


class Hostile:
    """A key whose hash or comparison does what it is told."""

    def __init__(self, on_hash=None, on_eq=None):
        self.on_hash, self.on_eq = on_hash, on_eq

    def __hash__(self):
        if self.on_hash is not None:
            self.on_hash()
        return 1

    def __eq__(self, other):
        if self.on_eq is not None:
            self.on_eq()
        return self is other


def fail():
    raise LookupError("hostile")


@pytest.mark.parametrize("way", WAYS)
def test_keys_whose_hash_or_comparison_raises(way):
    limiter = TokenBucketRateLimiter()
    with pytest.raises(LookupError, match="hostile"):
        ask(limiter, way, Hostile(on_hash=fail))
    assert untouched(limiter)
    limiter.allow_now(Hostile(on_eq=fail))
    with pytest.raises(LookupError, match="hostile"):
        ask(limiter, way, Hostile())
    assert len(limiter._buckets) == 1


def test_keys_that_use_the_limiter_while_it_looks_them_up():
    limiter = TokenBucketRateLimiter(max_buckets=20)

    def meddle():
        limiter._buckets.clear()
        for number in range(30):
            limiter.allow_now((number, "meddled"))
        gc.collect(0)

    for _ in range(20):
        limiter.allow_now(Hostile())
        limiter.allow_now(Hostile(on_eq=meddle))
        limiter.allow_now(Hostile(on_hash=meddle))
        limiter.check_many_now([Hostile(on_hash=meddle), "k", Hostile(on_eq=meddle)])
    assert len(limiter._buckets) <= 20
    for key in limiter._buckets:
        if isinstance(key, Hostile):
            key.on_eq = key.on_hash = None
    limiter._buckets.clear()
    assert list(limiter._buckets) == []


def test_clocks_and_configs_that_use_the_limiter():
    class Meddling(TokenBucketRateLimiter):
        depth = 0

        def get_config(self, key):
            if self.depth < 2:
                self.depth += 1
                self._buckets.clear()
                self.check_many_now([(n,) for n in range(5)])
                self.depth -= 1
            return super().get_config(key)

    def clock():
        if len(limiter._buckets) > 50:
            limiter._buckets.clear()
        return 1.0

    limiter = Meddling(clock=clock, max_buckets=3)
    for number in range(50):
        assert limiter.allow_now((number, "k")) is True
        assert limiter.allow_now(f"k{number}") is True
    assert len(limiter._buckets) <= 3


def test_keys_are_let_go_when_their_bucket_is():
    class Key:
        pass

    limiter = TokenBucketRateLimiter(max_buckets=5)
    keys = [Key() for _ in range(20)]
    alive = [weakref.ref(key) for key in keys]
    for key in keys:
        limiter.allow_now(key)
    del keys, key
    assert sum(reference() is not None for reference in alive) == 5
    limiter._buckets.clear()
    assert sum(reference() is not None for reference in alive) == 0
    refused = Key()
    reference = weakref.ref(refused)
    with pytest.raises(ValueError, match="cost"):
        limiter.allow_now(refused, cost=0)
    del refused
    assert reference() is None


# -- loops


def test_one_limiter_on_loops_one_after_the_other():
    limiter = TokenBucketRateLimiter(RateLimitConfig(1, 30))
    endpoint = EndpointRateLimiter(1, 30)

    async def use():
        await limiter.start()
        await endpoint.start()
        async with limiter._lock:
            pass
        answers = [(await limiter.check_rate_limit("k"))[0], (await endpoint.check("c", "/p"))[0]]
        await limiter.acquire("k")
        await limiter.stop()
        await endpoint.stop()
        return answers

    for _ in range(10):
        assert asyncio.run(use()) == [True, True]
    assert limiter._stats["allowed"] == 20


# -- the collector


def test_limiters_in_reference_cycles_are_collected():
    class Owned(TokenBucketRateLimiter):
        pass

    def make():
        limiter = Owned(clock=lambda: len(limiter._buckets))
        limiter.me = limiter
        limiter.default_config = RateLimitConfig(60, 5)
        limiter.default_config.owner = limiter
        limiter.set_config("k", limiter.default_config)
        limiter.allow_now((limiter,))
        limiter.check_now("k")
        endpoint = EndpointRateLimiter()
        endpoint._rate_limiter.endpoint = endpoint
        endpoint.me = endpoint
        return weakref.ref(limiter), weakref.ref(endpoint)

    references = [make() for _ in range(5)]
    gc.collect()
    assert [reference() for pair in references for reference in pair] == [None] * 10


def test_suspended_coroutines_in_cycles_are_collected():
    class Suspending(TokenBucketRateLimiter):
        async def check_rate_limit(self, key, config=None):
            self.inside = key
            await asyncio.get_running_loop().create_future()

    ended = []

    async def main():
        endpoint = EndpointRateLimiter()
        endpoint._rate_limiter = Suspending()
        coroutine = endpoint.check("c", "/p")
        endpoint.coroutine = coroutine
        coroutine.send(None)
        weakref.finalize(endpoint, ended.append, True)

    asyncio.run(main())
    gc.collect()
    assert ended == [True]


def test_constructing_again_starts_empty():
    limiter = TokenBucketRateLimiter()
    limiter.check_many_now(["a", ("b",)])
    limiter.__init__(RateLimitConfig(60, 2), max_buckets=7)
    assert (len(limiter._buckets), limiter.max_buckets, limiter._stats["allowed"]) == (0, 7, 0)
    assert [limiter.allow_now("a") for _ in range(3)] == [True, True, False]


# -- threads


def test_threads_doing_everything_at_once():
    limiter = TokenBucketRateLimiter(max_buckets=50)
    failures = []

    def work(seed):
        chance = random.Random(seed)
        actions = [
            lambda key: limiter.allow_now(key),
            lambda key: limiter.check_now(key),
            lambda key: limiter.check_many_now([key, (key, 1)]),
            lambda key: limiter._buckets.pop(key, None),
            lambda key: list(limiter._buckets),
            lambda key: [state.tokens for state in limiter._buckets.values()],
            lambda key: limiter.set_config(key, RateLimitConfig(60, chance.randint(1, 9))),
            lambda key: asyncio.run(limiter._cleanup_old_buckets()),
        ]
        weights = [30, 30, 10, 5, 1, 1, 5, 1]
        try:
            for _ in range(2000):
                (action,) = chance.choices(actions, weights)
                # Going over a view meets keys that another thread has dropped, as a dict changing size would tell.
                with contextlib.suppress(KeyError):
                    action(chance.choice([f"k{chance.randint(0, 99)}", (chance.randint(0, 99),)]))
        except Exception:
            failures.append(traceback.format_exc())

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert failures == []
    assert len(limiter._buckets) <= 50
