"""RateLimitMiddleware around ASGI applications (contract rate_limiter, section 5, faults, section 9)."""

from __future__ import annotations

import subprocess
import sys
from unittest.mock import AsyncMock, create_autospec, patch

import pytest
from asgi_client import ManualClock, ask, hello, http_scope
from fastapi import FastAPI, WebSocket
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse

from peercore.ratelimit.config import RateLimitConfig
from peercore.ratelimit.limiter import TokenBucketRateLimiter
from peercore.ratelimit.middleware import RateLimitMiddleware


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def limiter(clock):
    return TokenBucketRateLimiter(RateLimitConfig(60, 2), clock=clock)


async def admitted(app, path="/", tries=60, **more) -> int:
    return [(await ask(app, path, **more)).status for _ in range(tries)].count(200)


# -- what passes, what is refused


async def test_admitted_answers_tell_the_limit(limiter):
    answer = await ask(RateLimitMiddleware(hello, limiter), "/a")
    assert (answer.status, answer.body) == (200, b"hello")
    assert answer.headers == {
        "content-type": "text/plain",
        "x-ratelimit-limit": "60",
        "x-ratelimit-remaining": "1",
        "x-ratelimit-reset": "1060",
    }


async def test_f01_a_refusal_is_a_429_answer(limiter, caplog):
    app = RateLimitMiddleware(hello, limiter)
    assert await admitted(app, "/a", 2) == 2
    answer = await ask(app, "/a")
    assert answer.status == 429
    assert answer.json() == {"detail": {"error": "Rate limit exceeded", "retry_after": 1.0, "limit": 60, "window": 60}}
    assert answer.headers == {
        "content-type": "application/json",
        "content-length": str(len(answer.body)),
        "retry-after": "1",
        "x-ratelimit-limit": "60",
        "x-ratelimit-remaining": "0",
        "x-ratelimit-reset": "1060",
    }
    assert [record.getMessage() for record in caplog.records] == ["Rate limit exceeded for 10.0.0.1:/a"]


@pytest.mark.parametrize("framework", [FastAPI, Starlette])
async def test_f01_inside_an_application(framework, limiter):
    app = framework()
    app.add_middleware(RateLimitMiddleware, rate_limiter=limiter)
    app.router.add_route("/a", lambda request: PlainTextResponse("a"))
    statuses = [(await ask(app, "/a")).status for _ in range(3)]
    assert statuses == [200, 200, 429]
    assert (await ask(app, "/a")).headers["retry-after"] == "1"


async def test_waiting_for_retry_after_is_enough(limiter, clock):
    app = RateLimitMiddleware(hello, limiter)
    await admitted(app, "/a", 2)
    clock.now += 0.25
    refused = await ask(app, "/a")
    assert refused.json()["detail"]["retry_after"] == 0.8
    clock.now += int(refused.headers["retry-after"])
    assert (await ask(app, "/a")).status == 200


async def test_clients_and_paths_have_buckets_of_their_own(limiter):
    app = RateLimitMiddleware(hello, limiter)
    assert await admitted(app, "/a", 5) == 2
    assert await admitted(app, "/b", 5) == 2
    assert await admitted(app, "/a", 5, client=("10.0.0.2", 1)) == 2
    assert set(limiter._buckets) == {"10.0.0.1:/a", "10.0.0.1:/b", "10.0.0.2:/a"}


async def test_headers_can_be_left_out_but_not_of_refusals(limiter):
    app = RateLimitMiddleware(hello, limiter, include_headers=False)
    assert (await ask(app)).headers == {"content-type": "text/plain"}
    await ask(app)
    assert (await ask(app)).headers["x-ratelimit-remaining"] == "0"


async def test_default_exclusions(limiter):
    app = RateLimitMiddleware(hello, limiter)
    for path in ("/health", "/docs", "/openapi.json"):
        assert await admitted(app, path, 5) == 5
    assert await admitted(app, "/health/", 5) == 2
    assert "x-ratelimit-limit" not in (await ask(app, "/health")).headers


async def test_exclusions_of_ones_own_replace_the_defaults(limiter):
    app = RateLimitMiddleware(hello, limiter, exclude_paths=["/live"])
    assert app.exclude_paths == {"/live"}
    assert (await admitted(app, "/live", 5), await admitted(app, "/health", 5)) == (5, 2)


async def test_f21_empty_exclude_paths_exclude_nothing(limiter):
    app = RateLimitMiddleware(hello, limiter, exclude_paths=[])
    assert app.exclude_paths == set()
    assert await admitted(app, "/health", 5) == 2


