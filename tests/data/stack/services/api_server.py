"""A small ASGI application in front of the stack; imports by the qualified name."""

import json
import os

from services import rate_limiter
from services.rate_limiter import RateLimitConfig, TokenBucketRateLimiter

limiter = TokenBucketRateLimiter(RateLimitConfig(requests_per_minute=1, burst_size=3))


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await _live(receive, send)
        return
    allowed, _ = await limiter.check_rate_limit(scope["path"])
    body = json.dumps({"limiter": rate_limiter.__file__, "worker": os.getpid()}).encode()
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 200 if allowed else 429, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _live(receive, send):
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return
