"""The web application of the demonstration, and the process that serves it."""

from __future__ import annotations

import argparse
import socket
import sys
import threading
from types import ModuleType
from typing import Any

from peercore.bench import baseline
from peercore.services import rate_limiter as native

DEFAULT_LIMIT = (600, 20)
LIMITS = {"/message": (240, 10), "/auth/token": (30, 3)}
"""path -> (requests per minute, burst); everything else has `DEFAULT_LIMIT`."""

NATIVE, BASELINE, BARE = "native", "baseline", "bare"
GENEROUS = (60_000_000, 1_000_000)
"""A limit that nobody reaches: for measuring what limiting costs."""


def limit_of(template: str) -> tuple[int, int]:
    """Return (requests per minute, burst) of a route's template."""
    return LIMITS.get(template, DEFAULT_LIMIT)


def bare_app() -> Any:
    """Return the FastAPI application without any limits."""
    from fastapi import FastAPI

    app = FastAPI(title="peercore demo")

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/message")
    async def message() -> dict[str, str]:
        return {"text": "hello"}

    @app.get("/auth/token")
    async def token() -> dict[str, str]:
        return {"token": "none, this is a demonstration"}

    @app.get("/items/{number}")
    async def item(number: int) -> dict[str, int]:
        return {"number": number}

    return app


def protected_app() -> Any:
    """Return the application as one would run it: native middleware, limits by path, unknown paths together."""
    endpoint = native.EndpointRateLimiter(*DEFAULT_LIMIT)
    for path, (requests_per_minute, burst) in LIMITS.items():
        endpoint.set_limit(path, requests_per_minute, burst)
    app = bare_app()
    app.add_middleware(native.RateLimitMiddleware, rate_limiter=endpoint, key_by="route", headers="both")
    return app


def measured_app(side: str, limit: tuple[int, int]) -> Any:
    """Return the application with the middleware of one `side` around it, set up in v1.2's way, alike on both sides."""
    app = bare_app()
    if side != BARE:
        module: ModuleType = native if side == NATIVE else baseline.find().load("rate_limiter")
        limiter = module.TokenBucketRateLimiter(module.RateLimitConfig(*limit))
        app.add_middleware(module.RateLimitMiddleware, rate_limiter=limiter)
    return app


def serve(app: Any, listener: socket.socket) -> None:
    """Serve `app` until standard input ends, which it also does when the parent process is gone."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off"))

    def stop_with_parent() -> None:
        sys.stdin.buffer.read()
        server.should_exit = True

    threading.Thread(target=stop_with_parent, daemon=True).start()
    server.run(sockets=[listener])


def main() -> None:
    """``python -m peercore.demo.app FD [--measure SIDE RPM BURST]``: serve on the listening socket FD."""
    parser = argparse.ArgumentParser()
    parser.add_argument("fd", type=int)
    parser.add_argument("--measure", nargs=3, metavar=("SIDE", "RPM", "BURST"))
    arguments = parser.parse_args()
    listener = socket.socket(fileno=arguments.fd)
    if arguments.measure:
        side, requests_per_minute, burst = arguments.measure
        app = measured_app(side, (int(requests_per_minute), int(burst)))
    else:
        app = protected_app()
    serve(app, listener)


if __name__ == "__main__":
    main()