def test_attributes(limiter):
    app = RateLimitMiddleware(hello, limiter)
    assert app.rate_limiter is limiter
    assert app.key_func is RateLimitMiddleware._default_key_func
    assert app.exclude_paths == {"/health", "/docs", "/openapi.json"}
    assert app.include_headers is True
    assert repr(app).startswith(
        "<RateLimitMiddleware key_by=path excludes=['/docs', '/health', '/openapi.json'] <Token"
    )


async def test_limiter_can_be_exchanged(limiter, clock):
    app = RateLimitMiddleware(hello, limiter)
    assert await admitted(app) == 2
    app.rate_limiter = TokenBucketRateLimiter(RateLimitConfig(60, 7), clock=clock)
    assert await admitted(app) == 7


# -- scopes, messages, errors


async def test_lifespan_and_websocket_pass_untouched(limiter):
    seen = []

    async def app(*arguments):
        seen.append(arguments)

    middleware = RateLimitMiddleware(app, limiter)
    for kind in ("lifespan", "websocket"):
        arguments = ({"type": kind, "path": "/ws"}, object(), object())
        await middleware(*arguments)
        assert all(ours is theirs for ours, theirs in zip(seen.pop(), arguments, strict=True))
    assert len(limiter._buckets) == 0


async def test_websocket_through_fastapi(limiter):
    app = FastAPI()
    app.add_middleware(RateLimitMiddleware, rate_limiter=limiter)

    @app.websocket("/ws")
    async def talk(socket: WebSocket):
        await socket.accept()
        await socket.close()

    for _ in range(5):
        sent = []

        async def receive():
            return {"type": "websocket.connect"}

        async def send(message, sent=sent):
            sent.append(message["type"])

        await app(http_scope("/ws", type="websocket", scheme="ws", subprotocols=[]), receive, send)
        assert sent == ["websocket.accept", "websocket.close"]


async def test_a_response_sent_again_does_not_gather_fields(limiter):
    response = PlainTextResponse("a")
    before = list(response.raw_headers)
    app = RateLimitMiddleware(response, limiter)
    for _ in range(2):
        await ask(app)
    assert response.raw_headers == before


async def test_a_response_without_header_fields(limiter):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})

    assert (await ask(RateLimitMiddleware(app, limiter))).headers["x-ratelimit-remaining"] == "1"


async def test_streams_pass_message_by_message(limiter):
    async def parts():
        for part in ("a", "b", "c"):
            yield part

    answer = await ask(RateLimitMiddleware(StreamingResponse(parts()), limiter))
    assert answer.body == b"abc"
    assert [message.get("body") for message in answer.messages[1:4]] == [b"a", b"b", b"c"]


async def test_errors_of_the_application_propagate(limiter):
    async def app(scope, receive, send):
        raise LookupError("from the application")

    with pytest.raises(LookupError, match="from the application"):
        await ask(RateLimitMiddleware(app, limiter))


async def test_errors_of_the_limiter_propagate(limiter):
    app = RateLimitMiddleware(hello, limiter)
    with (
        patch.object(limiter, "check_rate_limit", side_effect=ConnectionError("gone")),
        pytest.raises(ConnectionError, match="gone"),
    ):
        await ask(app)
    assert (await ask(app)).status == 200


# -- keys


async def test_key_func_gets_a_request(limiter):
    app = RateLimitMiddleware(hello, limiter, key_func=lambda request: request.headers["x-api-key"])
    assert await admitted(app, "/a", 5, headers=[(b"x-api-key", b"one")]) == 2
    assert await admitted(app, "/b", 5, headers=[(b"x-api-key", b"one")]) == 0
    assert await admitted(app, "/b", 5, headers=[(b"x-api-key", b"two")]) == 2
    assert list(limiter._buckets) == ["one", "two"]


async def test_key_func_may_be_async(limiter):
    async def key(request):
        return f"async:{request.url.path}"

    await ask(RateLimitMiddleware(hello, limiter, key_func=key), "/a")
    assert list(limiter._buckets) == ["async:/a"]


async def test_key_func_cannot_take_the_body_from_the_application(limiter):
    async def key(request):
        return await request.body()

    with pytest.raises(RuntimeError, match="Receive channel"):
        await ask(RateLimitMiddleware(hello, limiter, key_func=key))


async def test_key_func_that_raises(limiter):
    with pytest.raises(KeyError):
        await ask(RateLimitMiddleware(hello, limiter, key_func=lambda request: request.headers["absent"]))
    assert len(limiter._buckets) == 0


async def test_key_func_assigned_later(limiter):
    app = RateLimitMiddleware(hello, limiter)
    app.key_func = lambda request: "later"
    await ask(app)
    assert list(limiter._buckets) == ["later"]


async def test_any_hashable_key(limiter):
    await ask(RateLimitMiddleware(hello, limiter, key_func=lambda request: ("tenant", 7)))
    assert ("tenant", 7) in limiter._buckets


