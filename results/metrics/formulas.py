"""Metrics as pure functions of stored counts. Undefined values are NaN, never 0 or 1."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from models.score_bins import THRESHOLD_STEPS, first_bins
from results.schema import CONFIDENCE_BINS

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Counts:
    """Pixels per class: tp, fp, fn, tn of shape (..., classes), histograms of shape (..., classes, bins).

    `positives` and `negatives` count truth-positive and truth-negative pixels by predicted score, in ascending bins
    of any width. `score_sums`, (..., classes, 20), are sums of scores in equal bins; None where they are not stored.
    """

    tp: FloatArray
    fp: FloatArray
    fn: FloatArray
    tn: FloatArray
    positives: FloatArray
    negatives: FloatArray
    score_sums: FloatArray | None = None

    @property
    def truth(self) -> FloatArray:
        """Return the pixels of the class in the truth, (..., classes)."""
        return self.tp + self.fn

    @property
    def pixels(self) -> FloatArray:
        """Return the scored pixels, (..., classes); 0 where the class is not annotated."""
        return self.tp + self.fp + self.fn + self.tn

    def summed(self) -> Self:
        """Return the counts of all images together; the first axis keeps length 1."""
        parts = {name: part for name, part in vars(self).items() if part is not None}
        return type(self)(**{name: part.sum(axis=0, keepdims=True) for name, part in parts.items()})


@dataclass(frozen=True, kw_only=True, eq=False)
class Confidence:
    """Calibration bins, each (..., bins): pixels, sum of their confidences, number of correct pixels."""

    count: FloatArray
    total: FloatArray
    correct: FloatArray

    def summed(self) -> Self:
        """Return the bins of all images together; the first axis keeps length 1."""
        return type(self)(**{name: part.sum(axis=0, keepdims=True) for name, part in vars(self).items()})


def ratio(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """Divide; NaN where the denominator is 0."""
    quotient = np.full(np.broadcast_shapes(numerator.shape, denominator.shape), np.nan)
    np.divide(numerator, denominator, out=quotient, where=denominator != 0)
    return quotient


def iou(counts: Counts) -> FloatArray:
    """Intersection over union (Jaccard index), 0..1."""
    return ratio(counts.tp, counts.tp + counts.fp + counts.fn)


def dice(counts: Counts) -> FloatArray:
    """Dice coefficient 2tp / (2tp + fp + fn), 0..1; of one class it equals F1."""
    return ratio(2 * counts.tp, 2 * counts.tp + counts.fp + counts.fn)


def dice_empty_is_one(counts: Counts) -> FloatArray:
    """Dice coefficient of single images, 0..1, that is also defined where the class is not in the truth.

    It is then 1 without a false positive pixel, else 0. Undefined where no pixel is scored.
    """
    is_empty = (counts.truth + counts.fp == 0) & (counts.tn > 0)
    return np.where(is_empty, 1.0, dice(counts))


def precision(counts: Counts) -> FloatArray:
    """Proportion of predicted pixels that are correct, 0..1; undefined where none is predicted."""
    return ratio(counts.tp, counts.tp + counts.fp)


def recall(counts: Counts) -> FloatArray:
    """Proportion of true pixels that are predicted (sensitivity), 0..1."""
    return ratio(counts.tp, counts.tp + counts.fn)


def f1(counts: Counts) -> FloatArray:
    """Harmonic mean of precision and recall, 0..1; 0 where a class is present but never predicted."""
    return dice(counts)


def accuracy(counts: Counts) -> FloatArray:
    """Proportion of all pixels that are classified correctly, 0..1, including the background."""
    correct = counts.tp + counts.tn
    return ratio(correct, correct + counts.fp + counts.fn)


def auc(counts: Counts) -> FloatArray:
    """Area under the ROC curve, 0..1: Mann-Whitney U of the score bins; scores of one bin are ties and count half."""
    positives, negatives = counts.positives, counts.negatives
    above = np.flip(np.cumsum(np.flip(positives, -1), axis=-1), -1) - positives
    wins = (negatives * (above + positives / 2)).sum(axis=-1)
    return ratio(wins, positives.sum(axis=-1) * negatives.sum(axis=-1))


def classwise_ece(counts: Counts) -> FloatArray:
    """Expected calibration error of a class against the others, 0..1; the mean over classes is Kull et al.'s (2019).

    Sum over 20 bins of the class's probability, |positive pixels - sum of probabilities| / pixels. Requires
    `score_sums`, and histograms in the bins of `models.score_bins`.
    """
    assert counts.score_sums is not None
    starts = first_bins(counts.positives.shape[-1])[: THRESHOLD_STEPS : THRESHOLD_STEPS // CONFIDENCE_BINS]
    positives, negatives = (np.add.reduceat(part, starts, axis=-1) for part in (counts.positives, counts.negatives))
    return ratio(np.abs(positives - counts.score_sums).sum(axis=-1), (positives + negatives).sum(axis=-1))


def confidence(bins: Confidence) -> FloatArray:
    """Mean confidence over all pixels, 0..1."""
    return ratio(bins.total.sum(axis=-1), bins.count.sum(axis=-1))


def ece(bins: Confidence) -> FloatArray:
    """Expected calibration error, 0..1 (Naeini et al. 2015): sum over bins |correct - confidence| / pixels.

    Over foreground pixels alone (`ece_foreground`) it exceeds 0 even if probabilities are calibrated, because the truth
    takes part in selecting the pixels: use it to compare networks, not as an absolute value.
    """
    return ratio(np.abs(bins.correct - bins.total).sum(axis=-1), bins.count.sum(axis=-1))


PER_CLASS: Mapping[str, Callable[[Counts], FloatArray]] = {
    "mean_iou": iou,
    "dice": dice,
    "precision": precision,
    "recall": recall,
    "f1": f1,
    "accuracy": accuracy,
    "auc": auc,
    "classwise_ece": classwise_ece,
}
PER_IMAGE: Mapping[str, Callable[[Counts], FloatArray]] = {"dice_empty_is_one": dice_empty_is_one}
"""Metrics per class of all images, also of those whose truth lacks the class. They have no pooled value."""
REQUIRES_SCORE_SUMS = frozenset({"classwise_ece"})


def per_class_formulas(counts: Counts) -> Mapping[str, Callable[[Counts], FloatArray]]:
    """Return the metrics of `PER_CLASS` that the stored counts define."""
    if counts.score_sums is not None:
        return PER_CLASS
    return {metric: formula for metric, formula in PER_CLASS.items() if metric not in REQUIRES_SCORE_SUMS}


OVERALL: Mapping[str, tuple[str, Callable[[Confidence], FloatArray]]] = {
    "confidence": ("confidence", confidence),
    "ece": ("confidence", ece),
    "ece_foreground": ("foreground", ece),
}
"""Metrics over all classes: prefix of the columns with their bins (`results.schema.images`), and formula."""
