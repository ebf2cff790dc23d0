"""General contract G1, G2 and G8: what an async method returns behaves as a coroutine, on the baseline and on ours."""

from __future__ import annotations

import asyncio
import collections.abc
import contextvars
import gc
import inspect
import sys
import traceback
import types
import warnings
import weakref
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import anyio
import pytest
import uvloop
from service_catalog import IMPLEMENTATIONS, SERVICES, Class, Method, each_method

Make = Callable[[], Coroutine[Any, Any, Any]]
Suspending = Callable[[Callable[[], Any]], Make]
METHODS = list(each_method(is_async=True))


@dataclass(frozen=True)
class Subject:
    """An object of a service, and one of its async methods."""

    class_: Class
    method: Method
    instance: Any

    def make(self) -> Coroutine[Any, Any, Any]:
        return getattr(self.instance, self.method.name)(*self.method.args)


@pytest.fixture(params=IMPLEMENTATIONS)
def implementation(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=METHODS, ids=lambda each: f"{each[1].name}.{each[2].name}")
def subject(request: pytest.FixtureRequest, implementation: str) -> Subject:
    """Every async method of every service."""
    service, class_, method = request.param
    return Subject(class_, method, class_.make(service.module(implementation)))


@pytest.fixture
def make(subject: Subject) -> Make:
    """Makes a fresh coroutine of the method."""
    return subject.make


@pytest.fixture(params=SERVICES, ids=lambda service: service.name)
def suspending(request: pytest.FixtureRequest, implementation: str) -> Suspending:
    """body -> makes the coroutine of an async method that awaits `body()` inside an override."""
    return lambda body: request.param.suspending(request.param.module(implementation), body)


# -- G1


def test_g1_is_a_coroutine(make: Make) -> None:
    coroutine = make()
    assert asyncio.iscoroutine(coroutine)
    assert inspect.iscoroutine(coroutine)
    assert inspect.isawaitable(coroutine)
    assert isinstance(coroutine, collections.abc.Coroutine)
    assert isinstance(coroutine, types.CoroutineType)
    assert not isinstance(coroutine, asyncio.Future)
    coroutine.close()


async def test_g1_await_and_tasks(make: Make) -> None:
    expected = type(await make())
    loop = asyncio.get_running_loop()
    results = [
        await asyncio.create_task(make(), name="named"),
        await loop.create_task(make()),
        await asyncio.ensure_future(make()),
        await asyncio.wait_for(make(), 10),
        await asyncio.shield(make()),
        *await asyncio.gather(make(), make()),
    ]
    (done,), _ = await asyncio.wait([asyncio.ensure_future(make())])
    assert {type(result) for result in [*results, done.result()]} == {expected}


