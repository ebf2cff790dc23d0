"""The limiter against a model of a few lines of Python, under random operations on a clock that the test moves."""

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from manual_clock import ManualClock

from peercore.services.rate_limiter import RateLimitConfig, TokenBucketRateLimiter

SLACK_S = 1e-6


class LoudText(str):
    """A str with an equality and a hash of its own."""

    def __eq__(self, other):
        return isinstance(other, LoudText) and str(self) == str(other)

    def __hash__(self):
        return hash(("loud", str(self)))


class QuietText(str):
    """A str that is equal to the plain one."""


@dataclass(frozen=True)
class Endless:
    """An object with an `__eq__` of its own, all of one hash."""

    number: int

    def __hash__(self):
        return 7


SINGLE_KEYS = [
    "",
    "a",
    "b" * 300,
    "é",
    "č",
    "\U0001f600",
    "a\0b",
    "\ud800",
    b"a",
    None,
    0,
    -1,
    2**100,
    1.5,
    (),
    ("a", 1),
    (("deep",), None),
    frozenset({1}),
    LoudText("a"),
    LoudText("b"),
    Endless(1),
    Endless(2),
    object(),
]
EQUAL_KEYS = [[1, 1.0, True, complex(1)], ["quiet", QuietText("quiet")], [(1, "x"), (1.0, QuietText("x"))]]
KEYS = st.sampled_from([*SINGLE_KEYS, *(key for equal in EQUAL_KEYS for key in equal)])
CONFIGS = st.sampled_from([(60, 10), (600, 3), (6, 1), (1, 20), (6000, 5)])
STEPS = st.sampled_from([0.0, 1 / 64, 0.25, 1.0, 2.5, 30.0, 60.0, 61.0, 1000.0, -5.0])


@dataclass
class ModelBucket:
    tokens: float
    updated: float
    window: float
    count: int = 0
    full_at: float = 0.0


class Model:
    """Token buckets in a dict, in order of use, as written in the contract. The limiter decides which victim goes."""

    def __init__(self, bound):
        self.bound = bound
        self.buckets = {}
        self.created = []
        self.allowed = self.denied = self.evicted = 0

    def check(self, key, config, now, cost):
        if key not in self.buckets:
            assert len(self.buckets) < self.bound
            self.buckets[key] = ModelBucket(config.burst_size, now, now)
            self.created.append(key)
        bucket = self.buckets[key] = self.buckets.pop(key)  # the last is the one used last
        self.refill(bucket, config, now)
        allowed = bucket.tokens + SLACK_S * config.refill_rate >= cost
        if allowed:
            bucket.tokens -= cost
            bucket.count += cost
        self.allowed += allowed
        self.denied += not allowed
        missing = config.burst_size - bucket.tokens
        bucket.full_at = bucket.updated + (missing / config.refill_rate if missing > 0 else 0)
        return allowed

    def refill(self, bucket, config, now):
        if now > bucket.updated:
            bucket.tokens += (now - bucket.updated) * config.refill_rate
            bucket.updated = now
        bucket.tokens = min(bucket.tokens, config.burst_size)
        if now - bucket.window > config.window_seconds:
            bucket.window, bucket.count = now, 0

    def victims(self, now):
        """Those that may go next: the least recently used if it is full, else any full one, else the former."""
        oldest = next(iter(self.buckets))
        full = [key for key, bucket in self.buckets.items() if now >= bucket.full_at]
        return [oldest] if oldest in full or not full else full

    def drop(self, key):
        del self.buckets[key]
        self.created.remove(key)


