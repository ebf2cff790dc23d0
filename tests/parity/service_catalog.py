"""The services that the general contract (G1-G10) is tested on. A later service adds one entry to `SERVICES`."""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from peercore.bench.baseline import MODULE_PREFIX, load_file

BASELINE = "baseline"
NATIVE = "native"
IMPLEMENTATIONS = (BASELINE, NATIVE)

_BASELINES = Path(__file__).parents[2] / "benchmarks" / "baseline"


@dataclass(frozen=True)
class Method:
    """A public method or function: its v1.2 signature, and how to call it."""

    name: str
    signature: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    """The same call by keyword."""
    is_async: bool = True


@dataclass(frozen=True)
class Class:
    """A public class: how to make an object, its methods, and the private ones that callers override or call."""

    name: str
    make: Callable[[ModuleType], Any]
    signature: str
    methods: tuple[Method, ...]
    state: Callable[[Any], Any]
    """What its methods can change, comparable."""


@dataclass(frozen=True)
class SelfCall:
    """`outer` calls `inner` through self or an attribute (`path`), so an override of it has to be honoured."""

    class_name: str
    outer: Method
    path: str
    inner: str
    override: Callable[..., Any]
    """Stands in for `inner`, taking the object and `inner`'s arguments."""
    seen: Callable[[Any], bool]
    """Whether a result of `outer` shows that the override ran."""


@dataclass(frozen=True)
class Service:
    """One v1.2 service."""

    name: str
    classes: tuple[Class, ...]
    functions: tuple[Method, ...]
    dataclasses: dict[str, Callable[[ModuleType], Any]]
    """Name -> makes one with other than default values."""
    self_calls: tuple[SelfCall, ...]
    suspending: Callable[[ModuleType, Callable[[], Awaitable[Any]]], Callable[[], Coroutine[Any, Any, Any]]]
    """(module, body) -> makes the coroutine of a v1.2 async method that awaits `body()` inside an override."""

    def module(self, implementation: str) -> ModuleType:
        return _baseline(self.name) if implementation == BASELINE else native_module(self.name)


@functools.cache
def _baseline(name: str) -> ModuleType:
    # One module however many tests load it: pickle finds its classes there by name.
    return sys.modules.get(f"{MODULE_PREFIX}{name}") or load_file(_BASELINES / f"{name}.py")


def native_module(name: str) -> ModuleType:
    return importlib.import_module(f"peercore.services.{name}")


# -- rate_limiter

_CHECK = Method("check_rate_limit", "(self, key, config=None)", ("key",), {"key": "key", "config": None})
_ENDPOINT_CHECK = Method(
    "check", "(self, client_id, path)", ("client", "/path"), {"client_id": "client", "path": "/path"}
)


def _suspending_check(module: ModuleType, body: Callable[[], Awaitable[Any]]) -> Callable[[], Coroutine[Any, Any, Any]]:
    class Suspending(module.TokenBucketRateLimiter):  # type: ignore[name-defined,misc]
        async def check_rate_limit(self, key: str, config: Any = None) -> Any:
            await body()
            return await super().check_rate_limit(key, config)

    endpoint = module.EndpointRateLimiter()
    endpoint._rate_limiter = Suspending(endpoint.default_config)
    return functools.partial(endpoint.check, "client", "/path")


def _config_of_three(limiter: Any, *arguments: Any) -> Any:
    config = type(limiter.default_config)
    return config(requests_per_minute=333, burst_size=3)


async def _refuse_all(limiter: Any, *arguments: Any) -> Any:
    return False, {"limit": 333}


def _shows_333(result: Any) -> bool:
    return bool(result[1]["limit"] == 333)


def _limiter_state(limiter: Any) -> Any:
    return dict(limiter._stats), list(limiter._buckets), dict(limiter._configs), limiter._cleanup_task


RATE_LIMITER = Service(
    "rate_limiter",
    classes=(
        Class(
            "TokenBucketRateLimiter",
            lambda module: module.TokenBucketRateLimiter(),
            "(default_config=None, cleanup_interval=300)",
            (
                _CHECK,
                Method("start", "(self)"),
                Method("stop", "(self)"),
                Method("get_stats", "(self)"),
                Method("reset", "(self, key=None)", ("key",), {"key": None}),
                Method("_cleanup_old_buckets", "(self)"),
                Method("set_config", "(self, key, config)", ("key", None), {"key": "k", "config": None}, False),
                Method("get_config", "(self, key)", ("key",), {"key": "key"}, False),
            ),
            _limiter_state,
        ),
        Class(
            "EndpointRateLimiter",
            lambda module: module.EndpointRateLimiter(),
            "(default_rpm=60, default_burst=10)",
            (
                _ENDPOINT_CHECK,
                Method("start", "(self)"),
                Method("stop", "(self)"),
                Method("get_stats", "(self)"),
                Method(
                    "set_limit",
                    "(self, path, requests_per_minute, burst_size=None)",
                    ("/p", 60),
                    {"path": "/p", "requests_per_minute": 60, "burst_size": 5},
                    False,
                ),
                Method("get_limit", "(self, path)", ("/p",), {"path": "/p"}, False),
            ),
            lambda endpoint: (_limiter_state(endpoint._rate_limiter), dict(endpoint._endpoint_configs)),
        ),
    ),
    functions=(
        Method("get_rate_limiter", "()", is_async=False),
        Method("get_endpoint_rate_limiter", "()", is_async=False),
        Method("init_rate_limiters", "()"),
        Method("shutdown_rate_limiters", "()"),
        Method("rate_limit", "(requests_per_minute=60, burst_size=None)", is_async=False),
        Method("strict_limit", "(func=None)", is_async=False),
        Method("standard_limit", "(func=None)", is_async=False),
        Method("generous_limit", "(func=None)", is_async=False),
    ),
    dataclasses={
        "RateLimitConfig": lambda module: module.RateLimitConfig(30, 5, 10, "other"),
        "RateLimitState": lambda module: module.RateLimitState(1.5, 1000.0, 3, 990.0),
    },
    self_calls=(
        SelfCall("TokenBucketRateLimiter", _CHECK, "", "get_config", _config_of_three, _shows_333),
        SelfCall("EndpointRateLimiter", _ENDPOINT_CHECK, "", "get_limit", _config_of_three, _shows_333),
        SelfCall("EndpointRateLimiter", _ENDPOINT_CHECK, "_rate_limiter", "check_rate_limit", _refuse_all, _shows_333),
    ),
    suspending=_suspending_check,
)

SERVICES = (RATE_LIMITER,)


# -- walking over them


def each_class() -> Iterator[tuple[Service, Class]]:
    for service in SERVICES:
        for class_ in service.classes:
            yield service, class_


def each_method(is_async: bool | None = None) -> Iterator[tuple[Service, Class, Method]]:
    for service, class_ in each_class():
        for method in class_.methods:
            if is_async is None or method.is_async == is_async:
                yield service, class_, method


def v1_2_signature(callable_: Any) -> str:
    """The signature as the contract writes it: without annotations, and without keyword-only parameters (additions)."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = [each for each in inspect.signature(callable_).parameters.values() if each.kind in kinds]
    return str(inspect.Signature([each.replace(annotation=each.empty) for each in parameters]))
