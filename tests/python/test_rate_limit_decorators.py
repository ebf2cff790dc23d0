"""Decorators and the FastAPI dependency (contract rate_limiter, sections 6, 8, 9)."""

from __future__ import annotations

import asyncio
import inspect
import sys

import pytest
from asgi_client import ManualClock, ask, http_scope
from fastapi import Depends, FastAPI, HTTPException
from starlette.requests import Request

from peercore.ratelimit.config import RateLimitConfig
from peercore.ratelimit.decorators import generous_limit, rate_limit, standard_limit, strict_limit
from peercore.ratelimit.endpoint import EndpointRateLimiter
from peercore.ratelimit.limiter import TokenBucketRateLimiter
from peercore.services import rate_limiter as service


@pytest.fixture
def clock():
    return ManualClock()


def request_from(host: str | None = "10.0.0.1", *forwarded: str) -> Request:
    headers = [(b"x-forwarded-for", value.encode("latin-1")) for value in forwarded]
    return Request(http_scope("/x", client=None if host is None else (host, 1), headers=headers))


async def admitted(call, tries=40) -> int:
    """Call until refused; how often it was admitted."""
    for count in range(tries):
        try:
            await call()
        except HTTPException:
            return count
    return tries


def limited(**options):
    """An endpoint limited to a burst of 2, on a clock that stands still."""
    decorate = rate_limit(
        60, 2, limiter=TokenBucketRateLimiter(clock=ManualClock(), **options.pop("on", {})), **options
    )

    @decorate
    async def endpoint(request):
        return request.state.rate_limit_info

    return endpoint


# -- what is limited


async def test_f02_calls_share_a_limiter(clock):
    @rate_limit(60, 3)
    async def endpoint(request):
        return "done"

    assert isinstance(endpoint.rate_limiter, TokenBucketRateLimiter)
    assert await admitted(lambda: endpoint(request_from())) == 3
    assert list(endpoint.rate_limiter._buckets) == ["10.0.0.1:endpoint"]


async def test_f02_functions_do_not_share_one():
    decorate = rate_limit(60, 1)

    @decorate
    async def one():
        return 1

    @decorate
    async def two():
        return 2

    assert (await one(), await two()) == (1, 2)
    assert one.rate_limiter is not two.rate_limiter


async def test_clients_have_buckets_of_their_own():
    endpoint = limited()
    for host in ("10.0.0.1", "10.0.0.2", None):
        assert await admitted(lambda host=host: endpoint(request_from(host))) == 2
    assert list(endpoint.rate_limiter._buckets) == ["10.0.0.1:endpoint", "10.0.0.2:endpoint", "unknown:endpoint"]


async def test_f04_denials_leave_no_task():
    endpoint = limited()
    before = asyncio.all_tasks()
    for _ in range(3):
        await admitted(lambda: endpoint(request_from()))
    assert asyncio.all_tasks() == before
    assert endpoint.rate_limiter._cleanup_task is None


async def test_f05_sync_functions_are_called():
    @rate_limit(60, 2)
    def endpoint(request, number):
        return number + 1

    assert inspect.iscoroutinefunction(endpoint)
    assert await endpoint(request_from(), number=1) == 2
    assert await admitted(lambda: endpoint(request_from(), 1)) == 1


async def test_f06_an_argument_named_request_need_not_be_one():
    @rate_limit(60, 1)
    async def endpoint(a, *, request=None, other=None):
        return request

    assert await endpoint(1, request={"id": 7}) == {"id": 7}
    assert await endpoint(request_from("10.0.0.2"), request="text") == "text"
    assert await endpoint(1, request=None, other=request_from("10.0.0.3")) is None
    assert await endpoint(1, request=request_from("10.0.0.4")) is not None
    assert list(endpoint.rate_limiter._buckets) == [
        f"{client}:endpoint" for client in ("unknown", "10.0.0.2", "10.0.0.3", "10.0.0.4")
    ]


async def test_the_argument_named_request_comes_first():
    @rate_limit(60, 1)
    async def endpoint(other, request):
        return None

    await endpoint(request_from("10.0.0.1"), request=request_from("10.0.0.2"))
    assert list(endpoint.rate_limiter._buckets) == ["10.0.0.2:endpoint"]


