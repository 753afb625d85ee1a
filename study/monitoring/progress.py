"""Progress of a running study: the state of its stages, which the heartbeat writes and the display draws."""

import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from cluster.protocol import Listener, StageOutcome
from study.monitoring.eta import EtaEstimator
from study.monitoring.rates import Rate, StageRates
from study.planning.graph import Plan, image_epochs, lineage
from study.planning.pending import PendingStages


class StudyProgress(Listener):
    """Counts of stages by state, the running ones with their scores, and the time left.

    Another thread may call `status` during an update.
    """

    def __init__(self, plan: Plan, pending: PendingStages, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.plan = plan
        self._rates = StageRates(clock=clock)
        self._lock = threading.Lock()
        self._all = set(plan.nodes)
        """Compared stages, and candidates of this run."""
        self._of_run, self._done, self._failed = set(pending.stages), set[str](), set[str]()
        self._eta = EtaEstimator(
            self._costs(digest for digest in pending.stages if digest not in pending.scored), clock=clock
        )
        self._running: dict[str, Mapping[str, float]] = {}
        """The last scores of each running stage."""

    @property
    def total(self) -> int:
        """Return the number of stages of this run."""
        return len(self._of_run)

    @property
    def done(self) -> int:
        """Return how many stages of this run are done."""
        return len(self._done)

    def started(self, digest: str) -> None:
        """Add a running stage."""
        with self._lock:
            self._running[digest] = {}
            self._eta.started(digest)
            self._rates.started(digest)

    def progressed(self, digest: str, scores: Mapping[str, float]) -> None:
        """Update the scores of a stage."""
        with self._lock:
            self._running[digest] = scores
            self._eta.progressed(digest, epoch=scores["epoch"], epochs=scores["epochs"])
            self._rates.progressed(digest, epoch=scores["epoch"], updates=scores.get("updates", math.nan))

    def ended(self, digest: str, outcome: StageOutcome, *, again: bool) -> None:
        """Remove a running stage, and count it by its outcome; a skipped stage still waits for a later run."""
        with self._lock:
            self._running.pop(digest, None)
            self._rates.ended(digest)
            self._eta.ended(digest, again=again, finished=outcome.status == "done")
            if outcome.status == "done":
                self._done.add(digest)
            elif outcome.status == "redo" and again:
                self._expect([outcome.redo])
            elif again:
                pass
            elif not self.is_compared(digest):  # a candidate that its search has given up
                self._of_run.discard(digest)
            elif outcome.status in ("failed", "redo"):
                self._failed.add(digest)
                self._eta.drop(other for other in self._eta.stages if self._is_descendant(other, digest))

    def expect(self, digests: Iterable[str]) -> None:
        """Add stages that were planned after the start, and those that are trained once more."""
        with self._lock:
            self._expect(digests)

    def _expect(self, digests: Iterable[str]) -> None:
        digests = set(digests)
        again = digests & (self._done | self._failed)
        self._done -= again
        self._failed -= again
        self._eta.expect(self._costs(again | (digests - self._of_run)))
        self._of_run |= digests
        self._all |= digests | self.plan.nodes.keys()

    def is_compared(self, digest: str) -> bool:
        """Return whether a stage is compared; if not, it is a candidate of a search."""
        return self.plan.graph.is_compared(digest)

    @property
    def is_searching(self) -> bool:
        """Return whether a search is running, which will add stages."""
        return self.plan.graph.is_searching

    def seconds_left(self) -> float | None:
        """Return the estimated time left, None if it is unknown."""
        return self._eta.seconds_left()

    def status(self) -> dict[str, Any]:
        """Return the progress that the heartbeat writes, called from its thread."""
        with self._lock:
            running = [self._running_stage(digest, scores) for digest, scores in self._running.items()]
            rates = [stage["images_per_second"] for stage in running if stage["images_per_second"] is not None]
            return {
                "stages": self.counts(),
                "running": running,
                "images_per_second": sum(rates) if rates else None,
                "seconds_left": self.seconds_left(),
                "searching": self.is_searching,
            }

    def counts(self) -> dict[str, int]:
        """Return the number of stages in each state, search candidates included."""
        total, running, failed = len(self._all), len(self._running), len(self._failed)
        finished = total - len(self._of_run) + len(self._done)
        waiting = total - finished - running - failed
        return {"total": total, "finished": finished, "running": running, "waiting": waiting, "failed": failed}

    def _running_stage(self, digest: str, scores: Mapping[str, float]) -> dict[str, Any]:
        """Return a running stage with its last epoch and scores; NaN becomes None, because JSON has no NaN."""
        values = {key: None if math.isnan(value) else value for key, value in scores.items()}
        stage = {"digest": digest, "stage": self.plan.node(digest).step.stage, "label": self.label(digest)}
        progress = {key: values.pop(key, None) for key in ("epoch", "epochs", "updates")}
        rate = self._rate(digest, scores)
        rates = {
            "updates_per_second": None if rate is None or math.isnan(rate.updates) else rate.updates,
            "images_per_second": None if rate is None else rate.images,
        }
        return {**stage, **progress, **rates, "scores": values}

    def _rate(self, digest: str, scores: Mapping[str, float]) -> Rate | None:
        if "epochs" not in scores:
            return None
        images = float(image_epochs(self.plan, self.plan.node(digest)))
        return self._rates.rate(digest, epochs=scores["epochs"], image_epochs=images)

    def label(self, digest: str) -> str:
        """Return the name of a stage for the user."""
        node = self.plan.node(digest)
        step, selection = node.step, node.selection
        parts = [node.name, "/".join(filter(None, (step.architecture, step.backbone)))]
        if selection.labelled is not None:
            parts.append(f"labelled {selection.labelled:g}")
        if not self.is_compared(digest):
            parts.append("candidate")
        if selection.fold is not None:
            parts.append(f"fold {selection.fold}")
        return " ".join([*parts, f"seed {node.seed}", digest[:8]])

    def _costs(self, digests: Iterable[str]) -> dict[str, float]:
        return {digest: float(image_epochs(self.plan, self.plan.node(digest))) for digest in digests}

    def _is_descendant(self, digest: str, ancestor: str) -> bool:
        return ancestor in lineage(self.plan.node, [digest])
