"""How fast a study trains, and how long the rest of it takes, both counted in image-epochs."""

import time
from collections.abc import Callable, Iterable, Mapping

from study.monitoring.units import duration


class Pace:
    """Image-epochs that are left, over those trained a second since the first report, all processes together.

    What was before it, such as the start of processes, is not repeated. `costs` are image-epochs by stage, of stages
    that are not over. Another thread may read while this one is told.
    """

    def __init__(self, costs: Mapping[str, float], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._costs, self._clock = dict(costs), clock
        self._began: float | None = None
        self._trained = 0.0
        self._finished = False
        self._early: set[str] = set()
        """Stages that began before the first report, so that their first epoch has no time of its own."""
        self._shares: dict[str, tuple[float, float]] = {}
        """Of running stages, the share that was trained before this run took them up, and by now."""

    @property
    def left(self) -> Iterable[str]:
        """Return the stages that are not over."""
        return tuple(self._costs)

    def expect(self, costs: Mapping[str, float]) -> None:
        """Add stages that come late."""
        self._costs |= costs

    def drop(self, names: Iterable[str]) -> None:
        """Leave stages out that will not run."""
        for name in names:
            self._costs.pop(name, None)

    def started(self, name: str) -> None:
        """Hear that a stage begins."""
        if self._began is None:
            self._early.add(name)

    def progressed(self, name: str, *, epoch: float, epochs: float) -> None:
        """Hear that a running stage ended an epoch; a resumed one does not begin with the first."""
        self._began = self._clock() if self._began is None else self._began
        before, _ = self._shares.get(name, ((epoch - (name not in self._early)) / epochs, 0.0))
        self._shares[name] = (before, epoch / epochs)

    def ended(self, name: str, *, again: bool, finished: bool) -> None:
        """Hear that a stage ended, and whether it runs once more."""
        self._early.discard(name)
        before, by_now = self._shares.pop(name, (0.0, 0.0))
        self._trained += self._costs.get(name, 0.0) * (by_now - before)
        self._finished |= finished
        if not again:
            self.drop([name])

    def seconds_left(self) -> float | None:
        """Return the seconds that the known stages still take; None before the first is trained."""
        costs, running = dict(self._costs), tuple(self._shares.items())
        left = max(0.0, sum(costs.values()) - sum(costs.get(name, 0.0) * by_now for name, (_, by_now) in running))
        trained = sum(costs.get(name, 0.0) * (by_now - before) for name, (before, by_now) in running) + self._trained
        if not self._finished or self._began is None or (left and trained <= 0):
            return None
        return left * (self._clock() - self._began) / trained if left else 0.0


def left_text(seconds: float | None, *, searching: bool) -> str:
    """Return the time left in words. `searching`: a search has not ended, and will bring further stages."""
    if seconds is None:
        return "unknown until this run has trained a stage"
    return f"about {duration(seconds)}" + (" for what is known; the search brings more" if searching else "")


def scores_text(scores: Mapping[str, float | None]) -> str:
    """Return the training loss and the score that tells most of validation."""
    shown = [name for name in ("val/mean_iou", "val/auc", "val/distance", "val/loss") if name in scores][:1]
    told = {name: scores.get(name) for name in ("train/loss", *shown)}
    return "  ".join(f"{name} {'undefined' if value is None else format(value, '.3f')}" for name, value in told.items())
