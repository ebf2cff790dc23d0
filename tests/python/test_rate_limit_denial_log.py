"""Log lines about refused requests (contract rate_limiter, fault F29)."""

from __future__ import annotations

import logging
import threading

import pytest
from asgi_client import ManualClock

from peercore.ratelimit.denial_log import DenialLog, printable

LOGGER = "services.rate_limiter"


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.WARNING, LOGGER)

    def messages() -> list[str]:
        assert all(record.name == LOGGER and record.levelno == logging.WARNING for record in caplog.records)
        return [record.getMessage() for record in caplog.records]

    return messages


def test_f29_ten_lines_then_one_with_the_number_left_out(lines):
    clock = ManualClock()
    log = DenialLog(clock=clock)
    for n in range(1000):
        log.denied(f"10.0.0.1:/{n}")
    assert lines() == [f"Rate limit exceeded for 10.0.0.1:/{n}" for n in range(10)]
    clock.now += 9.99
    log.denied("still")
    assert len(lines()) == 10
    clock.now += 0.01
    log.denied("next")
    assert lines()[10:] == [
        "Rate limit exceeded 991 more times in the last period of 10 s, not logged",
        "Rate limit exceeded for next",
    ]
    clock.now += 60.0
    log.denied("later")
    assert lines()[12:] == ["Rate limit exceeded for later"], "nothing was left out, so nothing is said"


def test_f29_a_line_stays_one_plain_line(lines):
    DenialLog().denied("10.0.0.1:/a\r\nWARNING forged \x1b[2J\u2028\xfc\x00")
    assert lines() == ["Rate limit exceeded for 10.0.0.1:/a\\r\\nWARNING forged \\x1b[2J\\u2028\\xfc\\x00"]


def test_f29_a_long_key_is_cut(lines):
    DenialLog().denied("a" * 65536)
    assert lines() == ["Rate limit exceeded for " + "a" * 200 + "... (65536 characters)"]


def test_percent_signs_are_text(lines):
    DenialLog().denied("100%s %d%%")
    assert lines() == ["Rate limit exceeded for 100%s %d%%"]


def test_other_keys_than_text():
    assert printable(None) == "None"
    assert printable(("a", 1)) == "('a', 1)"
    assert printable("\udcff") == "\\udcff"


def test_silent_logger_counts_nothing(caplog):
    clock = ManualClock()
    log = DenialLog(lines=1, clock=clock)
    caplog.set_level(logging.ERROR, LOGGER)
    for _ in range(5):
        log.denied("a")
    caplog.set_level(logging.WARNING, LOGGER)
    clock.now += 60.0
    log.denied("b")
    assert [record.getMessage() for record in caplog.records] == ["Rate limit exceeded for b"]


def test_threads_write_no_more_than_one(lines):
    log = DenialLog(clock=ManualClock())
    threads = [threading.Thread(target=lambda: [log.denied("k") for _ in range(500)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lines()) == 10
    assert "suppressed=1990" in repr(log)
