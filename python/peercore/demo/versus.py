"""The same application behind the native middleware, behind plain Python's, and behind none, side by side."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from statistics import median
from typing import Any, NamedTuple

from peercore.bench.rate_limiter_asgi import Message, discard, scope_of
from peercore.bench.rounds import Side, interleave
from peercore.demo.app import BARE, BASELINE, GENEROUS, NATIVE, measured_app
from peercore.demo.http import Answer, Connection
from peercore.demo.server import Server, running

PATH = "/message"
SIDES = (BARE, NATIVE, BASELINE)
_CONNECTIONS = 8
_ROUNDS = 5
_ROUND_S = 0.8
_CALLS = 300


class Versus(NamedTuple):
    """What was measured, by side.

    cpu_us: processor microseconds per request in process, the bare application's included. per_second: requests per
    second over HTTP. ratio: how much more the plain Python middleware adds to the bare application's cost than the
    native one. refusals: what a client over its limit gets on the wire.
    """

    cpu_us: dict[str, float]
    per_second: dict[str, float]
    ratio: float
    refusals: dict[str, Answer]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        refusals = {
            side: {"status": answer.status, "retry_after": answer.headers.get("retry-after")}
            for side, answer in self.refusals.items()
        }
        return {**self._asdict(), "refusals": refusals}


def measure(announce: Callable[[str], object]) -> Versus:
    """Measure all sides, interleaved; `announce` is told what is being done. Raises what the servers raise."""
    announce("what a client over its limit is answered")
    refusals = {side: asyncio.run(_refusal(side)) for side in (NATIVE, BASELINE)}
    announce("processor time per request, in process")
    samples = _cpu_time()
    cpu_us = {side: median(values) / 1000.0 for side, values in samples.items()}
    # Per round, so that a disturbed moment disturbs one ratio and not the figure quoted.
    ratios = [
        (theirs - bare) / max(ours - bare, 1.0)
        for bare, ours, theirs in zip(*(samples[side] for side in SIDES), strict=True)
    ]
    announce("requests per second, over HTTP")
    return Versus(cpu_us, asyncio.run(_throughput()), median(ratios), refusals)


async def _refusal(side: str) -> Answer:
    with running("--measure", side, "60", "1") as server:
        connection = Connection("127.0.0.1", server.port)
        try:
            await connection.get(PATH)
            return await connection.get(PATH)
        finally:
            await connection.close()


def _cpu_time() -> dict[str, list[float]]:
    """Return nanoseconds per request and round, by side."""
    loop = asyncio.new_event_loop()
    scopes = [{**scope_of(number), "path": PATH, "raw_path": PATH.encode()} for number in range(_CALLS)]

    def side(name: str) -> Side:
        app = measured_app(name, GENEROUS)
        return Side(name, lambda: loop.run_until_complete(_calls(app, scopes)) / len(scopes))

    try:
        return interleave([side(name) for name in SIDES], 2 * _ROUNDS + 1)
    finally:
        loop.close()


async def _calls(app: Any, scopes: list[dict[str, Any]]) -> int:
    start = time.thread_time_ns()
    for scope in scopes:
        await app(scope.copy(), _empty_body(), discard)
    return time.thread_time_ns() - start


def _empty_body() -> Callable[[], Awaitable[Message]]:
    """Return the receive() of one request: no body, and a client that stays on."""
    received = False

    async def receive() -> Message:
        nonlocal received
        if received:
            await asyncio.get_running_loop().create_future()
        received = True
        return {"type": "http.request", "body": b"", "more_body": False}

    return receive


async def _throughput() -> dict[str, float]:
    samples: dict[str, list[float]] = {side: [] for side in SIDES}
    with contextlib.ExitStack() as stack:
        servers = {side: stack.enter_context(running("--measure", side, *map(str, GENEROUS))) for side in SIDES}
        for side in SIDES:
            await _requests_per_second(servers[side])
        for number in range(_ROUNDS):
            for side in SIDES if number % 2 == 0 else reversed(SIDES):
                samples[side].append(await _requests_per_second(servers[side]))
    return {side: median(values) for side, values in samples.items()}


async def _requests_per_second(server: Server) -> float:
    start = time.monotonic()
    counts = await asyncio.gather(*(_hammer(server.port, start + _ROUND_S) for _ in range(_CONNECTIONS)))
    server.check()
    return sum(counts) / (time.monotonic() - start)


async def _hammer(port: int, until: float) -> int:
    connection = Connection("127.0.0.1", port)
    count = 0
    try:
        while time.monotonic() < until:
            answer = await connection.get(PATH)
            if answer.status != 200:
                raise ConnectionError(f"status {answer.status} where 200 was due")
            count += 1
    finally:
        await connection.close()
    return count
