"""What holds for all tests."""

import signal


def pytest_configure() -> None:
    """A shell starts what it puts in the background with SIGINT ignored, and children inherit it:
    tests that interrupt a program would wait for ever."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
