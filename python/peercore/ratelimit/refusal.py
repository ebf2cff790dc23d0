"""The exception that refuses a request inside an application (contract sections 5 and 6)."""

from __future__ import annotations

from typing import Any

from peercore.ratelimit.headers import Info, denial_detail, denial_header_texts, retry_after_seconds


def http_exception() -> type[Any]:
    """Return FastAPI's HTTPException, as v1.2 raised, or Starlette's where there is no FastAPI.

    Raises ImportError without either.
    """
    try:
        from fastapi import HTTPException
    except ImportError:
        from starlette.exceptions import HTTPException  # type: ignore[assignment]
    return HTTPException


def refusal(info: Info, *, every_header: bool) -> Exception:
    """Return HTTPException(429) for a denied check: detail {error, retry_after}; Retry-After and, with `every_header`,
    X-RateLimit-* as well."""
    if every_header:
        headers = denial_header_texts(info)
    else:
        headers = {"Retry-After": str(retry_after_seconds(info["retry_after"]))}
    exception: Exception = http_exception()(429, detail=denial_detail(info, with_limit=False), headers=headers)
    return exception