@pytest.mark.parametrize("policy", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_g1_run_until_complete(make: Make, policy: Callable[[], asyncio.AbstractEventLoop]) -> None:
    loop = policy()
    try:
        first = loop.run_until_complete(make())

        async def again() -> Any:
            return (await asyncio.gather(make(), asyncio.wait_for(make(), 10)))[1]

        assert type(loop.run_until_complete(again())) is type(first)
    finally:
        loop.run_until_complete(cancel_everything())
        loop.close()


async def cancel_everything() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def test_g1_asyncio_run_and_debug_mode(make: Make) -> None:
    assert type(asyncio.run(make())) is type(asyncio.run(make(), debug=True))


def test_g1_anyio_run_and_task_group(make: Make) -> None:
    async def main() -> Any:
        async with anyio.create_task_group() as group:
            group.start_soon(make)
        with anyio.fail_after(10):
            return await make()

    assert type(anyio.run(main)) is type(anyio.run(make))


async def test_g1_run_coroutine_threadsafe(make: Make) -> None:
    loop = asyncio.get_running_loop()
    expected = type(await make())
    submitted = await asyncio.to_thread(lambda: asyncio.run_coroutine_threadsafe(make(), loop))
    assert type(await asyncio.wrap_future(submitted)) is expected


async def test_g1_task_group_and_eager_tasks_where_python_has_them(make: Make) -> None:
    expected = type(await make())
    tasks = []
    if group_type := getattr(asyncio, "TaskGroup", None):
        async with group_type() as group:
            tasks.append(group.create_task(make()))
    if eager := getattr(asyncio, "eager_task_factory", None):
        loop = asyncio.get_running_loop()
        loop.set_task_factory(eager)
        try:
            tasks.append(asyncio.create_task(make()))
        finally:
            loop.set_task_factory(None)
    assert [type(await task) for task in tasks] == [expected] * len(tasks)
    assert len(tasks) == (sys.version_info >= (3, 11)) + (sys.version_info >= (3, 12))


async def test_g1_second_await_is_an_error(make: Make) -> None:
    coroutine = make()
    await coroutine
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        await coroutine
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        coroutine.send(None)
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        coroutine.throw(ValueError())
    coroutine.close()


def test_g1_first_value_sent_must_be_none(make: Make) -> None:
    coroutine = make()
    with pytest.raises(TypeError, match="just-started"):
        coroutine.send(1)
    coroutine.close()


@pytest.mark.parametrize("arguments", [(KeyError("k"),), (KeyError,), (KeyError, KeyError("k"), None)])
@pytest.mark.filterwarnings("ignore:the \\(type, exc, tb\\):DeprecationWarning")
def test_g1_throw_before_the_start(make: Make, arguments: Any) -> None:
    coroutine = make()
    with pytest.raises(KeyError) as raised:
        coroutine.throw(*arguments)
    assert any(frame.name == coroutine.__name__ for frame in traceback.extract_tb(raised.value.__traceback__))
    with pytest.raises(RuntimeError, match="cannot reuse"):
        coroutine.send(None)


async def test_g1_cancelled_before_the_start(make: Make) -> None:
    task = asyncio.create_task(make())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_g1_suspends_inside_and_comes_back(suspending: Suspending) -> None:
    gate = asyncio.Event()
    coroutine = suspending(gate.wait)()
    task = asyncio.create_task(coroutine)
    await asyncio.sleep(0)
    assert not task.done()
    assert coroutine.cr_running is False
    assert coroutine.cr_frame is not None
    assert coroutine.cr_await is not None
    gate.set()
    assert (await task)[0] is True
    assert coroutine.cr_frame is None


async def test_g1_awaited_twice_while_suspended(suspending: Suspending) -> None:
    gate = asyncio.Event()
    coroutine = suspending(gate.wait)()
    task = asyncio.create_task(coroutine)
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="being awaited already"):
        await coroutine
    gate.set()
    await task


async def test_g1_a_running_one_cannot_be_stepped(suspending: Suspending) -> None:
    errors = []

    async def body() -> None:
        assert coroutine.cr_running is True
        for step in (lambda: coroutine.send(None), lambda: coroutine.throw(KeyError()), lambda: coroutine.close()):
            with pytest.raises(ValueError, match="already executing") as raised:
                step()
            errors.append(raised.value)

    coroutine = suspending(body)()
    await coroutine
    assert len(errors) == 3


async def test_g1_timeout_reaches_a_suspended_one(suspending: Suspending) -> None:
    ended = []

    async def body() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(suspending(body)(), 0.01)
    assert ended == [True]


async def test_g1_closing_a_suspended_one_runs_its_clean_up(suspending: Suspending) -> None:
    seen = []

    async def body() -> None:
        try:
            await asyncio.Event().wait()
        except BaseException as error:
            seen.append(type(error))
            raise

    coroutine = suspending(body)()
    coroutine.send(None)
    coroutine.close()
    assert seen == [GeneratorExit]
    assert coroutine.cr_frame is None


async def test_g1_closing_one_that_goes_on_is_an_error(suspending: Suspending) -> None:
    async def body() -> None:
        try:
            await asyncio.Event().wait()
        except GeneratorExit:
            await asyncio.sleep(0)

    coroutine = suspending(body)()
    coroutine.send(None)
    with pytest.raises(RuntimeError, match="ignored GeneratorExit"):
        coroutine.close()