async def test_f07_forwarded_for_of_a_stranger_is_ignored():
    endpoint = limited()
    values = iter(range(100))
    assert await admitted(lambda: endpoint(request_from("10.0.0.1", f"1.1.1.{next(values)}"))) == 2


async def test_refusal_and_info():
    endpoint = limited()
    info = await endpoint(request_from())
    assert info == {"limit": 60, "remaining": 1, "reset_at": 1060.0, "window": 60}
    await endpoint(request_from())
    with pytest.raises(HTTPException) as caught:
        await endpoint(request_from())
    assert caught.value.detail == {"error": "Rate limit exceeded", "retry_after": 1.0}
    assert caught.value.headers == {
        "Retry-After": "1",
        "X-RateLimit-Limit": "60",
        "X-RateLimit-Remaining": "0",
        "X-RateLimit-Reset": "1060",
    }


async def test_errors_of_the_function_propagate():
    @rate_limit(60, 2)
    async def endpoint():
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        await endpoint()


def test_metadata_is_preserved():
    @rate_limit()
    async def endpoint(a: int, *, b: str = "x") -> str:
        """Text."""

    assert (endpoint.__name__, endpoint.__doc__) == ("endpoint", "Text.")
    assert inspect.iscoroutinefunction(endpoint)
    assert str(inspect.signature(endpoint)) == "(a: int, *, b: str = 'x') -> str"
    assert list(inspect.signature(rate_limit).parameters)[:2] == ["requests_per_minute", "burst_size"]


@pytest.mark.parametrize(
    ("shorthand", "burst", "rate"), [(strict_limit, 3, 10), (standard_limit, 10, 60), (generous_limit, 20, 100)]
)
@pytest.mark.parametrize("called", [False, True])
async def test_shorthands(shorthand, burst, rate, called):
    async def endpoint(request):
        return request.state.rate_limit_info["limit"]

    endpoint = shorthand()(endpoint) if called else shorthand(endpoint)
    assert await endpoint(request_from()) == rate
    assert await admitted(lambda: endpoint(request_from())) == burst - 1


# -- arguments


@pytest.mark.parametrize(("rate", "burst"), [(1, 1), (5, 1), (6, 1), (12, 2), (60, 10)])
async def test_f03_default_burst_is_at_least_one(rate, burst):
    @rate_limit(rate)
    async def endpoint():
        return None

    assert await admitted(endpoint) == burst


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"burst_size": 0}, ValueError, "burst_size.*0"),
        ({"burst_size": -1}, ValueError, "burst_size.*-1"),
        ({"requests_per_minute": 0}, ValueError, "requests_per_minute.*0"),
        ({"requests_per_minute": -5}, ValueError, "requests_per_minute.*-5"),
        ({"requests_per_minute": "many"}, TypeError, "requests_per_minute"),
        ({"trusted_proxies": ["nonsense"]}, ValueError, "trusted_proxies.*'nonsense'"),
        ({"trusted_proxies": [7]}, TypeError, "trusted_proxies"),
        ({"compat": "v2"}, ValueError, "compat.*'v2'"),
    ],
)
def test_f22_bad_arguments_are_named(arguments, error, says):
    with pytest.raises(error, match=says):
        rate_limit(**arguments)


def test_only_functions_are_decorated():
    with pytest.raises(TypeError, match="7"):
        rate_limit()(7)


# -- decisions, both sides


async def test_decision_decorator_state_default():
    @rate_limit(60, 1)
    async def endpoint():
        return None

    assert await admitted(endpoint) == 1


async def test_decision_x_forwarded_for_default():
    endpoint = limited(trusted_proxies=["10.0.0.0/8"])
    await endpoint(request_from("10.0.0.1", "6.6.6.6, 203.0.113.5, 10.0.0.2"))
    assert list(endpoint.rate_limiter._buckets) == ["203.0.113.5:endpoint"]


@pytest.mark.parametrize("options", [{"trusted_proxies": "*"}, {"compat": "v1.2"}])
async def test_decision_x_forwarded_for_v1_2(options):
    endpoint = limited(**options)
    await endpoint(request_from("10.0.0.1", "6.6.6.6, 203.0.113.5"))
    assert list(endpoint.rate_limiter._buckets) == ["6.6.6.6:endpoint"]


