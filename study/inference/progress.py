"""Progress of `study predict` on stderr: a bar on a terminal, lines from time to time elsewhere."""

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from results.text import printable

LINE_SECONDS = 5.0
"""Interval between two lines if stderr is not a terminal."""


class PredictionProgress:
    """Shows how many images are predicted, and problems of single ones.

    Args:
        total: The number of images.
        console: Where progress is shown; default: stderr.
        clock: Returns seconds.
    """

    def __init__(
        self, total: int, *, console: Console | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console = console or Console(stderr=True, soft_wrap=True, file=sys.stderr)
        self._clock, self._total, self._done = clock, total, 0
        self._last_line = clock()
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("images, left:"),
            TimeRemainingColumn(), console=self._console, disable=not self._console.is_terminal, transient=True,
        )  # fmt: skip
        self._task = self._bar.add_task("predicting", total=total)

    def __enter__(self) -> Self:
        """Show the bar."""
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the bar."""
        self._bar.stop()

    def done(self, problem: str = "") -> None:
        """Count an image that is predicted, or left out because of a problem."""
        self._done += 1
        if problem:
            self._print(problem)
        self._bar.update(self._task, completed=self._done)
        if not self._console.is_terminal and self._clock() - self._last_line > LINE_SECONDS:
            self._last_line = self._clock()
            self._print(f"predicting: {self._done:,} of {self._total:,} images")

    def _print(self, text: str) -> None:
        self._console.print(printable(text), highlight=False, markup=False, soft_wrap=True)
