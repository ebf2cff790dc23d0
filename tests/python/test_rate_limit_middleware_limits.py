"""Which limit RateLimitMiddleware applies, and both sides of its decisions (contract rate_limiter, sections 8, 9)."""

from __future__ import annotations

import logging

import pytest
from asgi_client import ManualClock, ask, hello, http_scope
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from peercore.ratelimit.clients import url_path
from peercore.ratelimit.config import RateLimitConfig
from peercore.ratelimit.endpoint import EndpointRateLimiter
from peercore.ratelimit.limiter import TokenBucketRateLimiter
from peercore.ratelimit.middleware import RateLimitMiddleware
from peercore.services import rate_limiter as service


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def limiter(clock):
    return TokenBucketRateLimiter(RateLimitConfig(60, 2), clock=clock)


@pytest.fixture
def endpoint(clock):
    """As v1.2's api_server sets it up."""
    endpoint = EndpointRateLimiter(default_rpm=100, default_burst=20, clock=clock)
    endpoint.set_limit("/auth", 10, 5)
    endpoint.set_limit("/message", 60, 10)
    return endpoint


async def admitted(app, path="/", tries=60, **more) -> int:
    return [(await ask(app, path, **more)).status for _ in range(tries)].count(200)


# -- limits by path


@pytest.mark.parametrize("give", ["inner", "endpoint"])
async def test_f08_limits_by_path_apply(endpoint, give):
    app = RateLimitMiddleware(hello, endpoint._rate_limiter if give == "inner" else endpoint)
    assert (await admitted(app, "/auth"), await admitted(app, "/message"), await admitted(app, "/other")) == (5, 10, 20)
    assert (await ask(app, "/auth")).headers["x-ratelimit-limit"] == "10"
    assert "10.0.0.1:/auth" in endpoint._rate_limiter._buckets


@pytest.mark.parametrize("default_burst", [10, 3])
async def test_f08_two_middlewares_and_the_stricter_header(endpoint, clock, default_burst):
    """The arrangement of v1.2's api_server: the default limiter outside, the one with the path limits inside."""
    app = FastAPI()
    app.add_middleware(RateLimitMiddleware, rate_limiter=endpoint._rate_limiter)
    outer = TokenBucketRateLimiter(RateLimitConfig(60, default_burst), clock=clock)
    app.add_middleware(RateLimitMiddleware, rate_limiter=outer)
    app.router.add_route("/auth", lambda request: PlainTextResponse("a"))
    first = await ask(app, "/auth")
    assert first.headers["x-ratelimit-limit"] == ("10" if default_burst == 10 else "60")
    assert first.headers["x-ratelimit-remaining"] == str(min(5, default_burst) - 1)
    assert await admitted(app, "/auth") == min(5, default_burst) - 1


async def test_f08_refusal_of_the_inner_one_keeps_its_header(endpoint, clock):
    outer = TokenBucketRateLimiter(RateLimitConfig(60, 6), clock=clock)
    app = RateLimitMiddleware(RateLimitMiddleware(hello, endpoint), outer)
    assert await admitted(app, "/auth", 5) == 5
    refused = await ask(app, "/auth")
    assert (refused.status, refused.headers["x-ratelimit-limit"], refused.headers["retry-after"]) == (429, "10", "6")


async def test_f08_the_path_table_outlives_its_owner(clock):
    endpoint = EndpointRateLimiter(clock=clock)
    endpoint.set_limit("/auth", 10, 3)
    app = RateLimitMiddleware(hello, endpoint._rate_limiter)
    del endpoint
    assert await admitted(app, "/auth") == 3


async def test_f08_limits_set_later_apply(endpoint):
    app = RateLimitMiddleware(hello, endpoint._rate_limiter)
    await ask(app, "/late")
    endpoint.set_limit("/late", 60, 2)
    assert await admitted(app, "/late") == 2


async def test_get_limit_of_a_subclass_is_honoured(clock):
    class Night(EndpointRateLimiter):
        def get_limit(self, path):
            return RateLimitConfig(60, 1)

    app = RateLimitMiddleware(hello, Night(clock=clock))
    assert await admitted(app, "/a") == 1


async def test_f09_limits_of_init_rate_limiters_are_reachable(monkeypatch):
    monkeypatch.setattr(service, "_default_limiter", None)
    monkeypatch.setattr(service, "_endpoint_limiter", None)
    await service.init_rate_limiters()
    try:
        app = RateLimitMiddleware(hello, service.get_endpoint_rate_limiter())
        assert await admitted(app, "/auth/token", 5) == 2
        assert await admitted(app, "/register", 8) == 5
    finally:
        await service.shutdown_rate_limiters()


# -- bounded by design


async def test_f10_paths_without_number_make_no_buckets_without_number(clock):
    limiter = TokenBucketRateLimiter(RateLimitConfig(60, 2), clock=clock, max_buckets=50)
    app = RateLimitMiddleware(hello, limiter)
    for n in range(500):
        await ask(app, f"/{n}")
    assert len(limiter._buckets) <= 50


