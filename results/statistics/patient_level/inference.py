"""Inference with a fixed test set: over patients, for the trained networks."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from results.metrics.formulas import FloatArray
from results.statistics.cells import Cells, IntArray
from results.statistics.design import PATIENTS, SIGN_FLIP, SWAP
from results.statistics.estimates import Labels, corrected, group_means, moments, varies
from results.statistics.inference import (
    Comparison,
    Curve,
    CurvePoint,
    Inference,
    PointDifference,
    PointEstimate,
    by_direction,
)
from results.statistics.notes import FEW_FOR_INTERVAL, FEW_PATIENTS, NOT_TEST, UNDEFINED, few_patients_note, first_note
from results.statistics.patient_level import bootstrap
from results.statistics.patient_level.permutation import p_value, sign_flip_p
from results.statistics.patient_level.sums import FixedSplit, PatientSums, ScoredReplicate, fixed_splits

UNIT = "patient"
MAX_SEEDS_WITHOUT_CLAIM = 2
"""Up to this number of seeds nothing is claimed about newly trained networks."""
NOT_SWAPPED = "not tested over patients when pooled; see aggregation case"


class PatientInference(Inference):
    """Permutation tests and a bootstrap over patients; networks are held fixed.

    Per-case metrics: replicates are averaged per image, the sums of a patient's differences change sign. Pooled
    metrics: a patient's counts are swapped between the arms, in all replicates at once. Equal procedures with
    training noise differ as networks, so the claim is about these models; the stronger claim, about newly trained
    ones, needs three seeds that do not all train on the same images.
    """

    def __init__(self, cells: Cells, scored: Iterable[ScoredReplicate]) -> None:
        super().__init__(cells)
        self._splits = fixed_splits(cells, scored)
        self._draws = lru_cache(maxsize=256)(self._bootstrap)
        self._known_p: dict[tuple[int, int, int], FloatArray] = {}

    def intervals(self) -> tuple[FloatArray, FloatArray]:
        """Return the ends of the 95 % interval of each row: a bootstrap over patients."""
        low, high = (np.full(len(self.cells.values), np.nan) for _ in range(2))
        for number, split in enumerate(self._splits):
            for cell, sums in split.cells.items():
                rows = self.cells.row_of[cell, _series(split)]
                low[rows], high[rows] = _interval(self._draws(number, cell), _defined(split, sums))
        return low, high

    def claim(self, cell: int) -> tuple[str, str]:
        """Return the claim of the interval of a cell's mean, and the unit that varied; "" without interval."""
        return (PATIENTS + self.suffix(cell), UNIT) if self.cells.complete[cell] else ("", "")

    def compare(self, cell: int, reference: int, series: IntArray) -> Comparison:
        """Compare two complete cells in the given series."""
        values = self.cells.values[self.cells.row_of[cell, series]]
        reference_values = self.cells.values[self.cells.row_of[reference, series]]
        differences = values - reference_values
        mean = moments(differences)[0]
        columns = {name: np.full(len(self.cells.series), np.nan) for name in
                   ("sd", "pairs", "p", "low", "high", "above", "equivalent", "below")}  # fmt: skip
        unequal = np.zeros(len(self.cells.series), dtype=bool)
        for number, split, sums, ref_sums in self._common_splits(cell, reference):
            split_series = _series(split)
            draws = self._draws(number, cell) - self._draws(number, reference)
            patients = np.minimum(_defined(split, sums), _defined(split, ref_sums))
            enough = patients >= FEW_FOR_INTERVAL
            rope = np.array([self.design.rope.half_width(metric) for metric in self.cells.metrics[split_series]])
            low, high = _interval(draws, patients)
            probabilities = (np.where(enough, share, np.nan) for share in bootstrap.rope_probabilities(draws, rope))
            results = (_sd(draws, patients), patients, self._p(number, cell, reference), low, high, *probabilities)
            for name, result in zip(columns, results, strict=True):
                columns[name][split_series] = result
            unequal[split_series] = _unequal(split, sums, ref_sums)
        selected = {name: column[series] for name, column in columns.items()}
        better, equal, worse = by_direction(
            selected["above"], selected["below"], selected["equivalent"], self.cells.directions[series]
        )
        is_case = (self.cells.series["aggregation"].to_numpy() == "case")[series]
        nan = np.full(len(series), np.nan)
        comparison = Comparison(
            difference=mean, sd=selected["sd"], pairs=np.nan_to_num(selected["pairs"]), statistic=nan, freedom=nan,
            p=selected["p"], stronger=np.maximum(selected["p"], self._seed_p(differences, cell, reference)),
            low=selected["low"], high=selected["high"], p_better=better, p_equivalent=equal, p_worse=worse,
            test=np.where(np.isnan(selected["p"]), "", np.where(is_case, SIGN_FLIP, SWAP)).astype(object),
            unit=np.full(len(series), UNIT, dtype=object),
            generalises_to=np.full(len(series), PATIENTS + self.suffix(cell, reference), dtype=object),
            note=self._notes(series, selected["pairs"]),
        )  # fmt: skip
        return comparison.blank(unequal[series], UNDEFINED)

    def _notes(self, series: IntArray, pairs: FloatArray) -> NDArray[np.object_]:
        test = self.cells.is_test[series]
        notes = {NOT_TEST: ~test, NOT_SWAPPED: np.isnan(pairs)}
        for patients in np.unique(pairs[~np.isnan(pairs)]):
            text = few_patients_note(int(patients))
            notes |= {text: pairs == patients} if text else {}
        return first_note(notes)

    def pair_p(self, cell: int, references: Sequence[int], series: IntArray) -> FloatArray:
        """Return p of a complete cell against each reference cell, (references, series)."""
        p = np.full((len(references), len(self.cells.series)), np.nan)
        for index, reference in enumerate(references):
            for number, split, _, _ in self._common_splits(cell, reference):
                p[index, _series(split)] = self._p(number, cell, reference)
        return p[:, series]

    def against_curve(self, cell: int, curve: Sequence[int], series: IntArray, weights: FloatArray) -> Curve:
        """Test a cell against the interpolation of a baseline's cells: rejects if the bootstrap interval excludes 0."""
        mean = np.zeros((len(weights), len(self.cells.series)))
        rejected = np.zeros(mean.shape, dtype=bool)
        testable = np.zeros(len(self.cells.series), dtype=bool)
        for number, split in enumerate(self._splits):
            if not split.cells.keys() >= {cell, *curve}:
                continue
            split_series, draws = _series(split), self._draws(number, cell)
            curve_draws = np.stack([self._draws(number, curve_cell) for curve_cell in curve])
            patients = _defined(split, split.cells[cell])
            for point, weight in enumerate(weights):
                low, high = _interval(draws - np.tensordot(weight, curve_draws, axes=1), patients)
                rejected[point, split_series] = (low > 0) | (high < 0)
            unequal = np.stack([_unequal(split, split.cells[cell], split.cells[number]) for number in curve])
            testable[split_series] = (patients >= FEW_FOR_INTERVAL) & ~unequal.any(axis=0)
        means = moments(self.cells.values)[0]
        for number in series:
            curve_means = means[self.cells.row_of[list(curve), number]]
            mean[:, number] = means[self.cells.row_of[cell, number]] - weights @ curve_means
            testable[number] &= not np.isnan(curve_means).any()
        return Curve(mean=mean[:, series], rejected=rejected[:, series], testable=testable[series])

    def estimate_point(self, point: CurvePoint, series: IntArray) -> PointEstimate:
        """Estimate the metrics at a point of a learning curve, interpolated within each draw of patients."""
        low, high = (np.full(len(self.cells.series), np.nan) for _ in range(2))
        for number, split in self._splits_with(point.cells):
            ends = _interval(self._point_draws(number, point), _fewest_defined(split, point.cells))
            low[_series(split)], high[_series(split)] = ends
        return PointEstimate(self._point_means(point, series), low[series], high[series])

    def compare_points(self, first: CurvePoint, second: CurvePoint, series: IntArray) -> PointDifference:
        """Test the difference between two points by the bootstrap over patients."""
        cells = (*first.cells, *second.cells)
        p = np.full(len(self.cells.series), np.nan)
        for number, split in self._splits_with(cells):
            draws = self._point_draws(number, first) - self._point_draws(number, second)
            patients = _fewest_defined(split, cells)
            unequal = np.stack([_unequal(split, split.cells[cells[0]], split.cells[cell]) for cell in cells])
            untestable = (patients < FEW_FOR_INTERVAL) | unequal.any(axis=0)
            p[_series(split)] = np.where(untestable, np.nan, bootstrap.p_value(draws, patients))
        difference = self._point_means(first, series) - self._point_means(second, series)
        return PointDifference(difference, np.where(np.isnan(difference), np.nan, p[series]))

    def _splits_with(self, cells: Sequence[int]) -> Iterator[tuple[int, FixedSplit]]:
        return ((number, split) for number, split in enumerate(self._splits) if split.cells.keys() >= {*cells})

    def _point_draws(self, number: int, point: CurvePoint) -> FloatArray:
        """Return the interpolated metrics of each draw of patients, (draws, series of the split)."""
        return np.tensordot(point.weights, np.stack([self._draws(number, cell) for cell in point.cells]), axes=1)

    def _point_means(self, point: CurvePoint, series: IntArray) -> FloatArray:
        means = np.stack([moments(self.cells.values[self.cells.row_of[cell, series]])[0] for cell in point.cells])
        return np.tensordot(point.weights, means, axes=1)

    def _common_splits(self, cell: int, reference: int) -> Iterator[tuple[int, FixedSplit, PatientSums, PatientSums]]:
        for number, split in enumerate(self._splits):
            if cell in split.cells and reference in split.cells:
                yield number, split, split.cells[cell], split.cells[reference]

    def _bootstrap(self, number: int, cell: int) -> FloatArray:
        """Return the metrics of each draw of patients, (draws, series of the split)."""
        split = self._splits[number]
        sums, weights = split.cells[cell], bootstrap.patient_weights(split.patients)
        case = split.case_metrics(weights @ sums.values, weights @ sums.defined)
        return np.concatenate([case, split.pooled_metrics(np.tensordot(weights, sums.pixels, axes=1))], axis=1)

    def _p(self, number: int, cell: int, reference: int) -> FloatArray:
        """Return p of each series of a split, cached for both orders of the pair."""
        key = (number, min(cell, reference), max(cell, reference))
        if key not in self._known_p:
            split = self._splits[number]
            self._known_p[key] = self._permuted_p(split, split.cells[cell], split.cells[reference])
        return self._known_p[key]

    def _permuted_p(self, split: FixedSplit, sums: PatientSums, ref_sums: PatientSums) -> FloatArray:
        """Return p of each series of a split; NaN with fewer than six patients or unequal sets of defined images."""
        case = sign_flip_p(sums.values - ref_sums.values)
        total, half = (sums.pixels + ref_sums.pixels).sum(axis=0) / 2, (sums.pixels - ref_sums.pixels) / 2
        swapped = _swapped_difference(split, total, half)
        observed = split.pooled_metrics(sums.pixels.sum(axis=0)) - split.pooled_metrics(ref_sums.pixels.sum(axis=0))
        pooled = p_value(swapped, observed, split.patients, columns=4 * total.size)
        few = np.minimum(_defined(split, sums), _defined(split, ref_sums)) < FEW_PATIENTS
        return np.where(few | _unequal(split, sums, ref_sums), np.nan, np.concatenate([case, pooled]))

    def _seed_p(self, differences: FloatArray, cell: int, reference: int) -> FloatArray:
        """Return the largest p of corrected t-tests over the means of seeds and of pretraining runs.

        NaN below three seeds or pretraining runs, and where all seeds train on the same images.
        """
        ratio = max(self._shared_training(number) for number in (cell, reference))
        if np.isinf(ratio):
            return np.full(len(differences), np.nan)
        groupings = {*self.cells.groupings[cell], *self.cells.groupings[reference], _labels(self.cells.seed)}
        p = np.full(len(differences), 0.0)
        for labels in groupings:
            if len(set(labels)) <= MAX_SEEDS_WITHOUT_CLAIM:
                return np.full(len(differences), np.nan)
            p = np.maximum(p, corrected(group_means(differences, labels), ratio).p)
        return p

    def _shared_training(self, cell: int) -> float:
        """Return the variance shared by the seeds' training images, as a ratio to that between seed means.

        Seeds draw a fraction f of the same pool without replacement, once for each of K folds: a mean over these draws
        varies by V (1 - f) / (K f) within the pool, the pool itself by V. Infinite where all seeds use the whole pool.
        """
        fraction = float(self.cells.cells["labelled_fraction"].iloc[cell])
        if self.design.fixed_split or fraction >= 1:
            return float("inf")
        return self.design.folds * fraction / (1 - fraction)


