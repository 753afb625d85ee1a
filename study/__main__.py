"""The command `study`, also `python -m study`: it can be stopped from its first moment on."""

import os
import signal
import sys

from cluster.signals import Stopped, stop_message, stoppable


def main() -> None:
    """Run the command line."""
    _open_closed_streams()
    try:
        with stoppable():
            from study.cli.main import main as run

            run()
    except Stopped:
        _end(signal.SIGTERM)
    except KeyboardInterrupt:
        _end(signal.SIGINT)


def _open_closed_streams() -> None:
    """Open the null device for standard streams that are closed: else the next file would get their number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123 - while the process lives


def _end(number: int) -> None:
    """End at once: a thread that still waits for something would be waited for."""
    sys.stderr.write(stop_message(number) + "\n")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(128 + number)


if __name__ == "__main__":
    main()
