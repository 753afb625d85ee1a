"""Inference with a fixed test set: over patients, for the trained networks as they are."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from results.statistics.cells import Cells, Numbers
from results.statistics.design import PATIENTS, SIGN_FLIP, SWAP
from results.statistics.estimates import Array, Labels, corrected, group_means, moments, varies
from results.statistics.inference import Comparison, Curve, Inference, by_direction
from results.statistics.notes import FEW_FOR_INTERVAL, FEW_PATIENTS, NOT_TEST, UNDEFINED, few_patients_note, first_note
from results.statistics.patient_level import bootstrap
from results.statistics.patient_level.permutation import p_value, sign_flip_p
from results.statistics.patient_level.sums import FixedSplit, PatientSums, ScoredReplicate, fixed_splits

UNIT = "patient"
MOST_SEEDS_FOR_NONE = 2
"""With so few seeds, or fewer, nothing is claimed of newly trained networks."""
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
        self._known_p: dict[tuple[int, int, int], Array] = {}

    def intervals(self) -> tuple[Array, Array]:
        """Return the ends of the 95 % interval of each row: a bootstrap over patients."""
        low, high = (np.full(len(self.cells.values), np.nan) for _ in range(2))
        for number, split in enumerate(self._splits):
            for cell, sums in split.cells.items():
                rows = self.cells.row_of[cell, _series(split)]
                low[rows], high[rows] = _interval(self._draws(number, cell), _defined(split, sums))
        return low, high

    def claim(self, cell: int) -> tuple[str, str]:
        """Return what the interval of a cell's mean generalises to, and the unit that varied; "" without interval."""
        return (PATIENTS + self.suffix(cell), UNIT) if self.cells.complete[cell] else ("", "")

    def compare(self, cell: int, other: int, series: Numbers) -> Comparison:
        """Compare two complete cells in some series."""
        values = self.cells.values[self.cells.row_of[cell, series]]
        reference = self.cells.values[self.cells.row_of[other, series]]
        differences = values - reference
        mean = moments(differences)[0]
        columns = {name: np.full(len(self.cells.series), np.nan) for name in
                   ("sd", "pairs", "p", "low", "high", "above", "equivalent", "below")}  # fmt: skip
        unequal = np.zeros(len(self.cells.series), dtype=bool)
        for number, split, own, base in self._shared(cell, other):
            where = _series(split)
            draws = self._draws(number, cell) - self._draws(number, other)
            patients = np.minimum(_defined(split, own), _defined(split, base))
            enough = patients >= FEW_FOR_INTERVAL
            rope = np.array([self.design.rope.of(metric) for metric in self.cells.metrics[where]])
            low, high = _interval(draws, patients)
            shares = (np.where(enough, share, np.nan) for share in bootstrap.rope_probabilities(draws, rope))
            answers = (_sd(draws, patients), patients, self._p(number, cell, other), low, high, *shares)
            for name, answer in zip(columns, answers, strict=True):
                columns[name][where] = answer
            unequal[where] = _unequal(split, own, base)
        picked = {name: column[series] for name, column in columns.items()}
        better, equal, worse = by_direction(
            picked["above"], picked["below"], picked["equivalent"], self.cells.directions[series]
        )
        case = (self.cells.series["aggregation"].to_numpy() == "case")[series]
        nothing = np.full(len(series), np.nan)
        comparison = Comparison(
            difference=mean, sd=picked["sd"], pairs=np.nan_to_num(picked["pairs"]), statistic=nothing, freedom=nothing,
            p=picked["p"], stronger=np.maximum(picked["p"], self._seed_p(differences, cell, other)),
            low=picked["low"], high=picked["high"], p_better=better, p_equivalent=equal, p_worse=worse,
            test=np.where(np.isnan(picked["p"]), "", np.where(case, SIGN_FLIP, SWAP)).astype(object),
            unit=np.full(len(series), UNIT, dtype=object),
            generalises_to=np.full(len(series), PATIENTS + self.suffix(cell, other), dtype=object),
            note=self._notes(series, picked["pairs"]),
        )  # fmt: skip
        return comparison.blank(unequal[series], UNDEFINED)

    def _notes(self, series: Numbers, pairs: Array) -> NDArray[np.object_]:
        test = self.cells.is_test[series]
        notes = {NOT_TEST: ~test, NOT_SWAPPED: np.isnan(pairs)}
        for patients in np.unique(pairs[~np.isnan(pairs)]):
            text = few_patients_note(int(patients))
            notes |= {text: pairs == patients} if text else {}
        return first_note(notes)

    def pair_p(self, cell: int, others: Sequence[int], series: Numbers) -> Array:
        """Return p of a complete cell against each of others, (others, series)."""
        p = np.full((len(others), len(self.cells.series)), np.nan)
        for place, other in enumerate(others):
            for number, split, _, _ in self._shared(cell, other):
                p[place, _series(split)] = self._p(number, cell, other)
        return p[:, series]

    def against_curve(self, cell: int, curve: Sequence[int], series: Numbers, weights: Array) -> Curve:
        """Test a cell against the interpolation of a baseline's cells: whether the bootstrap interval has zero."""
        mean = np.zeros((len(weights), len(self.cells.series)))
        rejected = np.zeros(mean.shape, dtype=bool)
        testable = np.zeros(len(self.cells.series), dtype=bool)
        for number, split in enumerate(self._splits):
            if not split.cells.keys() >= {cell, *curve}:
                continue
            where, own = _series(split), self._draws(number, cell)
            reference = np.stack([self._draws(number, other) for other in curve])
            patients = _defined(split, split.cells[cell])
            for point, weight in enumerate(weights):
                low, high = _interval(own - np.tensordot(weight, reference, axes=1), patients)
                rejected[point, where] = (low > 0) | (high < 0)
            unequal = np.stack([_unequal(split, split.cells[cell], split.cells[other]) for other in curve]).any(axis=0)
            testable[where] = (patients >= FEW_FOR_INTERVAL) & ~unequal
        means = moments(self.cells.values)[0]
        for number in series:
            reference = means[self.cells.row_of[list(curve), number]]
            mean[:, number] = means[self.cells.row_of[cell, number]] - weights @ reference
            testable[number] &= not np.isnan(reference).any()
        return Curve(mean=mean[:, series], rejected=rejected[:, series], testable=testable[series])

    def _shared(self, cell: int, other: int) -> Iterator[tuple[int, FixedSplit, PatientSums, PatientSums]]:
        for number, split in enumerate(self._splits):
            if cell in split.cells and other in split.cells:
                yield number, split, split.cells[cell], split.cells[other]

    def _bootstrap(self, number: int, cell: int) -> Array:
        """Return the metrics of each draw of patients, (draws, series of the split)."""
        split = self._splits[number]
        sums, weights = split.cells[cell], bootstrap.patient_weights(split.patients)
        case = split.case_metrics(weights @ sums.values, weights @ sums.defined)
        return np.concatenate([case, split.pooled_metrics(np.tensordot(weights, sums.pixels, axes=1))], axis=1)

    def _p(self, number: int, cell: int, other: int) -> Array:
        """Return p of each series of a split; both arms give the same, so each pair is tested once."""
        key = (number, min(cell, other), max(cell, other))
        if key not in self._known_p:
            split = self._splits[number]
            self._known_p[key] = self._permuted_p(split, split.cells[cell], split.cells[other])
        return self._known_p[key]

    def _permuted_p(self, split: FixedSplit, own: PatientSums, base: PatientSums) -> Array:
        """Return p of each series of a split; NaN with fewer than six patients, or undefined in other images."""
        case = sign_flip_p(own.values - base.values)
        total, half = (own.pixels + base.pixels).sum(axis=0) / 2, (own.pixels - base.pixels) / 2
        swapped = _swapped_difference(split, total, half)
        observed = split.pooled_metrics(own.pixels.sum(axis=0)) - split.pooled_metrics(base.pixels.sum(axis=0))
        pooled = p_value(swapped, observed, split.patients, columns=4 * total.size)
        few = np.minimum(_defined(split, own), _defined(split, base)) < FEW_PATIENTS
        return np.where(few | _unequal(split, own, base), np.nan, np.concatenate([case, pooled]))

    def _seed_p(self, differences: Array, cell: int, other: int) -> Array:
        """Return p of a corrected t-test over the means of seeds, and over those of pretraining runs; the largest.

        NaN below three seeds or pretraining runs, and where all seeds train on the same images.
        """
        ratio = max(self._shared_training(one) for one in (cell, other))
        if np.isinf(ratio):
            return np.full(len(differences), np.nan)
        groupings = {*self.cells.groupings[cell], *self.cells.groupings[other], _labels(self.cells.seed)}
        p = np.full(len(differences), 0.0)
        for labels in groupings:
            if len(set(labels)) <= MOST_SEEDS_FOR_NONE:
                return np.full(len(differences), np.nan)
            p = np.maximum(p, corrected(group_means(differences, labels), ratio).p)
        return p

    def _shared_training(self, cell: int) -> float:
        """Return the variance that the seeds' training images have in common, as a ratio to that between seed means.

        Seeds draw a share f of the same pool without replacement, once for each of K folds: a mean over these draws
        varies by V (1 - f) / (K f) within the pool, the pool itself by V. Infinite where all seeds use the whole pool.
        """
        share = float(self.cells.cells["labelled_fraction"].iloc[cell])
        if self.design.fixed_split or share >= 1:
            return float("inf")
        return self.design.folds * share / (1 - share)


