"""The list of known differences is true: every scenario gives what the list says, on each side."""

import pytest
from known_differences import DIFFERENCES, Difference
from rate_limiter_sides import BASELINE, NATIVE, NATIVE_V1_2, Side


@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda difference: difference.topic)
async def test_known_difference(difference: Difference, rate_limiter: Side) -> None:
    expected = {BASELINE: difference.v1_2, NATIVE: difference.native, NATIVE_V1_2: difference.compat}
    assert await difference.scenario(rate_limiter) == expected[rate_limiter.name]


def test_every_difference_is_one() -> None:
    assert [difference.topic for difference in DIFFERENCES if difference.v1_2 == difference.native] == []
