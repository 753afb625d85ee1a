"""Estimated time left of a study, from its throughput in image-epochs per second."""

import time
from collections.abc import Callable, Iterable, Mapping

from study.monitoring.units import duration


class EtaEstimator:
    """Estimates the time left: image-epochs to train, divided by the throughput of all processes together.

    Throughput is measured from the first report on, because the start-up before it is not repeated. Another thread may
    read `seconds_left` during an update.

    Args:
        costs: Image-epochs of each stage that has not ended.
        clock: Returns seconds.
    """

    def __init__(self, costs: Mapping[str, float], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._costs, self._clock = dict(costs), clock
        self._first_report: float | None = None
        self._trained = 0.0
        self._finished = False
        self._early: set[str] = set()
        """Stages that started before the first report: their first epoch is not part of the measured time."""
        self._fractions: dict[str, tuple[float, float]] = {}
        """Of each running stage, the fraction that was trained before this run, and the fraction trained by now."""

    @property
    def stages(self) -> Iterable[str]:
        """Return the stages that have not ended."""
        return tuple(self._costs)

    def expect(self, costs: Mapping[str, float]) -> None:
        """Add the costs of further stages."""
        self._costs |= costs

    def drop(self, digests: Iterable[str]) -> None:
        """Remove stages that will not run."""
        for digest in digests:
            self._costs.pop(digest, None)

    def started(self, digest: str) -> None:
        """Record the start of a stage."""
        if self._first_report is None:
            self._early.add(digest)

    def progressed(self, digest: str, *, epoch: float, epochs: float) -> None:
        """Record the end of an epoch; a resumed stage continues with a later epoch than the first."""
        self._first_report = self._clock() if self._first_report is None else self._first_report
        before, _ = self._fractions.get(digest, ((epoch - (digest not in self._early)) / epochs, 0.0))
        self._fractions[digest] = (before, epoch / epochs)

    def ended(self, digest: str, *, again: bool, finished: bool) -> None:
        """Record the end of a stage, and whether it runs again."""
        self._early.discard(digest)
        before, current = self._fractions.pop(digest, (0.0, 0.0))
        self._trained += self._costs.get(digest, 0.0) * (current - before)
        self._finished |= finished
        if not again:
            self.drop([digest])

    def seconds_left(self) -> float | None:
        """Return the estimated seconds for the known stages; None until the first stage is trained."""
        costs, running = dict(self._costs), tuple(self._fractions.items())
        left = max(0.0, sum(costs.values()) - sum(costs.get(digest, 0.0) * current for digest, (_, current) in running))
        trained = (
            sum(costs.get(digest, 0.0) * (current - before) for digest, (before, current) in running) + self._trained
        )
        if not self._finished or self._first_report is None or (left and trained <= 0):
            return None
        return left * (self._clock() - self._first_report) / trained if left else 0.0


def left_text(seconds: float | None, *, searching: bool) -> str:
    """Return the time left as text.

    Args:
        seconds: None if unknown.
        searching: Whether a search is running, which will add stages.
    """
    if seconds is None:
        return "unknown until this run has trained a stage"
    return f"about {duration(seconds)}" + (" for the planned stages; the search adds more" if searching else "")


def scores_text(scores: Mapping[str, float | None]) -> str:
    """Return the training loss and the most informative validation score as text."""
    shown = [name for name in ("val/mean_iou", "val/auc", "val/distance", "val/loss") if name in scores][:1]
    values = {name: scores.get(name) for name in ("train/loss", *shown)}
    texts = {name: "undefined" if value is None else format(value, ".3f") for name, value in values.items()}
    return "  ".join(f"{name} {text}" for name, text in texts.items())