@pytest.mark.parametrize(
    ("options", "kind"), [({}, float), ({"integer_retry_after": True}, int), ({"compat": "v1.2"}, int)]
)
async def test_decision_retry_after_type(options, kind):
    @rate_limit(60, 1, **options)
    async def endpoint():
        return None

    await endpoint()
    with pytest.raises(HTTPException) as caught:
        await endpoint()
    assert type(caught.value.detail["retry_after"]) is kind
    assert caught.value.headers["Retry-After"] == "1"


async def test_decision_invalid_configs_v1_2():
    @rate_limit(60, 0, compat="v1.2")
    async def endpoint():
        return None

    assert await admitted(endpoint) == 10, "v1.2 took a burst of 0 for none given"
    rate_limit(-1, 1, compat="v1.2")


# -- under FastAPI


async def test_in_fastapi_with_annotations_as_text():
    app = FastAPI()

    @app.get("/items/{number}")
    @rate_limit(60, 1)
    async def item(number: int, request: Request, verbose: bool = False):
        return {"number": number, "left": request.state.rate_limit_info["remaining"], "verbose": verbose}

    answer = await ask(app, "/items/7", query_string=b"verbose=1")
    assert answer.json() == {"number": 7, "left": 0, "verbose": True}
    refused = await ask(app, "/items/8")
    assert (refused.status, refused.headers["retry-after"], refused.headers["x-ratelimit-remaining"]) == (429, "1", "0")
    assert refused.json() == {"detail": {"error": "Rate limit exceeded", "retry_after": 1.0}}


# -- the dependency


def with_dependency(dependency) -> FastAPI:
    app = FastAPI()

    @app.get("/{name}", dependencies=[Depends(dependency)])
    async def endpoint(name: str):
        return name

    return app


@pytest.fixture
def fresh_singletons(monkeypatch):
    monkeypatch.setattr(service, "_default_limiter", None)
    monkeypatch.setattr(service, "_endpoint_limiter", None)


@pytest.mark.usefixtures("fresh_singletons")
async def test_dependency_limits_by_client_and_path():
    app = with_dependency(service.check_rate_limit)
    assert [(await ask(app, "/a")).status for _ in range(11)] == [200] * 10 + [429]
    refused = await ask(app, "/a")
    assert refused.json()["detail"]["error"] == "Rate limit exceeded"
    assert set(refused.json()["detail"]) == {"error", "retry_after"}
    assert set(refused.headers) == {"content-length", "content-type", "retry-after"}
    assert (await ask(app, "/b")).status == 200
    assert set(service.get_rate_limiter()._buckets) == {"10.0.0.1:/a", "10.0.0.1:/b"}


async def test_dependency_can_be_given_another_limiter(clock):
    app = with_dependency(service.check_rate_limit)
    other = TokenBucketRateLimiter(RateLimitConfig(60, 1), clock=clock)
    app.dependency_overrides[service.get_rate_limiter] = lambda: other
    assert [(await ask(app, "/a", client=None)).status for _ in range(2)] == [200, 429]
    assert list(other._buckets) == ["unknown:/a"]


@pytest.mark.parametrize("give", ["endpoint", "inner"])
async def test_f09_dependency_reaches_limits_by_path(clock, give):
    endpoint = EndpointRateLimiter(60, 5, clock=clock)
    endpoint.set_limit("/a", 60, 2)
    limiter = endpoint if give == "endpoint" else endpoint._rate_limiter
    request = Request(http_scope("/a"))
    assert await admitted(lambda: service.check_rate_limit(request, limiter)) == 2
    assert await admitted(lambda: service.check_rate_limit(Request(http_scope("/b")), limiter)) == 5


async def test_dependency_called_directly_returns_none(clock):
    limiter = TokenBucketRateLimiter(clock=clock)
    assert await service.check_rate_limit(Request(http_scope("/a")), limiter=limiter) is None


def test_dependency_signature():
    parameters = inspect.signature(service.check_rate_limit).parameters
    assert list(parameters) == ["request", "limiter"]
    assert parameters["limiter"].default.dependency is service.get_rate_limiter
    assert service.check_rate_limit.__module__ == service.__name__
    assert sys.modules[service.__name__].check_rate_limit is service.check_rate_limit
