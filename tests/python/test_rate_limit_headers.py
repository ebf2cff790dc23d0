"""Header fields and bodies that tell a limit (contract rate_limiter, sections 5 and 9; draft ratelimit-headers-10)."""

from __future__ import annotations

import json

import pytest

from peercore.ratelimit import headers as wire

ALLOWED = {"limit": 60, "remaining": 9, "reset_at": 1060.7, "window": 60}
DENIED = {"limit": 60, "remaining": 0, "reset_at": 1060.7, "window": 60, "retry_after": 1.1}
POLICY = wire.Policy("default", 60, 10, 1.0)


def test_v1_2_fields():
    assert wire.fields("x-ratelimit", ALLOWED, None) == [
        (b"x-ratelimit-limit", b"60"),
        (b"x-ratelimit-remaining", b"9"),
        (b"x-ratelimit-reset", b"1060"),
    ]


def test_standard_fields():
    assert wire.fields("ratelimit", ALLOWED, POLICY) == [
        (b"ratelimit-policy", b'"default";q=60;w=60'),
        (b"ratelimit", b'"default";r=9;t=1'),
    ]


def test_both_families():
    names = [name for name, _ in wire.fields("both", ALLOWED, POLICY)]
    assert names == [
        b"x-ratelimit-limit",
        b"x-ratelimit-remaining",
        b"x-ratelimit-reset",
        b"ratelimit-policy",
        b"ratelimit",
    ]


def test_reset_of_a_refusal_is_retry_after():
    """Draft: with both fields, the reset refers to the same moment as Retry-After."""
    fields = dict(wire.denial_fields("ratelimit", DENIED, POLICY))
    assert fields[b"retry-after"] == b"2"
    assert fields[b"ratelimit"] == b'"default";r=0;t=2'


@pytest.mark.parametrize("policy", [wire.Policy("default", 60), wire.Policy("default", 60, 10, 0.0)])
def test_unknown_reset_is_left_out(policy):
    assert dict(wire.standard_fields(ALLOWED, policy))[b"ratelimit"] == b'"default";r=9'


def test_policy_names_are_structured_strings():
    name = 'a"b\\c\r\n\u2028'
    assert dict(wire.standard_fields(ALLOWED, POLICY._replace(name=name)))[b"ratelimit-policy"].startswith(
        b'"a\\"b\\\\c???";q='
    )


@pytest.mark.parametrize(
    ("wait", "header"),
    [(0.1, 1), (1.0, 1), (1.1, 2), (2, 2), (0, 1), (-5.0, 1), (float("inf"), 2**31 - 1), (1e300, 2**31 - 1)],
)
def test_retry_after_header_is_whole_rounded_up_and_at_least_one(wait, header):
    assert wire.retry_after_seconds(wait) == header


def test_body_of_a_wait_without_end_is_still_json():
    detail = wire.denial_detail(DENIED | {"retry_after": float("inf")}, with_limit=False)
    assert json.loads(wire.json_body(detail))["detail"]["retry_after"] == 2**31 - 1


def test_numbers_of_any_kind():
    fields = dict(wire.x_ratelimit_fields({"limit": 7.5, "remaining": 100_000, "reset_at": 2e9}))
    assert list(fields.values()) == [b"7.5", b"100000", b"2000000000"]


def test_problem_body():
    body = json.loads(wire.problem_body(wire.denial_detail(DENIED, with_limit=True), POLICY))
    assert body["type"] == "https://iana.org/assignments/http-problem-types#quota-exceeded"
    assert body["violated-policies"] == ["default"]
    assert body["status"] == 429
    assert body["title"]
    assert (body["retry_after"], body["limit"], body["window"]) == (1.1, 60, 60)


def x_fields(remaining: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"x-ratelimit-limit", b"5"), (b"x-ratelimit-remaining", remaining), (b"x-ratelimit-reset", b"1")]


@pytest.mark.parametrize("remaining", [b"0", b"9"])
def test_f08_stricter_fields_of_the_response_stay(remaining):
    present = [(b"content-type", b"a/b"), *x_fields(remaining)]
    assert wire.merged(present, wire.x_ratelimit_fields(ALLOWED)) == present


@pytest.mark.parametrize("remaining", [b"10", b"", b"nonsense", b"-1", b"9" * 5000])
def test_f08_laxer_or_unreadable_fields_are_replaced(remaining):
    ours = wire.x_ratelimit_fields(ALLOWED)
    assert wire.merged([(b"content-type", b"a/b"), *x_fields(remaining)], ours) == [(b"content-type", b"a/b"), *ours]


def test_f08_each_family_is_judged_by_itself():
    ours = wire.fields("both", ALLOWED, POLICY)
    inner = [(b"ratelimit-policy", b'"in";q=5;w=60'), (b"ratelimit", b'"in";r=2;t=9')]
    assert wire.merged(inner, ours) == inner + ours[:3]
    laxer = [(b"ratelimit", b'"in";r=200;t=9')]
    assert wire.merged(laxer, ours) == ours
    assert wire.merged(x_fields(b"1"), ours[3:]) == x_fields(b"1") + ours[3:], "another family is none of ours"


def test_merged_leaves_the_response_alone():
    present = [(b"content-type", b"a/b")]
    assert wire.merged(present, wire.x_ratelimit_fields(ALLOWED))[0] == present[0]
    assert present == [(b"content-type", b"a/b")]


def test_http_exception_texts():
    assert wire.denial_header_texts(DENIED) == {
        "Retry-After": "2",
        "X-RateLimit-Limit": "60",
        "X-RateLimit-Remaining": "0",
        "X-RateLimit-Reset": "1060",
    }