class LimiterAgainstModel(RuleBasedStateMachine):
    @initialize(bound=st.sampled_from([1, 2, 5, 64, 1000]))
    def make(self, bound):
        self.clock = ManualClock()
        self.limiter = TokenBucketRateLimiter(max_buckets=bound, clock=self.clock)
        self.model = Model(bound)
        self.configs = {}

    def config(self, key):
        return self.configs.get(key, self.limiter.default_config)

    def forget_evicted(self, key):
        """Before a new key enters a full table: the one that the limiter will evict is found out afterwards."""
        full = key not in self.model.buckets and len(self.model.buckets) >= self.model.bound
        return self.model.victims(self.clock.now) if full else None

    def settle(self, victims):
        """Drop from the model what the limiter evicted, which must be one of `victims`."""
        if victims is not None:
            kept = set(self.limiter._buckets)
            (gone,) = [key for key in self.model.buckets if key not in kept]
            assert gone in victims
            self.model.drop(gone)
            self.model.evicted += 1

    def judge(self, key, cost, ask, config=None):
        victims = self.forget_evicted(key)
        answer = ask(key, cost)
        self.settle(victims)
        used = config or self.config(key)
        assert answer == self.model.check(key, used, self.clock.now, cost)
        return self.model.buckets[key], used

    @rule(key=KEYS, cost=st.integers(1, 12))
    def allow(self, key, cost):
        self.judge(key, cost, self.limiter.allow_now)

    @rule(key=KEYS, cost=st.integers(1, 12), config=st.none() | CONFIGS)
    def check(self, key, cost, config):
        config = config and RateLimitConfig(*config)
        infos = []

        def ask(key, cost):
            allowed, info = self.limiter.check_now(key, config, cost)
            infos.append(info)
            return allowed

        denied_before = self.model.denied
        bucket, used = self.judge(key, cost, ask, config)
        denied = self.model.denied > denied_before
        (info,) = infos
        assert info["limit"] == used.requests_per_minute
        assert info["remaining"] == (0 if denied else max(int(bucket.tokens), 0))
        assert info["reset_at"] == bucket.window + used.window_seconds
        assert ("retry_after" in info) is denied

    @rule(keys=st.lists(KEYS, max_size=6), cost=st.integers(1, 3))
    @precondition(lambda self: self.model.bound >= 64)
    def check_many(self, keys, cost):
        answers = self.limiter.check_many_now(keys, cost)
        assert answers == [self.model.check(key, self.config(key), self.clock.now, cost) for key in keys]

    @rule(step=STEPS)
    def pass_time(self, step):
        self.clock.advance(step)

    @rule(key=KEYS, config=CONFIGS)
    def set_config(self, key, config):
        self.configs[key] = RateLimitConfig(*config)
        self.limiter.set_config(key, self.configs[key])

    @rule(config=CONFIGS)
    def change_the_default(self, config):
        default = self.limiter.default_config
        default.requests_per_minute, default.burst_size = config

    @rule(key=KEYS)
    def delete(self, key):
        known = key in self.model.buckets
        assert (key in self.limiter._buckets) is known
        if known:
            del self.limiter._buckets[key]
            self.model.drop(key)

    @rule()
    def reset_all(self):
        self.limiter._buckets.clear()
        self.model.buckets.clear()
        self.model.created.clear()

    @invariant()
    def same_state(self):
        if not hasattr(self, "limiter"):
            return
        limiter, model = self.limiter, self.model
        assert list(limiter._buckets) == model.created
        assert (limiter._allowed, limiter._denied, limiter.evicted) == (model.allowed, model.denied, model.evicted)
        for key, bucket in model.buckets.items():
            state = limiter._buckets[key]
            assert abs(state.tokens - bucket.tokens) < 1e-9
            assert (state.last_update, state.window_start) == (bucket.updated, bucket.window)
            assert state.request_count == bucket.count


TestLimiterAgainstModel = LimiterAgainstModel.TestCase
TestLimiterAgainstModel.settings = settings(max_examples=120, stateful_step_count=60, deadline=None)


def test_equal_keys_share_a_bucket_and_others_do_not():
    limiter = TokenBucketRateLimiter()
    for equal in EQUAL_KEYS:
        for key in equal:
            assert limiter.allow_now(key)
    for key in SINGLE_KEYS:
        assert limiter.allow_now(key)
    assert len(limiter._buckets) == len(EQUAL_KEYS) + len(SINGLE_KEYS)
    assert list(limiter._buckets) == [*(equal[0] for equal in EQUAL_KEYS), *SINGLE_KEYS]
    assert [limiter._buckets[equal[-1]].request_count for equal in EQUAL_KEYS] == [len(each) for each in EQUAL_KEYS]


def test_eviction_is_exact_in_small_tables():
    """Every full bucket goes before any other, and those in order of use."""
    clock = ManualClock()
    limiter = TokenBucketRateLimiter(RateLimitConfig(60, 10), max_buckets=64, clock=clock)
    for number in range(64):
        quick = number % 4 == 0
        if quick:
            limiter.set_config(number, RateLimitConfig(60_000, 10))
        limiter.allow_now(number)
    clock.advance(1 / 64)
    limiter._configs.clear()
    for number in range(100, 116):
        limiter.allow_now(number)
    kept = [key for key in limiter._buckets if key < 100]
    assert kept == [number for number in range(64) if number % 4]
    for number in range(200, 210):
        limiter.allow_now(number)
    assert [key for key in limiter._buckets if key < 100] == kept[10:]
