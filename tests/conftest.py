import signal


def pytest_configure() -> None:
    """Handle interrupts as in a terminal: background jobs of a shell, and processes started by them, ignore them."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
