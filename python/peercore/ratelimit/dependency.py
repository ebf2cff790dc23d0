"""check_rate_limit: the limiter as a FastAPI dependency (contract section 6). Importing this module needs FastAPI."""

from __future__ import annotations

from fastapi import Depends, Request

from peercore.ratelimit.clients import bounded_key, client_host, url_path
from peercore.ratelimit.endpoint import EndpointRateLimiter
from peercore.ratelimit.limiter import TokenBucketRateLimiter
from peercore.ratelimit.refusal import refusal
from peercore.ratelimit.target import Target
from peercore.services.rate_limiter import get_rate_limiter

Limiter = TokenBucketRateLimiter | EndpointRateLimiter


async def check_rate_limit(
    request: Request,
    limiter: Limiter = Depends(get_rate_limiter),  # noqa: B008  # FastAPI's form
) -> None:
    """Let the request through or raise HTTPException(429) with the one header Retry-After.

    The bucket's key is "<client host or 'unknown'>:<url path>", its configuration the limiter's own for that key. An
    EndpointRateLimiter, or the inner limiter of one, judges by its limits by path (fault F9):
    ``Depends(get_endpoint_rate_limiter)`` in a dependency of one's own that awaits this one.
    Raises TypeError for a limiter that cannot check.
    """
    path = url_path(request.scope)
    key = bounded_key(f"{client_host(request.scope)}:{path}")
    allowed, info = await Target(limiter).check(key, path)
    if not allowed:
        raise refusal(info, every_header=False)
