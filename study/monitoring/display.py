"""What a user sees while a study runs: a live view on a terminal, plain lines in a pipe."""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from cluster.protocol import StageOutcome
from results.text import printable
from study.monitoring.eta import Pace, left_text, scores_text
from study.planning.graph import Plan, image_epochs
from study.planning.pending import PendingStages

LINE_SECONDS = 10.0
"""Between two lines about a running stage in a pipe."""


class Display:
    """Tells of stages as they start, train and end."""

    def __init__(
        self, plan: Plan, *, left: PendingStages, console: Console, on_failure: Callable[[str, str], None]
    ) -> None:
        self._plan, self._console, self._live, self._on_failure = plan, console, console.is_terminal, on_failure
        self._expected, self._late = set(left.stages), set[str]()
        self._total, self._done, self._failed = len(self._expected), 0, 0
        self._pace = Pace(self._costs(name for name in left.stages if name not in left.scored))
        self._started: dict[str, float] = {}
        self._scores: dict[str, Mapping[str, float]] = {}
        self._told: dict[str, float] = {}
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
        """Begin the live view."""
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the live view."""
        self._progress.stop()

    def started(self, name: str) -> None:
        """Show a stage that was handed out."""
        self._started[name] = self._told[name] = time.monotonic()
        self._pace.started(name)
        if self._live:
            self._bars[name] = self._progress.add_task(self.label(name), total=None, score="")

    def progressed(self, name: str, scores: Mapping[str, float]) -> None:
        """Show how far a stage is."""
        text = scores_text(scores)
        self._scores[name] = scores
        self._pace.progressed(name, epoch=scores["epoch"], epochs=scores["epochs"])
        if self._live:
            self._show_left()
            self._progress.update(self._bars[name], completed=scores["epoch"], total=scores["epochs"], score=text)
        elif time.monotonic() - self._told[name] > LINE_SECONDS:
            self._told[name] = time.monotonic()
            self.line(f"{self.label(name)}: epoch {scores['epoch']:.0f} of {scores['epochs']:.0f} {text}")

    def lost(self, name: str, why: str = "") -> None:
        """Say that a stage starts again."""
        told = f" ({why}; with more resources.cpus fewer stages share a node)" if why else ""
        self.line(f"{self.label(name)}: its process was lost{told}; it goes on from its last checkpoint")

    def stranded(self) -> None:
        """Say that the study waits for a node."""
        self.line("no node of the cluster has room for a stage now; the study goes on as soon as one joins")

    def ended(self, name: str, outcome: StageOutcome, *, again: bool) -> None:
        """Show how a stage ended."""
        seconds = time.monotonic() - self._started.pop(name)
        self._scores.pop(name, None)
        self._pace.ended(name, again=again, finished=outcome.status == "done")
        if not again:
            self._expected.discard(name)
        if outcome.status == "failed" and not again:
            self._pace.drop(below for below in self._pace.left if self._descends(below, name))
        if self._live:
            self._progress.remove_task(self._bars.pop(name))
            self._show_left()
        if outcome.status == "done":
            self._done += 1
            self._progress.update(self._all, completed=self._done)
            self.line(f"[{self._done}/{self._total}] {self.label(name)} ({seconds:.1f} s)")
        elif outcome.status == "redo" and again:
            self._total += outcome.redo != name
            self._pace.expect(self._costs([outcome.redo]))
            self.line(f"{outcome.detail}; it was set aside and is trained again")
        elif outcome.status == "lost":
            self.lost(name)
        elif outcome.status == "rejected":
            if outcome.detail:
                self.line(outcome.detail)
        elif outcome.status == "stopped" or (outcome.status == "failed" and name not in self._plan.nodes and not again):
            self._total -= 1  # the search says why
        elif outcome.status != "busy":
            if not again and name in self._plan.nodes:
                self._failed += 1
                self._on_failure(name, outcome.detail)
            first = outcome.detail.partition("\n")[0]
            self.line(f"{self.label(name)} failed{', is tried once more' if again else ''}: {first}")

    def expect(self, names: Iterable[str]) -> None:
        """Count stages that come late, each once until it ended."""
        new = set(names) - self._expected
        self._expected |= new
        self._late |= new - self._plan.nodes.keys()
        self._total += len(new)
        self._pace.expect(self._costs(new))
        self._progress.update(self._all, total=self._total)

    def told(self, stages: int) -> dict[str, Any]:
        """Return what the driver says of a study that compares so many stages; asked for by another thread."""
        return {
            "stages": self.counts(stages),
            "running": [self._running(name) for name in tuple(self._started)],
            "seconds_left": self._pace.seconds_left(),
            "searching": bool(self._plan.waiting),
        }

    def _running(self, name: str) -> dict[str, Any]:
        """Return a running stage with its last epoch; NaN, which JSON has not, becomes None."""
        scores = {key: None if math.isnan(value) else value for key, value in self._scores.get(name, {}).items()}
        told = {"digest": name, "stage": self._plan.node(name).step.stage, "label": self.label(name)}
        return {**told, **{key: scores.pop(key, None) for key in ("epoch", "epochs")}, "scores": scores}

    def counts(self, stages: int) -> dict[str, int]:
        """Return numbers of stages by state, for a study that compares so many; candidates count too."""
        stages += len(self._late - self._plan.nodes.keys())
        running, failed = len(self._started), self._failed
        finished = stages - self._total + self._done
        waiting = stages - finished - running - failed
        return {"total": stages, "finished": finished, "running": running, "waiting": waiting, "failed": failed}

    def _costs(self, names: Iterable[str]) -> dict[str, float]:
        return {name: float(image_epochs(self._plan, self._plan.node(name))) for name in names}

    def _descends(self, name: str, ancestor: str) -> bool:
        at: str | None = name
        while at is not None and at != ancestor:
            at = self._plan.node(at).parent
        return at is not None

    def _show_left(self) -> None:
        left = left_text(self._pace.seconds_left(), searching=bool(self._plan.waiting))
        self._progress.update(self._all, score=f"time left: {left}")

    def line(self, text: str) -> None:
        """Print one line."""
        self._console.print(printable(text), highlight=False, markup=False, soft_wrap=True)

    def label(self, digest: str) -> str:
        """Return how a stage is named to the user."""
        node = self._plan.node(digest)
        step, draw = node.recipe.step, node.draw
        words = [step.stage, "/".join(filter(None, (step.architecture, step.backbone)))]
        if draw.labelled is not None:
            words.append(f"labelled {draw.labelled:g}")
        if digest not in self._plan.nodes:
            words.append("candidate")
        if draw.fold is not None:
            words.append(f"fold {draw.fold}")
        return " ".join([*words, f"seed {node.seed}", digest[:8]])
