"""Progress of a running study: a live view on a terminal, plain lines in a pipe."""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from cluster.protocol import StageOutcome
from results.text import printable
from study.monitoring.eta import EtaEstimator, left_text, scores_text
from study.planning.graph import Plan, image_epochs
from study.planning.pending import PendingStages

LINE_SECONDS = 10.0
"""Interval between two progress lines of a running stage in a pipe."""


class Display:
    """Displays stages as they start, train and end."""

    def __init__(
        self, plan: Plan, *, pending: PendingStages, console: Console, on_failure: Callable[[str, str], None]
    ) -> None:
        self._plan, self._console, self._live, self._on_failure = plan, console, console.is_terminal, on_failure
        self._expected, self._added_later = set(pending.stages), set[str]()
        self._total, self._done, self._failed = len(self._expected), 0, 0
        self._eta = EtaEstimator(self._costs(name for name in pending.stages if name not in pending.scored))
        self._started: dict[str, float] = {}
        self._scores: dict[str, Mapping[str, float]] = {}
        self._last_line: dict[str, float] = {}
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[score]}"),
            TimeElapsedColumn(),
            console=console,
            disable=not self._live,
            transient=True,
        )
        self._all = self._progress.add_task("stages", total=self._total, score="")
        self._bars: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        """Start the live view."""
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the live view."""
        self._progress.stop()

    def started(self, name: str) -> None:
        """Show a stage that was dispatched."""
        self._started[name] = self._last_line[name] = time.monotonic()
        self._eta.started(name)
        if self._live:
            self._bars[name] = self._progress.add_task(self.label(name), total=None, score="")

    def progressed(self, name: str, scores: Mapping[str, float]) -> None:
        """Show the progress of a stage."""
        text = scores_text(scores)
        self._scores[name] = scores
        self._eta.progressed(name, epoch=scores["epoch"], epochs=scores["epochs"])
        if self._live:
            self._show_time_left()
            self._progress.update(self._bars[name], completed=scores["epoch"], total=scores["epochs"], score=text)
        elif time.monotonic() - self._last_line[name] > LINE_SECONDS:
            self._last_line[name] = time.monotonic()
            self.line(f"{self.label(name)}: epoch {scores['epoch']:.0f} of {scores['epochs']:.0f} {text}")

    def lost(self, name: str, reason: str = "") -> None:
        """Print that a stage lost its process and will be resumed."""
        details = f" ({reason}; with more resources.cpus fewer stages share a node)" if reason else ""
        self.line(f"{self.label(name)}: its process was lost{details}; it resumes from its last checkpoint")

    def stranded(self) -> None:
        """Print that the study waits for a node."""
        self.line("no node of the cluster has room for a stage now; the study continues as soon as one joins")

    def ended(self, name: str, outcome: StageOutcome, *, again: bool) -> None:
        """Show how a stage ended."""
        seconds = time.monotonic() - self._started.pop(name)
        self._scores.pop(name, None)
        self._eta.ended(name, again=again, finished=outcome.status == "done")
        if not again:
            self._expected.discard(name)
        if outcome.status == "failed" and not again:
            self._eta.drop(other_name for other_name in self._eta.stages if self._is_descendant(other_name, name))
        if self._live:
            self._progress.remove_task(self._bars.pop(name))
            self._show_time_left()
        if outcome.status == "done":
            self._done += 1
            self._progress.update(self._all, completed=self._done)
            self.line(f"[{self._done}/{self._total}] {self.label(name)} ({seconds:.1f} s)")
        elif outcome.status == "redo" and again:
            self._total += outcome.redo != name
            self._eta.expect(self._costs([outcome.redo]))
            self.line(f"{outcome.detail}; it was set aside and is trained again")
        elif outcome.status == "lost":
            self.lost(name)
        elif outcome.status == "rejected":
            if outcome.detail:
                self.line(outcome.detail)
        elif outcome.status == "stopped" or (outcome.status == "failed" and name not in self._plan.nodes and not again):
            self._total -= 1  # the search prints the reason
        elif outcome.status != "busy":
            if not again and name in self._plan.nodes:
                self._failed += 1
                self._on_failure(name, outcome.detail)
            first_line = outcome.detail.partition("\n")[0]
            self.line(f"{self.label(name)} failed{', is tried once more' if again else ''}: {first_line}")

    def expect(self, names: Iterable[str]) -> None:
        """Add stages that were planned after the start; a stage that is already counted is ignored."""
        new = set(names) - self._expected
        self._expected |= new
        self._added_later |= new - self._plan.nodes.keys()
        self._total += len(new)
        self._eta.expect(self._costs(new))
        self._progress.update(self._all, total=self._total)

    def status(self, stages: int) -> dict[str, Any]:
        """Return the progress that the heartbeat writes, called from its thread.

        Args:
            stages: Number of stages that the study compares.
        """
        return {
            "stages": self.counts(stages),
            "running": [self._running(name) for name in tuple(self._started)],
            "seconds_left": self._eta.seconds_left(),
            "searching": bool(self._plan.waiting),
        }

    def _running(self, name: str) -> dict[str, Any]:
        """Return a running stage with its last epoch and scores; NaN becomes None, because JSON has no NaN."""
        scores = {key: None if math.isnan(value) else value for key, value in self._scores.get(name, {}).items()}
        stage = {"digest": name, "stage": self._plan.node(name).step.stage, "label": self.label(name)}
        return {**stage, **{key: scores.pop(key, None) for key in ("epoch", "epochs")}, "scores": scores}

    def counts(self, stages: int) -> dict[str, int]:
        """Return the number of stages in each state, search candidates included.

        Args:
            stages: Number of stages that the study compares.
        """
        stages += len(self._added_later - self._plan.nodes.keys())
        running, failed = len(self._started), self._failed
        finished = stages - self._total + self._done
        waiting = stages - finished - running - failed
        return {"total": stages, "finished": finished, "running": running, "waiting": waiting, "failed": failed}

    def _costs(self, names: Iterable[str]) -> dict[str, float]:
        return {name: float(image_epochs(self._plan, self._plan.node(name))) for name in names}

    def _is_descendant(self, name: str, ancestor: str) -> bool:
        current: str | None = name
        while current is not None and current != ancestor:
            current = self._plan.node(current).parent
        return current is not None

    def _show_time_left(self) -> None:
        time_left = left_text(self._eta.seconds_left(), searching=bool(self._plan.waiting))
        self._progress.update(self._all, score=f"time left: {time_left}")

    def line(self, text: str) -> None:
        """Print one line."""
        self._console.print(printable(text), highlight=False, markup=False, soft_wrap=True)

    def label(self, digest: str) -> str:
        """Return the name of a stage for the user."""
        node = self._plan.node(digest)
        step, draw = node.recipe.step, node.draw
        parts = [step.stage, "/".join(filter(None, (step.architecture, step.backbone)))]
        if draw.labelled is not None:
            parts.append(f"labelled {draw.labelled:g}")
        if digest not in self._plan.nodes:
            parts.append("candidate")
        if draw.fold is not None:
            parts.append(f"fold {draw.fold}")
        return " ".join([*parts, f"seed {node.seed}", digest[:8]])