async def test_default_key_func_of_a_subclass(limiter):
    class ByTenant(RateLimitMiddleware):
        @staticmethod
        def _default_key_func(request):
            return f"tenant:{request.url.path}"

    await ask(ByTenant(hello, limiter), "/a")
    assert list(limiter._buckets) == ["tenant:/a"]


async def test_default_key_is_what_the_default_key_func_says(limiter):
    from starlette.requests import Request

    for root_path in ("", "/root"):
        scope = {"root_path": root_path, "client": None}
        await ask(RateLimitMiddleware(hello, limiter), "/a b", **scope)
        assert RateLimitMiddleware._default_key_func(Request(http_scope("/a b", **scope))) in limiter._buckets


# -- limiters that are not quite ours


async def test_overridden_check_is_honoured(clock):
    class Generous(TokenBucketRateLimiter):
        async def check_rate_limit(self, key, config=None, *, cost=1):
            _, info = await super().check_rate_limit(key, config, cost=cost)
            return True, info | {"remaining": 99}

    app = RateLimitMiddleware(hello, Generous(RateLimitConfig(60, 1), clock=clock))
    assert await admitted(app, "/", 5) == 5
    assert (await ask(app)).headers["x-ratelimit-remaining"] == "99"


@pytest.mark.parametrize("where", ["instance", "class"])
async def test_patched_check_is_honoured(limiter, where):
    app = RateLimitMiddleware(hello, limiter)
    info = {"limit": 1, "remaining": 0, "reset_at": 5.0, "window": 60, "retry_after": 3}
    target = limiter if where == "instance" else TokenBucketRateLimiter
    with patch.object(target, "check_rate_limit", return_value=(False, info)):
        assert (await ask(app)).headers["retry-after"] == "3"
    assert (await ask(app)).status == 200


@pytest.mark.parametrize("make", [AsyncMock, lambda: create_autospec(TokenBucketRateLimiter, instance=True)])
async def test_mocked_limiter(make):
    mock = make()
    mock.check_rate_limit.return_value = (True, {"limit": 1, "remaining": 0, "reset_at": 5.0, "window": 60})
    answer = await ask(RateLimitMiddleware(hello, mock), "/a")
    assert answer.headers["x-ratelimit-reset"] == "5"
    mock.check_rate_limit.assert_awaited_once_with("10.0.0.1:/a")


# -- arguments


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"key_by": "host"}, ValueError, "key_by .*'host'"),
        ({"key_by": None}, TypeError, "key_by"),
        ({"headers": "X"}, ValueError, "headers .*'X'"),
        ({"compat": "v1.1"}, ValueError, "compat .*'v1.1'"),
        ({"exclude_paths": "/health"}, TypeError, "exclude_paths .*'/health'"),
        ({"exclude_paths": [b"/health"]}, TypeError, "exclude_paths .*b'/health'"),
        ({"exclude_paths": 7}, TypeError, "exclude_paths .*7"),
        ({"key_func": "host"}, TypeError, "key_func .*'host'"),
        ({"rate_limiter": None}, TypeError, "rate_limiter .*None"),
        ({"rate_limiter": object()}, TypeError, "rate_limiter"),
    ],
)
def test_bad_arguments_are_named(limiter, options, error, says):
    with pytest.raises(error, match=says):
        RateLimitMiddleware(hello, **({"rate_limiter": limiter} | options))


_WITHOUT_STARLETTE = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("starlette", "fastapi"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
import asyncio, logging
from asgi_client import ask, hello
from peercore.services.rate_limiter import RateLimitConfig, RateLimitMiddleware, TokenBucketRateLimiter, rate_limit
from peercore.services.rate_limiter import RateLimitExceeded

logging.disable()
limiter = TokenBucketRateLimiter(RateLimitConfig(60, 1))
statuses = [asyncio.run(ask(RateLimitMiddleware(hello, limiter, headers="both"), "/a?b")).status for _ in range(2)]
assert statuses == [200, 429], statuses
for options in ({"key_func": str}, {"raise_on_limit": True}):
    try:
        RateLimitMiddleware(hello, limiter, **options)
    except ImportError as error:
        assert "starlette" in str(error), error
    else:
        raise AssertionError(options)

@rate_limit(60, 1)
async def work():
    return "done"

assert asyncio.run(work()) == "done"
try:
    asyncio.run(work())
except RateLimitExceeded as error:
    print(error)
"""


def test_works_without_starlette():
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", _WITHOUT_STARLETTE],
        cwd=__file__.rpartition("/")[0],
        capture_output=True,
        text=True,
    )
    assert (run.stdout, run.stderr) == ("Rate limit exceeded, retry after 1.0 s\n", "")
