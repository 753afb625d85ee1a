"""Metrics of contours, centre lines and lesions of one class in one image.

Large masks may be memory-mapped; they are read by bands of rows, or by connected component.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from datasets.large import release, row_bands
from results.metrics.contours import Mask, Spacing, contour_distances
from results.metrics.lesions import centre_line_dice, lesion_counts


@dataclass(frozen=True, kw_only=True)
class ShapeSettings:
    """Settings of these metrics.

    Args:
        tolerance: Distance up to which contours count as equal, in pixels of the image.
        lesion_iou: Minimum IoU of two matching lesions.
    """

    tolerance: float
    lesion_iou: float


class ShapeValues(NamedTuple):
    """Metrics of a mask, NaN where undefined; distances are in the unit of the spacing.

    Attributes:
        hd95: 95th percentile of the Hausdorff distance: the larger one of both directions.
        assd: Average symmetric surface distance: the mean over both contours.
        nsd: Normalised surface Dice, 0..1: share of both contours within the tolerance of the other one.
        cl_dice: Centre line Dice, 0..1 (Shit et al. 2021).
        lesion_tp, lesion_fp, lesion_fn: Numbers of connected components that match, are predicted only, are true only.
    """

    hd95: float
    assd: float
    nsd: float
    cl_dice: float
    lesion_tp: int
    lesion_fp: int
    lesion_fn: int


def shape_values(
    truth: Mask, predicted: Mask, settings: ShapeSettings, *, spacing: Spacing = (1.0, 1.0)
) -> ShapeValues:
    """Return the metrics of a predicted mask against the true one, both (height, width).

    A class that the truth lacks has no distances and no Dice: they are NaN. Where a present class is not predicted,
    distances are the diagonal of the image and the shares are 0 (Maier-Hein et al. 2024, Metrics Reloaded).
    """
    height, width = truth.shape
    truth, predicted = _cropped(truth, predicted)
    lesions = lesion_counts(truth, predicted, min_iou=settings.lesion_iou)
    if not truth.any():
        return ShapeValues(math.nan, math.nan, math.nan, math.nan, *lesions)
    if not predicted.any():
        diagonal = math.hypot(height * spacing[0], width * spacing[1])
        return ShapeValues(diagonal, diagonal, 0.0, 0.0, *lesions)
    distances = contour_distances(truth, predicted, spacing)
    return ShapeValues(
        distances.percentile(0.95), distances.mean(), distances.share_within(settings.tolerance),
        centre_line_dice(truth, predicted), *lesions,
    )  # fmt: skip


def _cropped(truth: Mask, predicted: Mask) -> tuple[Mask, Mask]:
    """Return both masks without the rows and columns around their foreground."""
    used_rows, used_columns = np.zeros(truth.shape[0], np.bool_), np.zeros(truth.shape[1], np.bool_)
    for part in row_bands(*truth.shape):
        either = truth[part] | predicted[part]
        used_rows[part] = either.any(axis=1)
        used_columns |= either.any(axis=0)
        release(truth)
        release(predicted)
    rows, columns = np.flatnonzero(used_rows), np.flatnonzero(used_columns)
    if not len(rows):
        return truth[:1, :1], predicted[:1, :1]
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    return truth[box], predicted[box]
