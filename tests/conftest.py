"""For every room's tests."""

import signal


def pytest_configure() -> None:
    """Lets Ctrl-C through to the programs under test: a suite started in the background inherits that it is ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
