"""Requests to an ASGI application without a server."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request


def scope(path: str = "/items", client: str | None = "192.0.2.1", **headers: str) -> dict[str, Any]:
    """Make an HTTP scope; header names are given with underscores."""
    raw = [(name.replace("_", "-").lower().encode(), value.encode()) for name, value in headers.items()]
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "server": ("testserver", 80),
        "client": (client, 50000) if client else None,
        "root_path": "",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"host", b"testserver"), *raw],
        "state": {},
    }


def request(path: str = "/items", client: str | None = "192.0.2.1", **headers: str) -> Request:
    """Make a Starlette request."""
    return Request(scope(path, client, **headers))


async def hello(scope: Any, receive: Any, send: Any) -> None:
    """An application that answers "hello"."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"hello"})


async def call(app: Any, scope: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
    """Send one request; return status, headers (lower-case names) and body."""
    messages: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        messages.append(message)

    await app(scope, receive, send)
    headers = {name.decode().lower(): value.decode() for name, value in messages[0]["headers"]}
    return messages[0]["status"], headers, b"".join(message.get("body", b"") for message in messages[1:])
