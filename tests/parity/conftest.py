import pytest
from rate_limiter_sides import SIDES, Side, side


@pytest.fixture(params=SIDES)
def rate_limiter(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Side:
    """The v1.2 baseline, the native limiter, and the native one told to behave as v1.2: the same test runs on each."""
    made = side(request.param)
    monkeypatch.setattr(made.module, "_default_limiter", None)
    monkeypatch.setattr(made.module, "_endpoint_limiter", None)
    return made
