"""Cost of the middleware per HTTP request: ASGI calls in process, no socket; with the middleware minus without."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from time import thread_time_ns
from typing import Any

from peercore.bench.rate_limiter_checks import Bench
from peercore.bench.report import Goal, Row
from peercore.bench.rounds import ResultsDiffer, Side, Spread, interleave, middle, own_code

NAME = "middleware, cost per request"
CLIENTS = 1000
_RATE_HEADERS = (b"x-ratelimit-limit", b"x-ratelimit-remaining")

Message = MutableMapping[str, Any]
App = Callable[[Any, Any, Any], Awaitable[None]]


async def bare_app(scope: Any, receive: Any, send: Any) -> None:
    """The application behind the middleware: answers at once."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def no_body() -> Message:
    """ASGI receive() of a request without a body."""
    return {"type": "http.request", "body": b"", "more_body": False}


async def discard(message: Message) -> None:
    """ASGI send() of a server that costs nothing."""


def scope_of(number: int) -> dict[str, Any]:
    """Make the ASGI scope of a request by client `number`, as uvicorn would."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "server": ("127.0.0.1", 8000),
        "client": (f"10.0.{number >> 8}.{number & 255}", 40000 + number),
        "scheme": "http",
        "method": "GET",
        "root_path": "",
        "path": "/api/v1/messages",
        "raw_path": b"/api/v1/messages",
        "query_string": b"",
        "headers": [
            (b"host", b"127.0.0.1:8000"),
            (b"user-agent", b"agent/1.2"),
            (b"accept", b"application/json"),
            (b"accept-encoding", b"gzip, deflate"),
            (b"connection", b"keep-alive"),
        ],
        "state": {},
    }


async def drive_requests(app: App, scopes: Sequence[dict[str, Any]]) -> int:
    """Return nanoseconds for one request per scope; each gets a scope of its own, as from a server."""
    start = thread_time_ns()
    for scope in scopes:
        await app(scope.copy(), no_body, discard)
    return thread_time_ns() - start


async def response_of(app: App, scope: dict[str, Any]) -> tuple[int, dict[bytes, bytes], bytes]:
    """Return status, headers and body of one request."""
    messages: list[Message] = []

    async def collect(message: Message) -> None:
        messages.append(message)

    await app(scope.copy(), no_body, collect)
    start = messages[0]
    body = b"".join(message.get("body", b"") for message in messages[1:])
    return start["status"], {name.lower(): value for name, value in start["headers"]}, body


async def same_responses(ours: App, theirs: App, scopes: Sequence[dict[str, Any]]) -> None:
    """Raises ResultsDiffer unless both apps answer every request alike, rate limit headers included."""
    for scope in scopes:
        mine, yours = await response_of(ours, scope), await response_of(theirs, scope)
        same = mine[0] == yours[0] and mine[2] == yours[2]
        same = same and all(mine[1][name] == yours[1][name] for name in _RATE_HEADERS)
        same = same and abs(int(mine[1][b"x-ratelimit-reset"]) - int(yours[1][b"x-ratelimit-reset"])) <= 1
        if not same:
            raise ResultsDiffer(f"middleware: {mine} here, {yours} there")


def middleware_row(bench: Bench) -> Row:
    """The native middleware against the other side's, per request, the bare application subtracted from both."""
    scopes = [scope_of(number % CLIENTS) for number in range(bench.scale.requests)]
    ours, theirs = (
        module.RateLimitMiddleware(bare_app, rate_limiter=bench.limiter(module))
        for module in (bench.native, bench.opponent)
    )
    bench.loop.run_until_complete(same_responses(ours, theirs, scopes))
    sides = [_side(bench, name, app, scopes) for name, app in (("bare", bare_app), ("ours", ours), ("theirs", theirs))]
    samples = interleave(sides, bench.scale.rounds)
    mine, yours = _above(samples["ours"], samples["bare"]), _above(samples["theirs"], samples["bare"])
    # Ratio of two differences: the smaller one can come out near zero in a disturbed round, the median does not mind.
    spread = Spread.of([b / a for a, b in zip(mine, yours, strict=True)])
    note = f"the bare application takes {middle(samples['bare']):.0f} ns on both sides, not counted"
    return Row(NAME, "ns", Goal("ratio", 8), bench.opponent_name, middle(mine), middle(yours), spread, note)


def _side(bench: Bench, name: str, app: App, scopes: Sequence[dict[str, Any]]) -> Side:
    own = own_code(drive_requests)
    return Side(name, lambda: bench.loop.run_until_complete(own(app, scopes)) / len(scopes))


def _above(samples: Sequence[float], bare: Sequence[float]) -> list[float]:
    return [with_it - without for with_it, without in zip(samples, bare, strict=True)]