async def test_f10_a_long_path_makes_no_long_key(limiter):
    app = RateLimitMiddleware(hello, limiter)
    path = "/" + "a" * 65536
    assert await admitted(app, path, 5) == 2
    assert await admitted(app, path + "b", 5) == 2
    assert max(map(len, limiter._buckets)) < 512


async def test_f11_nothing_depends_on_start(clock):
    """v1.2's api_server never starts its limiter; idle buckets go all the same when the table is full."""
    endpoint = EndpointRateLimiter(600, 1, clock=clock, max_buckets=10)
    app = RateLimitMiddleware(hello, endpoint)
    for n in range(100):
        clock.now += 1.0
        await ask(app, f"/{n}")
    assert len(endpoint._rate_limiter._buckets) <= 10


def routed(framework: str):
    """An application with parameters in routes, nested and mounted."""

    async def item(request):
        return PlainTextResponse("item")

    if framework == "starlette":
        inner = [Route("/{id}", item), Route("/", item)]
        return Starlette(routes=[Route("/items/{id}", item), Mount("/api", routes=inner), Mount("/raw", app=hello)])
    app = FastAPI()
    router = APIRouter(prefix="/api")

    @router.get("/{number}")
    async def nested(number: int):
        return number

    @app.get("/items/{number}")
    async def flat(number: int):
        return number

    app.include_router(router)
    app.mount("/raw", hello)
    return app


@pytest.mark.parametrize("framework", ["starlette", "fastapi"])
@pytest.mark.parametrize("root_path", ["", "/root"])
async def test_f10_by_route_varied_paths_share_a_bucket(framework, root_path, clock):
    endpoint = EndpointRateLimiter(60, 4, clock=clock)
    endpoint.set_limit("/items/{number}", 60, 3)
    endpoint.set_limit("/items/{id}", 60, 3)
    app = routed(framework)
    app.add_middleware(RateLimitMiddleware, rate_limiter=endpoint, key_by="route")

    # Newer Starlette expects the whole path, as the ASGI specification has it; older ones without the root.
    prefix = "" if url_path(http_scope("/", root_path=root_path)) == f"{root_path}/" else root_path

    async def refused(paths) -> int:
        return [(await ask(app, prefix + path, root_path=root_path)).status for path in paths].count(429)

    assert await refused(f"/items/{n}" for n in range(10)) == 7
    assert await refused(f"/api/{n}" for n in range(10)) == 6
    assert await refused(f"/raw/{n}" for n in range(10)) == 6
    assert await refused(f"/no/such/{n}" for n in range(10)) == 6
    name = "number" if framework == "fastapi" else "id"
    assert set(endpoint._rate_limiter._buckets) == {
        f"10.0.0.1:{template}" for template in (f"/items/{{{name}}}", f"/api/{{{name}}}", "/raw/*", "*")
    }


async def test_f10_by_route_a_wrong_method_counts_for_the_route(limiter):
    app = routed("starlette")
    app.add_middleware(RateLimitMiddleware, rate_limiter=limiter, key_by="route")
    assert (await ask(app, "/items/1", method="DELETE")).status == 405
    assert list(limiter._buckets) == ["10.0.0.1:/items/{id}"]


async def test_f10_by_route_around_no_framework(limiter):
    app = RateLimitMiddleware(hello, limiter, key_by="route")
    for path in ("/a", "/b"):
        await ask(app, path)
    assert list(limiter._buckets) == ["10.0.0.1:*"]


async def test_f25_clients_without_address_share_a_bucket_per_path(limiter):
    app = RateLimitMiddleware(hello, limiter)
    assert await admitted(app, "/a", 5, client=None) == 2
    assert list(limiter._buckets) == ["unknown:/a"]


async def test_f29_denials_do_not_flood_or_forge_the_log(limiter, caplog):
    caplog.set_level(logging.WARNING)
    app = RateLimitMiddleware(hello, limiter)
    for _ in range(100):
        await ask(app, "/a\r\nforged \x1b[31m" + "x" * 5000)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 10
    assert all(line.isprintable() and line.isascii() and len(line) < 300 for line in lines)


async def test_hostile_headers_and_paths_are_only_text(limiter):
    app = RateLimitMiddleware(hello, limiter, headers="both", problem_json=True)
    headers = [(b"x-forwarded-for", b"\xff\x00" * 32768), (b"host", b"\xff" * 65536)]
    for number, path in enumerate(("/\udcff\x00", "/\xff?#\\", "", "*", "//")):
        client = {"headers": headers, "client": (f"10.0.0.{number}", 1)}
        assert [(await ask(app, path, **client)).status for _ in range(3)] == [200, 200, 429]


# -- decisions, both sides


async def test_decision_retry_after_type_default(limiter):
    app = RateLimitMiddleware(hello, limiter)
    await admitted(app, "/", 2)
    refused = await ask(app)
    assert type(refused.json()["detail"]["retry_after"]) is float
    assert refused.headers["retry-after"] == "1"


