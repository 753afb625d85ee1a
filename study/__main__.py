"""The command `study`, also `python -m study`: it can be stopped from its first moment on."""

import os
import signal
import sys

from cluster.stopping import Stopped, farewell, stoppable


def main() -> None:
    """Run the command line."""
    try:
        with stoppable():
            from study.cli import main as run

            run()
    except Stopped:
        _end(signal.SIGTERM)
    except KeyboardInterrupt:
        _end(signal.SIGINT)


def _end(number: int) -> None:
    """End at once: a thread that still waits for something would be waited for."""
    sys.stderr.write(farewell(number) + "\n")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(128 + number)


if __name__ == "__main__":
    main()
