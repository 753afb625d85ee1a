"""The progress of a running study on a terminal, or as plain lines in a pipe."""

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from cluster.protocol import Listener, StageOutcome
from study.monitoring.eta import left_text, scores_text
from study.monitoring.progress import StudyProgress
from study.monitoring.reporter import Reporter
from study.monitoring.status import running_text

LINE_SECONDS = 10.0
"""Interval between two progress lines of a running stage in a pipe."""


class Display(Listener):
    """Draws the events of stages; `progress` must receive each event before."""

    def __init__(self, progress: StudyProgress, reporter: Reporter) -> None:
        self.progress, self._reporter, self._live = progress, reporter, reporter.console.is_terminal
        self._is_first = True
        self._started: dict[str, float] = {}
        self._last_line: dict[str, float] = {}
        self._view = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[score]}"),
            TimeElapsedColumn(),
            console=reporter.console,
            disable=not self._live,
            transient=True,
        )
        self._all = self._view.add_task("stages", total=progress.total, score="")
        self._bars: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        """Start the live view."""
        self._view.start()
        self._reporter.is_live = self._live
        self._reporter.describe_with(self._activity)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the live view."""
        self._view.stop()
        self._reporter.is_live = False
        self._reporter.begin("ending the workers", at_once=False)

    def started(self, digest: str) -> None:
        """Add a bar."""
        self._started[digest] = self._last_line[digest] = time.monotonic()
        if self._live:
            self._update_total()
            self._bars[digest] = self._view.add_task(self._label(digest), total=None, score="")
        if self._is_first:
            self._is_first = False
            self.line(f"{self._label(digest)}: the first stage has started")

    def progressed(self, digest: str, scores: Mapping[str, float]) -> None:
        """Update the bar of a stage, or print a line from time to time."""
        text = scores_text(scores)
        if self._live:
            self._update_total()
            self._view.update(self._bars[digest], completed=scores["epoch"], total=scores["epochs"], score=text)
        elif time.monotonic() - self._last_line[digest] > LINE_SECONDS:
            self._last_line[digest] = time.monotonic()
            self.line(f"{self._label(digest)}: epoch {scores['epoch']:.0f} of {scores['epochs']:.0f} {text}")

    def lost(self, digest: str, reason: str = "") -> None:
        """Print that a stage lost its process and will be resumed."""
        details = f" ({reason}; with more resources.cpus fewer stages share a node)" if reason else ""
        self.line(f"{self._label(digest)}: its process was lost{details}; it resumes from its last checkpoint")

    def stranded(self) -> None:
        """Print that the study waits for a node."""
        self.line("no node of the cluster has room for a stage now; the study continues as soon as one joins")

    def ended(self, digest: str, outcome: StageOutcome, *, again: bool) -> None:
        """Remove the bar of a stage, and print how it ended."""
        if digest not in self._started:  # skipped
            return
        seconds = time.monotonic() - self._started.pop(digest)
        if self._live:
            self._view.remove_task(self._bars.pop(digest))
            self._update_total()
        match outcome.status:
            case "done":
                progress = self.progress
                self.line(f"[{progress.done}/{progress.total}] {self._label(digest)} ({seconds:.1f} s)")
            case "redo" if again:
                self.line(outcome.detail)
            case "lost":
                self.lost(digest)
            case "rejected":
                if outcome.detail:
                    self.line(outcome.detail)
            case "failed" if not again and not self.progress.is_compared(digest):
                pass  # a candidate; the search prints the reason
            case "failed" | "redo":
                first_line = outcome.detail.partition("\n")[0]
                self.line(f"{self._label(digest)} failed{', is tried once more' if again else ''}: {first_line}")
            case _:  # busy elsewhere, or stopped by a search
                pass

    def line(self, text: str) -> None:
        """Print one line."""
        self._reporter.line(text)

    def _activity(self) -> str:
        """Return what runs, for the time in which no stage reports."""
        state = self.progress.status()
        running, counts = state["running"], state["stages"]
        if not running:
            return f"waiting for a worker: {counts['finished']} of {counts['total']} stages finished"
        others = f" (and {len(running) - 1} more)" if len(running) > 1 else ""
        time_left = left_text(state["seconds_left"], searching=state["searching"])
        return f"{running_text(running[0])}{others}; time left: {time_left}"

    def _label(self, digest: str) -> str:
        return self.progress.label(digest)

    def _update_total(self) -> None:
        progress = self.progress
        time_left = left_text(progress.seconds_left(), searching=progress.is_searching)
        self._view.update(self._all, completed=progress.done, total=progress.total, score=f"time left: {time_left}")
