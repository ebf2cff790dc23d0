"""peercore._core.NativeCoroutine and NativeMethod in themselves: what the services' async methods are made of.

That they behave as coroutines and coroutine functions everywhere is tested with the general contract in tests/parity.
"""

import asyncio
import copy
import gc
import inspect
import pickle
import sys
import types
import weakref

import pytest

from peercore import _core
from peercore.services.rate_limiter import EndpointRateLimiter, RateLimitConfig, TokenBucketRateLimiter

FREE_LIST_SIZE = 64


@pytest.fixture
def limiter():
    return TokenBucketRateLimiter(RateLimitConfig(60, 1000))


class Gate:
    """Awaitable that yields `values` and gives back what is sent."""

    def __init__(self, *values):
        self.values = values
        self.sent = []

    def __await__(self):
        for value in self.values:
            self.sent.append((yield value))
        return "awaited"


@pytest.fixture
def suspending():
    """gate -> a native coroutine that awaits it inside an override."""

    def make(gate):
        class Suspending(TokenBucketRateLimiter):
            async def check_rate_limit(self, key, config=None):
                return True, await gate

        endpoint = EndpointRateLimiter()
        endpoint._rate_limiter = Suspending()
        return endpoint.check("c", "/p")

    return make


def finish(coroutine):
    """Take the one step that a coroutine that never waits needs; its result."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waits")


# -- the type


def test_cannot_be_made_or_subclassed():
    for attempt in (_core.NativeCoroutine, lambda: type("Derived", (_core.NativeCoroutine,), {})):
        with pytest.raises(TypeError):
            attempt()
    with pytest.raises(TypeError):
        type("Derived", (_core.NativeMethod,), {})


def test_native_methods_make_native_coroutines(limiter):
    for make in (
        lambda: limiter.check_rate_limit("k"),
        lambda: limiter.allow("k"),
        lambda: limiter.check_many(["k"]),
        lambda: EndpointRateLimiter().check("c", "/p"),
    ):
        coroutine = make()
        assert type(coroutine) is _core.NativeCoroutine
        coroutine.close()


def test_every_operation_is_used_by_a_service():
    assert set(_core.native_paths().values()) == {True}


def test_introspection_before_and_after(limiter):
    coroutine = limiter.check_rate_limit("k")
    assert (coroutine.__name__, coroutine.__qualname__) == (
        "check_rate_limit",
        "TokenBucketRateLimiter.check_rate_limit",
    )
    assert coroutine.cr_code is TokenBucketRateLimiter.check_rate_limit.__code__
    assert (coroutine.cr_running, coroutine.cr_suspended, coroutine.cr_await) == (False, False, None)
    assert coroutine.cr_frame.f_code is coroutine.cr_code
    assert repr(coroutine).startswith("<coroutine object TokenBucketRateLimiter.check_rate_limit at 0x")
    if hasattr(inspect, "getcoroutinestate"):
        assert inspect.getcoroutinestate(coroutine) in (inspect.CORO_CREATED, inspect.CORO_SUSPENDED)
    finish(coroutine)
    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED
    assert (coroutine.cr_frame, coroutine.cr_running) == (None, False)


def test_cannot_be_iterated_copied_or_pickled(limiter):
    coroutine = limiter.allow("k")
    with pytest.raises(TypeError):
        iter(coroutine)
    with pytest.raises(TypeError):
        copy.copy(coroutine)
    with pytest.raises(TypeError):
        pickle.dumps(coroutine)
    coroutine.close()


# -- stepping


def test_send_next_and_await_give_the_same(limiter):
    assert finish(limiter.allow("k")) is True
    with pytest.raises(StopIteration) as stop:
        next(limiter.allow("k"))
    assert stop.value.value is True
    coroutine = limiter.allow("k")
    assert coroutine.__await__() is coroutine
    assert finish(coroutine) is True
    assert limiter._stats["allowed"] == 3


@pytest.mark.parametrize("step", [lambda c: c.send(None), next], ids=["send", "next"])
def test_tuple_results_are_not_unpacked(limiter, step):
    with pytest.raises(StopIteration) as stop:
        step(limiter.check_rate_limit("k"))
    assert stop.value.value[0] is True
    assert stop.value.args == (stop.value.value,)


async def test_results_are_what_was_returned_every_time(limiter):
    # CPython 3.12 and later are handed results in an exception object that is used again.
    answers = [await limiter.allow("one") for _ in range(5)]
    for _ in range(5):
        answers.append(await limiter.allow("one"))
        answers.append((await limiter.check_rate_limit("one"))[0])
        answers.append((await limiter.check_many(["one", "one"]))[1])
    assert answers == [True] * 20
    kept = []
    for _ in range(3):
        try:
            next(limiter.allow("one"))
        except StopIteration as stop:
            kept.append(stop)
    assert len({id(stop) for stop in kept}) == 3
    assert [stop.value for stop in kept] == [True] * 3


async def test_awaiting_under_tracing_and_profiling(limiter):
    events = []
    for install in (sys.settrace, sys.setprofile):
        install(lambda frame, event, argument: events.append(event))
        try:
            assert await limiter.allow("k") is True
            assert (await limiter.check_rate_limit("k"))[0] is True
            with pytest.raises(TypeError):
                await limiter.allow([])
        finally:
            install(None)
    assert events


async def test_errors_show_the_method_in_the_traceback(limiter):
    with pytest.raises(TypeError) as raised:
        await limiter.check_rate_limit([])
    names = []
    traceback = raised.value.__traceback__
    while traceback is not None:
        names.append(traceback.tb_frame.f_code.co_name)
        traceback = traceback.tb_next
    assert names == ["test_errors_show_the_method_in_the_traceback", "check_rate_limit"]


async def test_an_error_being_handled_becomes_the_context(limiter):
    async def fail_twice():
        try:
            raise KeyError("first")
        except KeyError:
            await limiter.allow([])

    with pytest.raises(TypeError) as raised:
        await fail_twice()
    assert isinstance(raised.value.__context__, KeyError)


def test_values_yielded_and_sent_pass_through(suspending):
    gate = Gate("one", "two")
    coroutine = suspending(gate)
    assert coroutine.send(None) == "one"
    assert coroutine.cr_suspended is True
    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_SUSPENDED
    assert coroutine.send("sent") == "two"
    with pytest.raises(StopIteration) as stop:
        coroutine.send(None)
    assert stop.value.value == (True, "awaited")
    assert gate.sent == ["sent", None]


def test_throw_into_a_suspended_one_that_goes_on(suspending):
    class Catching(Gate):
        def __await__(self):
            for value in self.values:
                try:
                    yield value
                except KeyError as error:
                    self.sent.append(error)
            return "survived"

    gate, error = Catching("one", "two"), KeyError("thrown")
    coroutine = suspending(gate)
    assert coroutine.send(None) == "one"
    assert coroutine.throw(error) == "two"
    assert gate.sent == [error]
    with pytest.raises(StopIteration) as stop:
        coroutine.throw(KeyError("again"))
    assert stop.value.value == (True, "survived")
    with pytest.raises(RuntimeError, match="cannot reuse"):
        coroutine.send(None)


def test_throw_into_a_suspended_one_that_ends(suspending):
    coroutine = suspending(Gate("one"))
    coroutine.send(None)
    with pytest.raises(LookupError, match="out"):
        coroutine.throw(LookupError("out"))
    assert coroutine.cr_frame is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((), "1 to 3"), ((1, 2, 3, 4), "1 to 3"), ((1,), "exceptions must be"), ((KeyError, None, 1), "traceback object")],
)
@pytest.mark.filterwarnings("ignore:the \\(type, exc, tb\\):DeprecationWarning")
def test_throw_takes_what_a_coroutine_takes(limiter, arguments, message):
    coroutine = limiter.allow("k")
    with pytest.raises(TypeError, match=message):
        coroutine.throw(*arguments)
    coroutine.close()


def test_throw_with_an_instance_and_a_value(limiter):
    with pytest.raises(TypeError, match="separate value"):
        limiter.allow("k").throw(KeyError("a"), KeyError("b"))


def test_closing_twice_and_after_the_end(limiter):
    coroutine = limiter.allow("k")
    assert coroutine.close() is coroutine.close() is None
    finish_me = limiter.allow("k")
    finish(finish_me)
    assert finish_me.close() is None


# -- life


def test_more_than_the_free_list_holds(limiter):
    for _ in range(3):
        coroutines = [limiter.allow("k") for _ in range(3 * FREE_LIST_SIZE)]
        assert len({id(coroutine) for coroutine in coroutines}) == 3 * FREE_LIST_SIZE
        assert [finish(coroutine) for coroutine in coroutines] == [True] * len(coroutines)
        del coroutines


def test_recycled_ones_start_anew(limiter, suspending):
    sys.set_coroutine_origin_tracking_depth(1)
    try:
        used = limiter.allow("k")
    finally:
        sys.set_coroutine_origin_tracking_depth(0)
    reference = weakref.ref(used)
    finish(used)
    del used
    assert reference() is None
    suspended = suspending(Gate("one"))
    suspended.send(None)
    suspended.close()
    del suspended
    again = [limiter.allow("k") for _ in range(FREE_LIST_SIZE)]
    assert {coroutine.cr_origin for coroutine in again} == {None}
    assert {weakref.getweakrefcount(coroutine) for coroutine in again} == {0}
    assert {gc.is_tracked(coroutine) for coroutine in again} == {False}
    assert [finish(coroutine) for coroutine in again] == [True] * FREE_LIST_SIZE


def test_arguments_live_as_long_as_the_coroutine(limiter):
    class Key:
        pass

    key = Key()
    reference = weakref.ref(key)
    coroutine = limiter.check_rate_limit(key)
    del key
    gc.collect()
    assert reference() is not None
    coroutine.close()
    assert reference() is None


def test_reference_counts_stay(limiter):
    key, config = ("some", "key"), RateLimitConfig(60, 10_000)
    limiter.check_now(key, config)
    before = [sys.getrefcount(each) for each in (key, config, limiter)]
    for _ in range(200):
        finish(limiter.check_rate_limit(key, config))
        finish(limiter.check_rate_limit(key, config=config, cost=2))
        limiter.check_rate_limit(key, config).close()
        with pytest.raises(KeyError):
            limiter.allow(key).throw(KeyError())
        with pytest.raises(TypeError):
            limiter.check_rate_limit(key, config, 3, 4)
    gc.collect()  # the exceptions' frames
    assert [sys.getrefcount(each) for each in (key, config, limiter)] == before


def test_resurrected_by_the_handler_of_its_warning(limiter, monkeypatch):
    import warnings

    kept = []
    monkeypatch.setattr(warnings, "_warn_unawaited_coroutine", kept.append)
    for _ in range(3):
        limiter.allow("k")
    assert len(kept) == 3
    assert [finish(coroutine) for coroutine in kept] == [True] * 3


def test_finalised_ones_are_not_recycled(limiter, suspending, monkeypatch):
    """CPython finalises an object once: a recycled one would not warn again."""
    import warnings

    kept = []
    monkeypatch.setattr(warnings, "_warn_unawaited_coroutine", kept.append)
    for _ in range(FREE_LIST_SIZE):
        coroutine = suspending(Gate("one"))
        coroutine.send(None)
        cycle = [coroutine]
        cycle.append(cycle)
    del coroutine, cycle
    gc.collect()  # finalised by the collector, while suspended
    for _ in range(FREE_LIST_SIZE):
        limiter.allow("k")
    assert len(kept) == FREE_LIST_SIZE
    while kept:  # finalised, resurrected, run to their end
        finish(kept.pop())
    for _ in range(FREE_LIST_SIZE):
        limiter.allow("k").close()
        limiter.allow("k")
    assert len(kept) == FREE_LIST_SIZE


def test_dropped_while_an_error_is_set(limiter):
    def drop_while_failing():
        coroutine = limiter.allow("k")
        try:
            raise ZeroDivisionError
        finally:
            del coroutine

    with pytest.warns(RuntimeWarning, match="never awaited"):  # noqa: SIM117  # two things to see
        with pytest.raises(ZeroDivisionError):
            drop_while_failing()


# -- the method descriptor


def test_method_shows_the_function_it_stands_for():
    method = TokenBucketRateLimiter.__dict__["check_rate_limit"]
    function = method.__wrapped_function__
    assert type(method) is _core.NativeMethod
    assert type(function) is types.FunctionType
    for name in (
        "__name__",
        "__qualname__",
        "__doc__",
        "__module__",
        "__code__",
        "__defaults__",
        "__kwdefaults__",
        "__annotations__",
        "__globals__",
    ):
        assert getattr(method, name) is getattr(function, name)
    assert repr(method).startswith("<native method TokenBucketRateLimiter.check_rate_limit at 0x")
    assert inspect.getsource(method) == inspect.getsource(function)
    with pytest.raises(AttributeError):
        method.no_such_attribute  # noqa: B018  # reading it is the point


def test_method_binds_as_a_function(limiter):
    method = TokenBucketRateLimiter.__dict__["allow"]
    assert method.__get__(None, TokenBucketRateLimiter) is method
    bound = method.__get__(limiter)
    assert isinstance(bound, types.MethodType)
    assert (bound.__self__, bound.__func__) == (limiter, method)
    assert finish(bound("k")) is finish(TokenBucketRateLimiter.allow(limiter, "k")) is True
    assert bound == limiter.allow
    assert hash(bound) == hash(limiter.allow)


def test_method_pickles_by_name(limiter):
    method = TokenBucketRateLimiter.allow
    assert pickle.loads(pickle.dumps(method)) is method
    assert copy.copy(method) is copy.deepcopy(method) is method


def test_method_takes_attributes():
    method = TokenBucketRateLimiter.__dict__["allow"]
    method.marker = 1
    assert method.marker == vars(method)["marker"] == 1
    del method.marker
    assert not hasattr(method, "marker")


def test_method_of_an_unknown_operation_or_function():
    with pytest.raises(LookupError, match=r"no native operation is named 'no\.such'"):
        _core.NativeMethod("no.such", test_method_of_an_unknown_operation_or_function)
    with pytest.raises(TypeError):
        _core.NativeMethod("rate_limiter.allow", print)
    with pytest.raises(TypeError):
        _core.NativeMethod("rate_limiter.allow")


def test_called_with_another_self_it_runs_the_python_function():
    class Stranger:
        def allow_now(self, key, cost):
            return key, cost

    coroutine = TokenBucketRateLimiter.allow(Stranger(), "k", 3)
    assert type(coroutine) is types.CoroutineType
    assert asyncio.run(coroutine) == ("k", 3)
    with pytest.raises(TypeError):
        TokenBucketRateLimiter.allow()


def test_a_limiter_that_was_never_initialised_is_no_crash():
    limiter = TokenBucketRateLimiter.__new__(TokenBucketRateLimiter)
    with pytest.raises((AttributeError, TypeError)):
        limiter.allow_now("k")
    endpoint = EndpointRateLimiter.__new__(EndpointRateLimiter)
    coroutine = endpoint.check("c", "/p")
    with pytest.raises(AttributeError):
        coroutine.send(None)
