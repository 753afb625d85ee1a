"""Interface of inference under both designs, and the comparison of two cells."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from results.metrics.formulas import FloatArray
from results.statistics.cells import Cells, IntArray
from results.statistics.design import AT_SETTINGS
from results.statistics.notes import TextArray


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """A cell compared with a reference cell, arrays over series; NaN and "" where undefined.

    `p_better`, `p_equivalent` and `p_worse` follow the direction of the metric; NaN where it has none. `stronger`
    is the p of a stronger claim, NaN where the design does not support one.
    """

    difference: FloatArray
    sd: FloatArray
    pairs: FloatArray
    statistic: FloatArray
    freedom: FloatArray
    p: FloatArray
    stronger: FloatArray
    low: FloatArray
    high: FloatArray
    p_better: FloatArray
    p_equivalent: FloatArray
    p_worse: FloatArray
    test: TextArray
    unit: TextArray
    generalises_to: TextArray
    note: TextArray

    def blank(self, where: NDArray[np.bool_], note: str) -> Self:
        """Return a copy without results in the series of the mask `where`, with a note on the reason."""
        numbers = ("statistic", "freedom", "p", "stronger", "low", "high", "p_better", "p_equivalent", "p_worse")
        blanked: dict[str, Any] = {name: np.where(where, np.nan, getattr(self, name)) for name in numbers}
        return replace(
            self, **blanked, test=np.where(where, "", self.test), note=np.where(where, note, self.note).astype(object)
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Curve:
    """A cell minus the interpolated curve of its baseline, arrays (points, series)."""

    mean: FloatArray
    rejected: NDArray[np.bool_]
    """Whether a mean of zero is rejected at the 5 % level."""
    testable: NDArray[np.bool_]
    """(series,)"""


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """A point on the learning curve of an arm: the weighted mean of its cells; weights are above 0 and sum to 1."""

    cells: tuple[int, ...]
    weights: tuple[float, ...]

    @classmethod
    def interpolated(cls, cells: Sequence[int], abscissae: FloatArray, at: float) -> Self:
        """Return the linear interpolation of cells, whose abscissae increase, at a value within their range."""
        weights = [float(np.interp(at, abscissae, unit)) for unit in np.eye(len(cells))]
        used = [(cell, weight) for cell, weight in zip(cells, weights, strict=True) if weight > 0]
        return cls(cells=tuple(cell for cell, _ in used), weights=tuple(weight for _, weight in used))


class PointEstimate(NamedTuple):
    """Mean and 95 % interval of the metrics at a point of a learning curve, arrays over series."""

    mean: FloatArray
    low: FloatArray
    high: FloatArray


class PointDifference(NamedTuple):
    """Difference between two points of learning curves and its p, arrays over series."""

    difference: FloatArray
    p: FloatArray


class Inference(ABC):
    """Intervals and tests under one design."""

    def __init__(self, cells: Cells) -> None:
        self.cells = cells
        self.design = cells.design

    @abstractmethod
    def intervals(self) -> tuple[FloatArray, FloatArray]:
        """Return the ends of the 95 % interval of the mean of each row."""

    @abstractmethod
    def claim(self, cell: int) -> tuple[str, str]:
        """Return the claim of the interval of a cell's mean, and the unit that varied."""

    @abstractmethod
    def compare(self, cell: int, reference: int, series: IntArray) -> Comparison:
        """Compare two complete cells in the given series."""

    @abstractmethod
    def pair_p(self, cell: int, references: Sequence[int], series: IntArray) -> FloatArray:
        """Return p of a complete cell against each reference cell, (references, series), of the weaker claim."""

    @abstractmethod
    def against_curve(self, cell: int, curve: Sequence[int], series: IntArray, weights: FloatArray) -> Curve:
        """Test a cell against the interpolation of a baseline's cells; `weights` (points, curve) sum to 1."""

    @abstractmethod
    def estimate_point(self, point: CurvePoint, series: IntArray) -> PointEstimate:
        """Estimate the metrics at a point of a learning curve, interpolated within each replicate or draw."""

    @abstractmethod
    def compare_points(self, first: CurvePoint, second: CurvePoint, series: IntArray) -> PointDifference:
        """Test the difference between two points; p is NaN where it cannot be tested."""

    def suffix(self, *cells: int) -> str:
        """Return the addition to a claim if a search selected the settings of any of the cells."""
        arms = {self.cells.arm_keys[cell] for cell in cells}
        return AT_SETTINGS if arms.intersection(self.design.tuned) else ""


def by_direction(
    above: FloatArray, below: FloatArray, equivalent: FloatArray, direction: NDArray[np.int64]
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the probabilities of better, equivalent and worse; NaN for metrics without a direction."""
    known = direction != 0
    better = np.where(direction > 0, above, below)
    worse = np.where(direction > 0, below, above)
    return (
        np.where(known, better, np.nan),
        np.where(known, equivalent, np.nan),
        np.where(known, worse, np.nan),
    )