async def test_g1_stop_iteration_inside_is_a_runtime_error(suspending: Suspending) -> None:
    async def body() -> None:
        raise StopIteration(1)

    with pytest.raises(RuntimeError, match="raised StopIteration"):
        await suspending(body)()


async def test_g1_tuple_results_and_exceptions_survive_every_way(suspending: Suspending) -> None:
    async def body() -> None:
        await asyncio.sleep(0)

    for result in (await suspending(body)(), await asyncio.create_task(suspending(body)())):
        assert isinstance(result, tuple)
        assert len(result) == 2

    async def fail() -> None:
        raise KeyError("inside")

    with pytest.raises(KeyError, match="inside"):
        await asyncio.create_task(suspending(fail)())


# -- G2


def test_g2_nothing_happens_before_the_first_step(subject: Subject) -> None:
    before = subject.class_.state(subject.instance)
    coroutine = subject.make()
    assert subject.class_.state(subject.instance) == before
    coroutine.close()
    assert subject.class_.state(subject.instance) == before


def test_g2_dropping_it_unawaited_warns(subject: Subject) -> None:
    # The second one would be silent if its object had been taken from a free list after being finalised.
    name = f"{subject.class_.name}.{subject.method.name}"
    for _ in range(3):
        with pytest.warns(RuntimeWarning, match=f"'{name}' was never awaited"):
            subject.make()


def test_g2_closed_or_awaited_ones_do_not_warn(make: Make) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make().close()
        asyncio.run(make())
        gc.collect()


def test_g2_origin_tracking(make: Make) -> None:
    sys.set_coroutine_origin_tracking_depth(2)
    try:
        coroutine = make()
    finally:
        sys.set_coroutine_origin_tracking_depth(0)
    assert len(coroutine.cr_origin) == 2
    assert all(len(frame) == 3 for frame in coroutine.cr_origin)
    assert __file__ in {frame[0] for frame in coroutine.cr_origin}
    coroutine.close()
    untracked = make()
    assert untracked.cr_origin is None
    untracked.close()


def test_g2_weak_references_and_arguments_are_let_go(make: Make) -> None:
    coroutine = make()
    gone = weakref.ref(coroutine)
    coroutine.close()
    del coroutine
    assert gone() is None


# -- G8


async def test_g8_context_and_current_task_are_the_callers(suspending: Suspending) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    seen = []

    async def body() -> None:
        seen.append((variable.get(), asyncio.current_task()))
        await asyncio.sleep(0)
        variable.set("callee")

    variable.set("caller")
    await suspending(body)()
    assert seen == [("caller", asyncio.current_task())]
    assert variable.get() == "callee"


async def test_g8_cancellation_reaches_the_callee(suspending: Suspending) -> None:
    reached = asyncio.Event()
    seen = []

    async def body() -> None:
        reached.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    task = asyncio.create_task(suspending(body)())
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert seen == ["cancelled"]


async def test_g8_traceback_shows_every_frame(suspending: Suspending) -> None:
    async def body_that_fails() -> None:
        await asyncio.sleep(0)
        raise LookupError("deep")

    coroutine = suspending(body_that_fails)()
    name = coroutine.__name__
    with pytest.raises(LookupError) as raised:
        await asyncio.create_task(coroutine)
    names = [frame.name for frame in traceback.extract_tb(raised.value.__traceback__)]
    assert names[-1] == "body_that_fails"
    assert name in names
    assert names.index(name) < names.index("check_rate_limit") < names.index("body_that_fails")


async def test_g8_task_repr_and_stack_name_the_method(suspending: Suspending) -> None:
    gate = asyncio.Event()
    coroutine = suspending(gate.wait)()
    task = asyncio.create_task(coroutine)
    await asyncio.sleep(0)
    assert coroutine.__qualname__ in repr(task)
    assert [frame.f_code.co_name for frame in task.get_stack()][:1] == [coroutine.__name__]
    gate.set()
    await task
