"""Every error of the core reaches Python as an exception that callers know."""

from peercore import _core


def test_every_core_error_has_a_message_and_an_exception_of_its_own_kind() -> None:
    table = _core.error_table()
    assert table == {
        "invalid configuration": ValueError,
        "invalid argument": ValueError,
        "key too long": ValueError,
        "table is full": MemoryError,
    }
