"""What a client is told: rate limit header fields and the bodies of 429 answers (contract sections 5 and 6).

Two families of fields, by choice: v1.2's ``X-RateLimit-*`` and the standard ``RateLimit-Policy`` / ``RateLimit`` of
draft-ietf-httpapi-ratelimit-headers-10. Header names and values are bytes, as ASGI wants them, names in lower case.

In the standard family ``q`` and ``w`` are the sustained rate and its window; ``r`` the whole tokens in the bucket, so
at most the burst; ``t`` the seconds until it is full again, or when refused the same number as Retry-After.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any, NamedTuple

Fields = list[tuple[bytes, bytes]]
Info = dict[str, Any]

X_RATELIMIT = "x-ratelimit"
RATELIMIT = "ratelimit"
BOTH = "both"
FAMILIES = (X_RATELIMIT, RATELIMIT, BOTH)

PROBLEM_TYPE = "https://iana.org/assignments/http-problem-types#quota-exceeded"
ERROR = "Rate limit exceeded"

_LONGEST_WAIT_S = 2**31 - 1
"""Cap for waits without end (a rate of 0): the largest delay HTTP caches must understand."""

_NUMBERS = tuple(b"%d" % number for number in range(1024))
_X_NAMES = frozenset({b"x-ratelimit-limit", b"x-ratelimit-remaining", b"x-ratelimit-reset"})
_STANDARD_NAMES = frozenset({b"ratelimit-policy", b"ratelimit"})
_NAMES = _X_NAMES | _STANDARD_NAMES


class Policy(NamedTuple):
    """The rule a request was judged by, as the standard header fields name it.

    name: "default" or the path with a limit of its own. window_s: seconds in which `limit` requests are allowed.
    burst, refill_rate: capacity of the bucket and its tokens per second; None when the limiter does not tell.
    """

    name: str
    window_s: int
    burst: int | None = None
    refill_rate: float | None = None


def _number(value: float) -> bytes:
    return _NUMBERS[value] if type(value) is int and 0 <= value < 1024 else str(value).encode("ascii")


def retry_after_seconds(wait: float) -> int:
    """Return the value of Retry-After for a wait in seconds: whole, rounded up, at least 1."""
    return max(1, math.ceil(wait)) if wait < _LONGEST_WAIT_S else _LONGEST_WAIT_S


def x_ratelimit_fields(info: Info) -> Fields:
    """Return v1.2's three fields for an info dict; the reset is an integer epoch."""
    return [
        (b"x-ratelimit-limit", _number(info["limit"])),
        (b"x-ratelimit-remaining", _number(info["remaining"])),
        (b"x-ratelimit-reset", b"%d" % int(info["reset_at"])),
    ]


def standard_fields(info: Info, policy: Policy) -> Fields:
    """Return ``RateLimit-Policy`` and ``RateLimit``; without ``t`` where it is not known."""
    name = _structured_string(policy.name)
    remaining = b"%s;r=%d" % (name, info["remaining"])
    reset = _seconds_to_reset(info, policy)
    return [
        (b"ratelimit-policy", b"%s;q=%d;w=%d" % (name, info["limit"], policy.window_s)),
        (b"ratelimit", remaining if reset is None else b"%s;t=%d" % (remaining, reset)),
    ]


def _structured_string(text: str) -> bytes:
    """Return `text` as a string of Structured Fields (RFC 9651): quoted, printable ASCII only."""
    plain = "".join(character if " " <= character <= "~" else "?" for character in text)
    return b'"%s"' % plain.replace("\\", "\\\\").replace('"', '\\"').encode("ascii")


def _seconds_to_reset(info: Info, policy: Policy) -> int | None:
    if "retry_after" in info:
        return retry_after_seconds(info["retry_after"])
    if policy.burst is None or not policy.refill_rate or policy.refill_rate < 0:
        return None
    missing: int = max(0, policy.burst - info["remaining"])
    return min(math.ceil(missing / policy.refill_rate), _LONGEST_WAIT_S)


def fields(family: str, info: Info, policy: Policy | None) -> Fields:
    """Return the fields of `family`; `policy` is needed for the standard ones."""
    if family == X_RATELIMIT:
        return x_ratelimit_fields(info)
    assert policy is not None
    if family == RATELIMIT:
        return standard_fields(info, policy)
    return x_ratelimit_fields(info) + standard_fields(info, policy)


def merged(present: Iterable[tuple[bytes, bytes]], ours: Fields) -> Fields:
    """Return the response's header with our fields added; where a limiter further inside has set the same family
    already, the stricter one, with fewer requests remaining, stays (fault F8)."""
    kept = list(present)
    for name, _ in kept:
        if name in _NAMES:
            return _stricter(kept, ours)
    return kept + ours


def _stricter(kept: Fields, ours: Fields) -> Fields:
    remaining = {name: _remaining(name, value) for name, value in kept if name in _NAMES}
    for family, teller in ((_X_NAMES, b"x-ratelimit-remaining"), (_STANDARD_NAMES, b"ratelimit")):
        mine = next((_remaining(name, value) for name, value in ours if name == teller), None)
        theirs = remaining.get(teller)
        if mine is None or (theirs is not None and theirs <= mine):
            ours = [field for field in ours if field[0] not in family]
        else:
            kept = [field for field in kept if field[0] not in family]
    return kept + ours


def _remaining(name: bytes, value: bytes) -> int | None:
    """Return the requests remaining that a field tells, None for other fields and for what cannot be read."""
    if name == b"ratelimit":
        value = value.rpartition(b";r=")[-1].partition(b";")[0]
    elif name != b"x-ratelimit-remaining":
        return None
    return int(value) if value.isdigit() and len(value) < 20 else None


def denial_fields(family: str, info: Info, policy: Policy | None) -> Fields:
    """Return the fields of a refusal: Retry-After and those of `family`."""
    return [(b"retry-after", _number(retry_after_seconds(info["retry_after"]))), *fields(family, info, policy)]


def denial_header_texts(info: Info) -> dict[str, str]:
    """Return the four fields of a refusal as text, for an HTTPException: Retry-After and X-RateLimit-*."""
    return {
        "Retry-After": str(retry_after_seconds(info["retry_after"])),
        "X-RateLimit-Limit": str(info["limit"]),
        "X-RateLimit-Remaining": "0",
        "X-RateLimit-Reset": str(int(info["reset_at"])),
    }


def denial_detail(info: Info, *, with_limit: bool) -> Info:
    """Return what v1.2 puts under "detail": error, retry_after and, in the middleware, limit and window."""
    detail: Info = {"error": ERROR, "retry_after": min(info["retry_after"], _LONGEST_WAIT_S)}
    if with_limit:
        detail |= {"limit": info["limit"], "window": info["window"]}
    return detail


def json_body(detail: Info) -> bytes:
    """Return the JSON body of a refusal, ``{"detail": {...}}``."""
    return _json({"detail": detail})


def problem_body(detail: Info, policy: Policy) -> bytes:
    """Return the refusal as ``application/problem+json`` (RFC 9457) of the draft's type "quota-exceeded"."""
    problem = {
        "type": PROBLEM_TYPE,
        "title": "Request cannot be satisfied as assigned quota has been exceeded",
        "status": 429,
        "violated-policies": [policy.name],
        **detail,
    }
    return _json(problem)


def _json(value: Info) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii")
