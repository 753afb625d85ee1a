import signal


def pytest_configure() -> None:
    """Take interrupts as in a terminal: a shell's background job ignores them, and so would what tests start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
