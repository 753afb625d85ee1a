"""Per-image pixel counts, from which all metrics are derived.

All sums are integers, which do not depend on the order of summation, so that results are bitwise reproducible. Sizes:
N images, K foreground classes, C = K + 1 classes with the background.
A change of numerics increases `counts` in `models.versions`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from models.score_bins import SCORE_EDGES

CONFIDENCE_BINS = 20
IGNORE = 255
"""Class id of unlabelled pixels, and their value in the mask of an overlapping class, equal to
`datasets.source.IGNORE`; they are excluded everywhere."""

FIXED_POINT = 2**30
"""Sums of probabilities are multiples of 1 / FIXED_POINT."""


class PixelCounts(NamedTuple):
    """Pixel counts by image and class, each (N, K) int64."""

    tp: Tensor
    fp: Tensor
    fn: Tensor
    tn: Tensor


class ScoreHistograms(NamedTuple):
    """Histograms of the scores of positive and negative pixels, (N, K, bins) int64."""

    positives: Tensor
    negatives: Tensor


class ConfidenceBins(NamedTuple):
    """Per image and confidence bin: int64 pixels, float64 sum of confidence, int64 correct; each (N, bins)."""

    pixels: Tensor
    confidence: Tensor
    correct: Tensor


def one_hot(ids: Tensor, classes: int) -> Tensor:
    """Convert ids (N, ...) to (N, classes, ...) bool by comparison, without the scatter of torch's `one_hot`.

    Unlabelled pixels belong to no class.
    """
    names = torch.arange(classes, device=ids.device).view(1, -1, *[1] * (ids.dim() - 1))
    return ids.unsqueeze(1) == names


def is_labelled(ids: Tensor) -> Tensor:
    """Return a mask (bool, same shape) of the pixels with a label in masks of ids or of overlapping classes."""
    return ids != IGNORE


def predicted_ids(probabilities: Tensor, *, threshold: float = 0.5) -> Tensor:
    """Return the class id (N, H, W) of exclusive classes (N, C, H, W).

    This is the most likely class; a single foreground class is predicted if its probability reaches the threshold.
    """
    if probabilities.shape[1] == 2:
        return (probabilities[:, 1] >= threshold).long()
    return probabilities.argmax(dim=1)


def predicted_masks(probabilities: Tensor, *, exclusive: bool, threshold: float = 0.5) -> Tensor:
    """Return foreground masks (N, K, H, W) bool of probabilities (N, C or K, H, W)."""
    if exclusive:
        return one_hot(predicted_ids(probabilities, threshold=threshold), probabilities.shape[1])[:, 1:]
    return probabilities >= threshold


def apply_class_threshold(probabilities: Tensor, channel: int, threshold: float) -> Tensor:
    """Set one channel of probabilities (N, C, H, W) to 0 below the threshold, so that another class is predicted."""
    kept = probabilities.clone()
    kept[:, channel] = torch.where(kept[:, channel] >= threshold, kept[:, channel], 0.0)
    return kept


def pixel_counts(predicted: Tensor, truth: Tensor, *, known: Tensor | None = None) -> PixelCounts:
    """Count TP, FP, FN, TN of two (N, K, H, W) bool masks, restricted to `known`, bool (N, 1 or K, H, W)."""
    pixels: Tensor | int = truth.shape[2] * truth.shape[3]
    if known is not None:
        predicted, truth, pixels = predicted & known, truth & known, known.sum(dim=(2, 3))
    tp = (predicted & truth).sum(dim=(2, 3))
    fp = (predicted & ~truth).sum(dim=(2, 3))
    fn = (truth & ~predicted).sum(dim=(2, 3))
    return PixelCounts(tp=tp, fp=fp, fn=fn, tn=pixels - tp - fp - fn)


def score_histograms(
    probabilities: Tensor, truth: Tensor, *, known: Tensor | None = None, edges: Sequence[float] = SCORE_EDGES
) -> ScoreHistograms:
    """Histogram foreground scores (N, K, ...) in 0..1 by their bool truth, restricted to `known`, (N, 1 or K, ...).

    Bin i counts edges[i - 1] <= score < edges[i] in float32, consistent with `score >= threshold`. There are
    len(edges) + 1 bins: the first for scores below the first edge, the last for scores from the last edge on.
    """
    bins = len(edges) + 1
    index = _bin_index(probabilities, edges) + bins * truth
    if known is not None:
        index = torch.where(known, index, 2 * bins)
    images, classes = probabilities.shape[:2]
    counts = _count_rows(index.reshape(images * classes, -1), 2 * bins + 1)[:, : 2 * bins]
    negatives, positives = counts.view(images, classes, 2, bins).unbind(dim=2)
    return ScoreHistograms(positives=positives, negatives=negatives)


def score_sums(probabilities: Tensor, *, known: Tensor | None = None, bins: int = CONFIDENCE_BINS) -> Tensor:
    """Sum the scores (N, K, ...) in 0..1 by equal bins, restricted to `known`, (N, 1 or K, ...): (N, K, bins) float64.

    Bin i holds i / bins <= score < (i + 1) / bins in float32, the last one also scores of 1.
    """
    images, classes = probabilities.shape[:2]
    scores = probabilities.float()
    index = _bin_index(scores, [place / bins for place in range(1, bins)])
    if known is not None:
        scores = torch.where(known, scores, 0.0)
    rows = images * classes
    return _sum_rows(index.reshape(rows, -1), scores.reshape(rows, -1), bins).view(images, classes, bins)


def confidence_bins(
    probabilities: Tensor,
    truth: Tensor,
    *,
    foreground: Tensor,
    exclusive: bool,
    known: Tensor | None = None,
    bins: int = CONFIDENCE_BINS,
) -> tuple[ConfidenceBins, ConfidenceBins]:
    """Bin the confidence of predictions, for calibration (Guo et al. 2017).

    Exclusive: probabilities (N, C, H, W), truth ids (N, H, W), one prediction per pixel, confidence max p.
    Otherwise: both (N, K, H, W), one prediction per pixel and class, confidence max(p, 1 - p).
    Returns the bins of all known predictions and of those with `foreground`; both masks are bool, shaped as the truth.
    """
    p = probabilities.float()
    if exclusive:
        confidence, answer = p.max(dim=1)
        right = answer == truth
    else:
        confidence = torch.maximum(p, 1 - p)
        right = (p >= 0.5) == truth
    images = len(p)
    index = _bin_index(confidence, [place / bins for place in range(1, bins)]) + bins * foreground
    place = index + 2 * bins * right
    if known is not None:
        place, confidence = torch.where(known, place, 4 * bins), torch.where(known, confidence, 0.0)
    counts = _count_rows(place.reshape(images, -1), 4 * bins + 1)[:, : 4 * bins].view(images, 2, 2, bins)
    sums = _sum_rows(index.reshape(images, -1), confidence.reshape(images, -1), 2 * bins).view(images, 2, bins)
    pixels, correct = counts.sum(dim=1), counts[:, 1]
    # Adding the sums is exact below 2**23 predictions per image and bin: they are multiples of 2**-30.
    return (
        ConfidenceBins(pixels=pixels.sum(dim=1), confidence=sums.sum(dim=1), correct=correct.sum(dim=1)),
        ConfidenceBins(pixels=pixels[:, 1], confidence=sums[:, 1], correct=correct[:, 1]),
    )


def confusion(predicted: Tensor, truth: Tensor, *, classes: int, known: Tensor | None = None) -> Tensor:
    """Return (N, classes, classes) int64, true by predicted ids, both (N, H, W), restricted to `known`, bool (N, H, W).

    Raises `ValueError` for ids outside 0..classes-1.
    """
    if known is not None:
        truth = torch.where(known, truth, 0)
    for ids in (predicted, truth):
        low, high = int(ids.min()), int(ids.max())
        if low < 0 or high >= classes:
            raise ValueError(f"class ids {low}..{high}; allowed: 0..{classes - 1}; correct the class list")
    pairs, cells = truth.to(torch.int32) * classes + predicted.to(torch.int32), classes * classes
    if known is not None:
        pairs = torch.where(known, pairs, cells)
    return _count_rows(pairs.flatten(1), cells + 1)[:, :cells].view(-1, classes, classes)


def to_fixed_point(sums: Tensor) -> Tensor:
    """Return sums of probabilities of up to 2**23 pixels as int64 multiples of 1 / `FIXED_POINT`, without rounding."""
    return (sums * FIXED_POINT).round().long()


def _bin_index(scores: Tensor, edges: Sequence[float]) -> Tensor:
    boundaries = torch.tensor(edges, dtype=torch.float32, device=scores.device)
    return torch.bucketize(scores.float().contiguous(), boundaries, out_int32=True, right=True)


def _row_offsets(index: Tensor, size: int) -> Tensor:
    return index + size * torch.arange(len(index), device=index.device).unsqueeze(1)


def _count_rows(index: Tensor, size: int) -> Tensor:
    """Count the occurrences of 0..size-1 in each row of index (rows, ...)."""
    flat = _row_offsets(index, size).flatten()
    return torch.bincount(flat, minlength=len(index) * size).view(len(index), size)


def _sum_rows(index: Tensor, values: Tensor, size: int) -> Tensor:
    """Sum the values (0..1) by index within each row, in fixed point, which is exact in any order."""
    scaled = (values.double() * FIXED_POINT).round().long()
    sums = torch.zeros(len(index) * size, dtype=torch.int64, device=index.device)
    sums.scatter_add_(0, _row_offsets(index, size).flatten(), scaled.flatten())
    return sums.view(len(index), size).double() / FIXED_POINT
