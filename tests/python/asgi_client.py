"""A client of one function for ASGI applications, and a clock to set: what the rate limiter's web tests need."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any


class ManualClock:
    """Seconds that pass only when told."""

    def __init__(self, now: float = 1_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@dataclass
class Answer:
    """status, header (names in lower case) and body of a response, and the messages it came in."""

    status: int
    headers: dict[str, str]
    body: bytes
    messages: list[dict[str, Any]]

    def json(self) -> Any:
        return json.loads(self.body)


def http_scope(path: str = "/", **more: Any) -> dict[str, Any]:
    """Return the scope of a GET request from 10.0.0.1; `more` replaces and adds entries."""
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode("utf-8", "surrogatepass"),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"testserver")],
        "client": ("10.0.0.1", 50000),
        "server": ("testserver", 80),
    } | more


async def ask(app: Any, path: str = "/", **more: Any) -> Answer:
    """Send one request without a body and return the whole answer."""
    messages: list[dict[str, Any]] = []
    requested = False

    async def receive() -> dict[str, Any]:
        nonlocal requested
        if requested:  # the client stays: it neither sends more nor goes away
            await asyncio.Event().wait()
        requested = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        messages.append(message)

    await app(http_scope(path, **more), receive, send)
    start = messages[0]
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in start["headers"]}
    assert len(headers) == len(start["headers"]), "a header field was sent twice"
    return Answer(start["status"], headers, b"".join(m.get("body", b"") for m in messages[1:]), messages)


async def hello(scope: Any, receive: Any, send: Any) -> None:
    """An application that answers 200 to everything."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"hello"})
