"""Updates and images a second of running stages, from the reports at the end of their epochs."""

import time
from collections.abc import Callable
from typing import NamedTuple


class Rate(NamedTuple):
    """Updates of the weights and training images per second."""

    updates: float
    images: float


class _Report(NamedTuple):
    time: float
    epoch: float
    updates: float


class StageRates:
    """Rates of running stages, measured between the first and the last report of each.

    Of a stage with a single report it is the rate since the start, which includes the preparation of the stage; a
    resumed stage has none before its second report.

    Args:
        clock: Returns seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started: dict[str, float] = {}
        self._reports: dict[str, tuple[_Report, _Report]] = {}

    def started(self, stage: str) -> None:
        """Record the start of a stage."""
        self._started[stage] = self._clock()

    def progressed(self, stage: str, *, epoch: float, updates: float) -> None:
        """Record the end of an epoch, and the number of updates so far."""
        report = _Report(self._clock(), epoch, updates)
        first, _ = self._reports.get(stage) or (report, report)
        self._reports[stage] = (first, report)

    def ended(self, stage: str) -> None:
        """Forget a stage."""
        self._started.pop(stage, None)
        self._reports.pop(stage, None)

    def rate(self, stage: str, *, epochs: float, image_epochs: float) -> Rate | None:
        """Return the rate of a stage; None if it is unknown.

        Args:
            stage: The stage.
            epochs: Number of epochs of the stage.
            image_epochs: Number of training images times epochs of the stage.
        """
        if stage not in self._reports:
            return None
        first, last = self._reports[stage]
        if first == last and last.epoch == 1 and stage in self._started:
            first = _Report(self._started[stage], 0.0, 0.0)
        seconds = last.time - first.time
        if seconds <= 0 or last.epoch == first.epoch:
            return None
        images = image_epochs * (last.epoch - first.epoch) / epochs
        return Rate(updates=(last.updates - first.updates) / seconds, images=images / seconds)


def rate_text(updates: float | None, images: float | None) -> str:
    """Return rates as text, empty if they are unknown."""
    return "" if updates is None or images is None else f"{updates:.3g} updates/s, {images:.3g} images/s"
