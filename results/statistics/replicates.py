"""Inference with cross-validation: over folds and seeds, and over pretraining runs that folds share."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from results.metrics.formulas import FloatArray
from results.schema import NON_NEGATIVE, UNIT_INTERVAL
from results.statistics.cells import Cells, IntArray
from results.statistics.design import CORRECTED, ONE_RUN, SHARED, TRAINING
from results.statistics.estimates import Estimates, Labels, corrected, varies
from results.statistics.inference import (
    Comparison,
    Curve,
    CurvePoint,
    Inference,
    PointDifference,
    PointEstimate,
    by_direction,
)
from results.statistics.notes import CONSTANT, NO_PAIR, NOT_TEST, TOO_FEW, UNDEFINED, first_note, one_run_note

FOLDS, SEEDS = "fold and seed", "seed"


class ReplicateInference(Inference):
    """Nadeau and Bengio's corrected resampled t over replicates.

    Where folds share pretraining runs, a paired t over the means of runs is added: p is the larger and the interval
    the wider of the two. With one run there is no p, as its variance cannot be estimated.
    """

    def __init__(self, cells: Cells) -> None:
        super().__init__(cells)
        self._ratio = self.design.test_to_training

    def intervals(self) -> tuple[FloatArray, FloatArray]:
        """Return the ends of the 95 % interval of each row: on the logit for metrics within 0..1.

        NaN for cells that lack replicates and for validation images.
        """
        low, high = (np.full(len(self.cells.values), np.nan) for _ in range(2))
        metrics = self.cells.metrics[self.cells.series_of]
        for groupings, rows in self._rows_by_groupings():
            low[rows], high[rows] = _interval(self._estimate(self.cells.values[rows], groupings), metrics[rows])
        return low, high

    def _rows_by_groupings(self) -> Iterable[tuple[list[Labels], IntArray]]:
        """Yield groups of rows with equal groupings; groupings with a single run are omitted."""
        by_groupings: dict[frozenset[Labels], list[int]] = {}
        for cell in np.flatnonzero(self.cells.complete).tolist():
            groupings = frozenset(labels for labels in self.cells.groupings[cell] if max(labels))
            by_groupings.setdefault(groupings, []).append(cell)
        is_test = self.cells.is_test[self.cells.series_of]
        for groupings, cells in by_groupings.items():
            yield sorted(groupings), np.flatnonzero(np.isin(self.cells.cell_of, cells) & is_test)

    def _estimate(self, values: FloatArray, groupings: Iterable[Labels]) -> Estimates:
        repeated = tuple(self.cells.fold.tolist()) if self.design.fixed_split else None
        return corrected(values, self._ratio, sorted(groupings), repeated)

    def claim(self, cell: int) -> tuple[str, str]:
        """Return the claim of the interval of a cell's mean, and the unit that varied; "" without interval."""
        if not self.cells.complete[cell]:
            return "", ""
        return _claim(self.cells.groupings[cell]) + self.suffix(cell), FOLDS

    def compare(self, cell: int, reference: int, series: IntArray) -> Comparison:
        """Compare two complete cells in the given series."""
        values, reference_values = self._values(cell, series), self._values(reference, series)
        groupings = self.cells.groupings[cell] | self.cells.groupings[reference]
        estimates = self._estimate(values - reference_values, groupings)
        unequal = (np.isnan(values) != np.isnan(reference_values)).any(axis=1)
        runs = min((max(labels) + 1 for labels in groupings), default=0)
        claim = _claim(groupings)
        by_run = estimates.decided_by > 0
        low, high = _clipped(estimates, self.cells.metrics[series])
        metrics = self.cells.metrics[series]
        rope = np.array([self.design.rope.half_width(metric) for metric in metrics])
        above, equivalent, below = estimates.posterior(rope)
        better, equal, worse = by_direction(above, below, equivalent, self.cells.directions[series])
        nan = np.full(len(series), np.nan)
        notes = {
            NO_PAIR: estimates.pairs == 0,
            TOO_FEW: estimates.pairs == 1,
            CONSTANT: ~varies(estimates.sd, estimates.mean),
            one_run_note(runs, self.design.seeds): np.full(len(series), runs == 1),
        }
        comparison = Comparison(
            difference=estimates.mean, sd=estimates.sd, pairs=estimates.pairs, statistic=estimates.statistic,
            freedom=estimates.decisive_freedom, p=estimates.p, stronger=nan, low=low, high=high, p_better=better,
            p_equivalent=equal, p_worse=worse,
            test=np.where(np.isnan(estimates.p), "", SHARED if groupings else CORRECTED).astype(object),
            unit=np.where(by_run & (runs > 1), SEEDS, FOLDS).astype(object),
            generalises_to=np.full(len(series), claim + self.suffix(cell, reference), dtype=object),
            note=first_note(notes),
        )  # fmt: skip
        return comparison.blank(unequal, UNDEFINED).blank(~self.cells.is_test[series], NOT_TEST)

    def pair_p(self, cell: int, references: Sequence[int], series: IntArray) -> FloatArray:
        """Return p of a complete cell against each reference cell, (references, series)."""
        p = np.full((len(references), len(series)), np.nan)
        values = self._values(cell, series)
        by_groupings: dict[frozenset[Labels], list[int]] = {}
        for index, reference in enumerate(references):
            by_groupings.setdefault(self.cells.groupings[cell] | self.cells.groupings[reference], []).append(index)
        for groupings, indices in by_groupings.items():
            reference_values = np.stack([self._values(references[index], series) for index in indices])
            estimates = self._estimate(values - reference_values, groupings)
            unequal = (np.isnan(values) != np.isnan(reference_values)).any(axis=-1)
            p[indices] = np.where(unequal | ~self.cells.is_test[series], np.nan, estimates.p)
        return p

    def against_curve(self, cell: int, curve: Sequence[int], series: IntArray, weights: FloatArray) -> Curve:
        """Test a cell against the interpolation of a baseline's cells within each replicate."""
        values = self._values(cell, series)
        curve_values = np.stack([self._values(curve_cell, series) for curve_cell in curve])
        groupings = frozenset().union(*(self.cells.groupings[number] for number in (cell, *curve)))
        testable = self.cells.is_test[series] & ~(np.isnan(values) != np.isnan(curve_values)).any(axis=(0, 2))
        # Points are the first axis, so that one multiplication interpolates all replicates.
        interpolated = np.tensordot(weights, np.nan_to_num(curve_values), axes=1)
        estimates = self._estimate(np.where(np.isnan(values), np.nan, values - interpolated), groupings)
        p = estimates.p
        return Curve(mean=estimates.mean, rejected=p < 0.05, testable=testable & ~np.isnan(p).any(axis=0))

    def estimate_point(self, point: CurvePoint, series: IntArray) -> PointEstimate:
        """Estimate the metrics at a point of a learning curve, interpolated within each replicate."""
        groupings = [labels for labels in self._groupings(point) if max(labels)]
        estimates = self._estimate(self._point_values(point, series), groupings)
        is_test = self.cells.is_test[series]
        ends = _interval(estimates, self.cells.metrics[series])
        low, high = (np.where(is_test, end, np.nan) for end in ends)
        return PointEstimate(estimates.mean, low, high)

    def compare_points(self, first: CurvePoint, second: CurvePoint, series: IntArray) -> PointDifference:
        """Test the difference between two points within each replicate."""
        values, reference_values = self._point_values(first, series), self._point_values(second, series)
        estimates = self._estimate(values - reference_values, self._groupings(first) | self._groupings(second))
        unequal = (np.isnan(values) != np.isnan(reference_values)).any(axis=1)
        p = np.where(unequal | ~self.cells.is_test[series], np.nan, estimates.p)
        return PointDifference(estimates.mean, p)

    def _point_values(self, point: CurvePoint, series: IntArray) -> FloatArray:
        """Return the interpolated metrics of each replicate, (series, replicates)."""
        return np.tensordot(point.weights, np.stack([self._values(cell, series) for cell in point.cells]), axes=1)

    def _groupings(self, point: CurvePoint) -> frozenset[Labels]:
        return frozenset().union(*(self.cells.groupings[cell] for cell in point.cells))

    def _values(self, cell: int, series: IntArray) -> FloatArray:
        values: FloatArray = self.cells.values[self.cells.row_of[cell, series]]
        return values


def _claim(groupings: Iterable[Labels]) -> str:
    return ONE_RUN if any(not max(labels) for labels in groupings) else TRAINING


def _interval(estimates: Estimates, metrics: "np.ndarray[Any, np.dtype[np.object_]]") -> tuple[FloatArray, FloatArray]:
    """Return the interval of means: on the logit for metrics within 0..1, from 0 for other non-negative ones."""
    bounded, non_negative = (np.isin(metrics, list(names)) for names in (UNIT_INTERVAL, NON_NEGATIVE))
    plain, logit = estimates.interval(), estimates.logit_interval()
    low, high = (np.where(bounded, b, p) for b, p in zip(logit, plain, strict=True))
    return np.where(non_negative, np.maximum(low, 0.0), low), high


def _clipped(
    estimates: Estimates, metrics: "np.ndarray[tuple[int], np.dtype[np.object_]]"
) -> tuple[FloatArray, FloatArray]:
    """Return the interval of differences, clipped to -1..1 for metrics within 0..1."""
    low, high = estimates.interval()
    bounded = np.isin(metrics, list(UNIT_INTERVAL))
    return np.where(bounded, np.maximum(low, -1.0), low), np.where(bounded, np.minimum(high, 1.0), high)
