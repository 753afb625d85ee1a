"""Lines on what a run does: each activity when it begins, and again whenever nothing was printed for some time."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

from results.text import printable
from study.monitoring.units import duration
from study.store.repeating import call_periodically

IDLE_SECONDS = 9.0
"""Time without a line after which one on the current activity is printed; `CHECK_SECONDS` more may pass."""
CHECK_SECONDS = 0.5
ANNOUNCE_SECONDS = 1.0
"""Time after which an activity is printed that usually takes a moment."""


class Reporter:
    """Prints lines on a console.

    Args:
        console: Where lines are printed.
        clock: Returns seconds.
    """

    def __init__(self, console: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.console, self._clock = console, clock
        self.is_live = False
        """Whether a view is drawn continuously, so that no further lines are needed."""
        self._printed = self._begun = clock()
        self._describe: Callable[[], str] | None = None
        self._waiting: str | None = None
        """The current activity, until it is printed."""

    def line(self, text: str) -> None:
        """Print one line."""
        self._printed = self._clock()
        self.console.print(printable(text), highlight=False, markup=False, soft_wrap=True)

    def shown_elsewhere(self) -> None:
        """Record that something else has shown progress."""
        self._printed = self._clock()

    def begin(self, activity: str, *, at_once: bool = True) -> None:
        """Set the current activity, such as "reading the data", and print it at once, or only if it takes a while."""
        self._begun = self._clock()
        self._waiting = None if at_once else activity
        self._describe = lambda: f"{activity}: {duration(self._clock() - self._begun)} so far"
        if at_once:
            self.line(activity)

    def describe_with(self, describe: Callable[[], str]) -> None:
        """Set the function that describes the current activity."""
        self._describe, self._waiting = describe, None

    def check(self) -> None:
        """Print the current activity if it is new, or if nothing was printed for `IDLE_SECONDS`."""
        if self._waiting is not None and self._clock() - self._begun >= ANNOUNCE_SECONDS:
            self.line(self._waiting)
            self._waiting = None
        if not self.is_live and self._describe is not None and self._clock() - self._printed >= IDLE_SECONDS:
            self.line(self._describe())

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Call `check` twice a second during the block."""
        with call_periodically(self.check, "reporter", seconds=CHECK_SECONDS):
            yield