def _swapped_difference(split: FixedSplit, total: FloatArray, half: FloatArray) -> Callable[[FloatArray], FloatArray]:
    def difference(patterns: FloatArray) -> FloatArray:
        swapped = np.tensordot(patterns, half, axes=1)
        return split.pooled_metrics(total + swapped) - split.pooled_metrics(total - swapped)

    return difference


def _series(split: FixedSplit) -> IntArray:
    return np.concatenate([split.case_series, split.pooled_series])


def _defined(split: FixedSplit, sums: PatientSums) -> IntArray:
    """Return the number of patients with a defined value, for each series of a split."""
    case = (sums.defined > 0).sum(axis=0)
    return np.concatenate([case, np.full(len(split.pooled_series), split.patients)])


def _fewest_defined(split: FixedSplit, cells: Sequence[int]) -> IntArray:
    """Return the smallest number of patients with a defined value in any of the cells, by series of a split."""
    fewest: IntArray = np.min([_defined(split, split.cells[cell]) for cell in cells], axis=0)
    return fewest


def _unequal(split: FixedSplit, sums: PatientSums, ref_sums: PatientSums) -> NDArray[np.bool_]:
    """Return which series are defined on different images in the two cells: their sums are not comparable."""
    case = (sums.defined != ref_sums.defined).any(axis=0)
    return np.concatenate([case, np.zeros(len(split.pooled_series), dtype=bool)])


def _interval(draws: FloatArray, patients: IntArray) -> tuple[FloatArray, FloatArray]:
    low, high = bootstrap.interval(draws, patients)
    few = patients < FEW_FOR_INTERVAL
    return np.where(few, np.nan, low), np.where(few, np.nan, high)


def _sd(draws: FloatArray, patients: IntArray) -> FloatArray:
    """Return the standard deviation of a patient's difference, derived from the bootstrap's standard error."""
    mean, sd, _ = moments(draws.T)
    return np.where(varies(sd, mean), sd, np.nan) * np.sqrt(patients)


def _labels(numbers: IntArray) -> Labels:
    return tuple(np.unique(numbers, return_inverse=True)[1].tolist())