async def test_decision_retry_after_type_v1_2(limiter, clock):
    app = RateLimitMiddleware(hello, limiter, integer_retry_after=True)
    await admitted(app, "/", 2)
    assert (await ask(app)).json()["detail"]["retry_after"] == 1
    formula = TokenBucketRateLimiter(RateLimitConfig(60, 2), clock=clock, compat="v1.2")
    app = RateLimitMiddleware(hello, formula)
    await admitted(app, "/", 2)
    refused = await ask(app)
    assert (refused.json()["detail"]["retry_after"], refused.headers["retry-after"]) == (2, "2")


async def test_decision_middleware_denial_default(limiter):
    app = RateLimitMiddleware(hello, limiter)
    assert [(await ask(app)).status for _ in range(3)] == [200, 200, 429]


@pytest.mark.parametrize("options", [{"raise_on_limit": True}, {"compat": "v1.2"}])
async def test_decision_middleware_denial_v1_2(clock, options):
    limiter = TokenBucketRateLimiter(RateLimitConfig(60, 1), clock=clock, integer_retry_after=True)
    app = RateLimitMiddleware(hello, limiter, **options)
    await ask(app)
    with pytest.raises(HTTPException) as caught:
        await ask(app)
    assert caught.value.status_code == 429
    assert caught.value.detail == {"error": "Rate limit exceeded", "retry_after": 2, "limit": 60, "window": 60}
    assert caught.value.headers == {
        "Retry-After": "2",
        "X-RateLimit-Limit": "60",
        "X-RateLimit-Remaining": "0",
        "X-RateLimit-Reset": "1060",
    }


async def test_decision_endpoint_limits_default(endpoint):
    assert await admitted(RateLimitMiddleware(hello, endpoint._rate_limiter), "/auth") == 5


@pytest.mark.parametrize("give", ["inner", "endpoint"])
async def test_decision_endpoint_limits_v1_2(endpoint, give):
    limiter = endpoint._rate_limiter if give == "inner" else endpoint
    assert await admitted(RateLimitMiddleware(hello, limiter, apply_endpoint_limits=False), "/auth") == 20


async def test_decision_endpoint_limits_compat(endpoint):
    app = RateLimitMiddleware(hello, endpoint._rate_limiter, compat="v1.2")
    assert await admitted(app, "/auth", 20) == 20


async def test_decision_key_format_default(limiter):
    app = routed("starlette")
    app.add_middleware(RateLimitMiddleware, rate_limiter=limiter)
    await ask(app, "/items/1")
    assert list(limiter._buckets) == ["10.0.0.1:/items/1"]


async def test_decision_key_format_by_route(limiter):
    app = routed("starlette")
    app.add_middleware(RateLimitMiddleware, rate_limiter=limiter, key_by="route")
    await ask(app, "/items/1")
    assert list(limiter._buckets) == ["10.0.0.1:/items/{id}"]


def test_decision_exclude_paths_default(limiter):
    assert RateLimitMiddleware(hello, limiter, exclude_paths=[]).exclude_paths == set()


@pytest.mark.parametrize("options", [{"exclude_paths": None}, {"exclude_paths": [], "compat": "v1.2"}])
def test_decision_exclude_paths_v1_2(limiter, options):
    assert RateLimitMiddleware(hello, limiter, **options).exclude_paths == {"/health", "/docs", "/openapi.json"}


async def test_standard_header_fields_by_choice(endpoint):
    app = RateLimitMiddleware(hello, endpoint, headers="ratelimit")
    answer = await ask(app, "/auth")
    assert answer.headers["ratelimit-policy"] == '"/auth";q=10;w=60'
    assert answer.headers["ratelimit"] == '"/auth";r=4;t=6'
    assert "x-ratelimit-limit" not in answer.headers
    assert (await ask(app, "/other")).headers["ratelimit-policy"] == '"default";q=100;w=60'
    await admitted(app, "/auth")
    refused = await ask(app, "/auth")
    assert (refused.headers["ratelimit"], refused.headers["retry-after"]) == ('"/auth";r=0;t=6', "6")


async def test_problem_json_by_choice(endpoint):
    app = RateLimitMiddleware(hello, endpoint, headers="both", problem_json=True)
    await admitted(app, "/auth", 5)
    refused = await ask(app, "/auth")
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.headers["x-ratelimit-limit"] == "10"
    problem = refused.json()
    assert problem["violated-policies"] == ["/auth"]
    assert (problem["type"].rpartition("#")[2], problem["retry_after"]) == ("quota-exceeded", 6.0)


async def test_f17_the_policy_names_the_reporting_window_only_where_it_is_enforced(clock):
    class Enforcing(TokenBucketRateLimiter):
        _enforce_window = True

    for kind, window in ((TokenBucketRateLimiter, 60), (Enforcing, 30)):
        app = RateLimitMiddleware(hello, kind(RateLimitConfig(60, 10, 30), clock=clock), headers="ratelimit")
        assert (await ask(app)).headers["ratelimit-policy"] == f'"default";q=60;w={window}'