def _swapped_difference(split: FixedSplit, total: Array, half: Array) -> Callable[[Array], Array]:
    def difference(patterns: Array) -> Array:
        moved = np.tensordot(patterns, half, axes=1)
        return split.pooled_metrics(total + moved) - split.pooled_metrics(total - moved)

    return difference


def _series(split: FixedSplit) -> Numbers:
    return np.concatenate([split.case_series, split.pooled_series])


def _defined(split: FixedSplit, sums: PatientSums) -> Numbers:
    """Return how many patients define each series of a split."""
    case = (sums.defined > 0).sum(axis=0)
    return np.concatenate([case, np.full(len(split.pooled_series), split.patients)])


def _unequal(split: FixedSplit, own: PatientSums, base: PatientSums) -> NDArray[np.bool_]:
    """Return which series other images of the one cell define than of the other: their sums are not comparable."""
    case = (own.defined != base.defined).any(axis=0)
    return np.concatenate([case, np.zeros(len(split.pooled_series), dtype=bool)])


def _interval(draws: Array, patients: Numbers) -> tuple[Array, Array]:
    low, high = bootstrap.interval(draws, patients)
    few = patients < FEW_FOR_INTERVAL
    return np.where(few, np.nan, low), np.where(few, np.nan, high)


def _sd(draws: Array, patients: Numbers) -> Array:
    """Return the standard deviation of a patient's difference that the bootstrap's standard error implies."""
    mean, sd, _ = moments(draws.T)
    return np.where(varies(sd, mean), sd, np.nan) * np.sqrt(patients)


def _labels(numbers: Numbers) -> Labels:
    return tuple(np.unique(numbers, return_inverse=True)[1].tolist())
