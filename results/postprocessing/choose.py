"""Choose post-processing on validation images: the value with the best mean Dice.

The Dice of an image or volume whose truth and mask are both empty is 1. Of equally good values the one that changes
masks least is chosen.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.score_bins import THRESHOLD_STEPS, first_bins
from results.metrics.formulas import FloatArray
from results.postprocessing.rules import EmptyMaskRule

Numbers = NDArray[np.int64]
STEP = 10
"""Thresholds are multiples of 10 / 200 = 0.05."""
MAX_AREAS = 200
"""Maximum number of areas that are compared."""
MIN_GAIN = 1e-9
"""Differences of mean Dice below this are rounding errors."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CaseComponents:
    """The components of the mask of a class in an image or a volume.

    Attributes:
        sizes: (components,) number of pixels.
        tp: (components,) number of labelled pixels inside the true mask.
        fp: (components,) number of labelled pixels outside of it.
        truth: Number of labelled pixels of the true mask.
    """

    sizes: Numbers
    tp: Numbers
    fp: Numbers
    truth: int

    def dice(self, kept: NDArray[np.bool_]) -> float:
        """Return the Dice coefficient of a mask with some of the components; 1 if it is correctly empty."""
        tp, fp = int(self.tp[kept].sum()), int(self.fp[kept].sum())
        return 2 * tp / (tp + fp + self.truth) if tp + fp + self.truth else 1.0


def choose_empty_rule(
    positives: FloatArray, negatives: FloatArray, *, threshold: float, pixels: FloatArray | None = None
) -> EmptyMaskRule | None:
    """Return the empty-mask rule of a class; None if none is better than masks from `threshold` on.

    Args:
        positives: (cases, bins) histograms of the scores of positive pixels, in the bins of `models.score_bins`.
        negatives: The same of negative pixels.
        threshold: The threshold without the rule, a multiple of 0.005.
        pixels: The same of all pixels, with and without a label, if these are more.
    """
    reached = [_from_bin(part) for part in (positives, negatives)]
    areas_from = reached[0] + reached[1] if pixels is None else _from_bin(pixels)
    edges = first_bins(positives.shape[1])
    truth = positives.sum(axis=1)

    def dice(step: int) -> FloatArray:
        tp, fp = (part[:, edges[step]] for part in reached)
        total = tp + fp + truth
        return np.where(total > 0, 2 * tp / np.maximum(total, 1), 1.0)

    default_step = round(threshold * THRESHOLD_STEPS)
    best, best_rule = float(dice(default_step).mean()), None
    steps = range(STEP, THRESHOLD_STEPS, STEP)
    empty_dice = np.where(truth > 0, 0.0, 1.0)
    # Thresholds nearest to the default one first: they win ties.
    for bottom in sorted({default_step, *steps}, key=lambda step: abs(step - default_step)):
        by_case = dice(bottom)
        for top in (step for step in sorted({bottom, *steps}) if step >= bottom):
            areas = areas_from[:, edges[top]]
            gain, area = _best_area(areas, empty_dice - by_case)
            if by_case.mean() + gain > best + MIN_GAIN:
                best = float(by_case.mean() + gain)
                best_rule = EmptyMaskRule(top=top / THRESHOLD_STEPS, area=area, bottom=bottom / THRESHOLD_STEPS)
    return best_rule


def choose_smallest_area(cases: Sequence[CaseComponents]) -> int:
    """Return the number of pixels below which components are removed; 0 if removing none is best."""
    sizes = np.unique(np.concatenate([np.zeros(0, np.int64), *(case.sizes for case in cases)]))
    if len(sizes) > MAX_AREAS:
        sizes = np.unique(np.quantile(sizes, np.linspace(0, 1, MAX_AREAS), method="lower").astype(np.int64))
    candidates = [0, *(sizes + 1).tolist()]
    scores = [_mean_dice(cases, smallest_area=area) for area in candidates]
    return int(candidates[next(i for i, score in enumerate(scores) if score >= max(scores) - MIN_GAIN)])


def choose_largest_component(cases: Sequence[CaseComponents], smallest_area: int) -> bool:
    """Return whether keeping only the largest component is better than all from `smallest_area` on."""
    if not cases:
        return False
    score_of_all = _mean_dice(cases, smallest_area=smallest_area)
    return _mean_dice(cases, smallest_area=smallest_area, largest=True) > score_of_all + MIN_GAIN


def _mean_dice(cases: Sequence[CaseComponents], *, smallest_area: int, largest: bool = False) -> float:
    values = []
    for case in cases:
        kept = case.sizes >= smallest_area
        if largest and len(case.sizes):
            kept &= np.arange(len(case.sizes)) == case.sizes.argmax()
        values.append(case.dice(kept))
    return float(np.mean(values)) if values else 0.0


def _best_area(areas: FloatArray, gains: FloatArray) -> tuple[float, int]:
    """Return the largest mean gain from emptying all masks below an area, and the smallest such area, at least 1."""
    order = np.argsort(areas, kind="stable")
    total = np.append(0.0, np.cumsum(gains[order])) / len(gains)
    # All cases of equal area are emptied together: totals between them do not count. Those of area 0 always are.
    is_limit = np.concatenate([[areas.min() > 0], areas[order][1:] != areas[order][:-1], [True]])
    total = np.where(is_limit, total, -np.inf)
    count = int(total.argmax())
    return float(total[count]), 1 if count == 0 else int(areas[order][count - 1]) + 1


def _from_bin(histograms: FloatArray) -> FloatArray:
    """Return the number of pixels in each bin and all higher ones, (cases, bins + 1)."""
    summed = np.flip(np.cumsum(np.flip(histograms, axis=1), axis=1), axis=1)
    return np.concatenate([summed, np.zeros((len(summed), 1))], axis=1)
