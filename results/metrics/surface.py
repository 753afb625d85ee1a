"""Metrics of contours or surfaces, centre lines and lesions of one class in one image or volume.

The contour of a mask is the marching-squares polygon halfway between the centres of neighbouring pixels, the surface of
a volume the marching-cubes mesh; outside the image is background. Each segment counts with its length and each triangle
with its area, as in Nikolov et al. (2021, surface-distance), so that results do not depend on how finely a boundary is
sampled; distances are to the nearest point of the other boundary. Tools that measure between boundary pixels, such as
MONAI, differ by up to about one pixel.

Large masks may be memory-mapped; they are read by bands of rows, or by connected component.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from datasets.large import is_large, release, row_bands
from results.metrics.contours import Mask, Spacing, contour, on_fewer_pixels
from results.metrics.formulas import FloatArray
from results.metrics.lesions import Overlap
from results.metrics.meshes import surface


@dataclass(frozen=True, kw_only=True)
class ShapeSettings:
    """Settings of these metrics.

    Args:
        tolerance: Distance up to which boundaries count as equal, in the unit of the spacing.
        lesion_iou: Minimum IoU of two matching lesions.
    """

    tolerance: float
    lesion_iou: float


class ShapeValues(NamedTuple):
    """Metrics of a mask, NaN where undefined; distances are in the unit of the spacing.

    Attributes:
        hd95: 95th percentile of the Hausdorff distance: the larger one of both directions.
        assd: Average symmetric surface distance: the mean over both boundaries.
        nsd: Normalised surface Dice, 0..1: share of both boundaries within the tolerance of the other one.
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
    truth: Mask, predicted: Mask, settings: ShapeSettings, *, spacing: Spacing | None = None
) -> ShapeValues:
    """Return the metrics of a predicted mask against the true one, both (height, width) or (slices, height, width).

    A class that the truth lacks has no distances and no Dice: they are NaN. Where a present class is not predicted,
    distances are the diagonal of the image and the shares are 0 (Maier-Hein et al. 2024, Metrics Reloaded).

    Args:
        truth: The true mask.
        predicted: The predicted mask.
        settings: Tolerance and IoU of lesions.
        spacing: Size of a pixel along each axis; default: 1.
    """
    shape, spacing = truth.shape, spacing or (1.0,) * truth.ndim
    truth, predicted = _cropped(truth, predicted)
    overlap = Overlap.of(truth, predicted)
    lesions = overlap.lesion_counts(min_iou=settings.lesion_iou)
    if not truth.any():
        return ShapeValues(math.nan, math.nan, math.nan, math.nan, *lesions)
    if not predicted.any():
        diagonal = math.hypot(*(length * side for length, side in zip(shape, spacing, strict=True)))
        return ShapeValues(diagonal, diagonal, 0.0, 0.0, *lesions)
    centre_lines = overlap.centre_line_dice()
    if truth.ndim == 2 and is_large(*truth.shape):
        truth, predicted, step = on_fewer_pixels(truth, predicted)
        spacing = tuple(side * step for side in spacing)
    distances = boundary_distances(truth, predicted, spacing)
    return ShapeValues(
        distances.percentile(0.95), distances.mean(), distances.share_within(settings.tolerance), centre_lines, *lesions
    )


def _cropped(truth: Mask, predicted: Mask) -> tuple[Mask, Mask]:
    """Return both masks without the rows, columns and slices around their foreground."""
    used = [np.zeros(length, np.bool_) for length in truth.shape]
    for part in row_bands(*truth.shape) if truth.ndim == 2 else [slice(None)]:
        either, axes = truth[part] | predicted[part], range(truth.ndim)
        used[0][part] = either.any(axis=tuple(axes)[1:])
        for axis in axes[1:]:
            used[axis] |= either.any(axis=tuple(other for other in axes if other != axis))
        release(truth)
        release(predicted)
    places = map(np.flatnonzero, used)
    box = tuple(slice(axis[0], axis[-1] + 1) if len(axis) else slice(1) for axis in places)
    return truth[box], predicted[box]


@dataclass(frozen=True, kw_only=True, eq=False)
class BoundaryDistances:
    """Distances of the parts of two boundaries to the other boundary, with the lengths or areas of the parts."""

    of_truth: FloatArray
    truth_sizes: FloatArray
    of_predicted: FloatArray
    predicted_sizes: FloatArray

    def percentile(self, share: float) -> float:
        """Return the larger one of both boundaries' percentiles, weighted by size; `share` 1 is Hausdorff's."""
        return max(
            _weighted_quantile(self.of_truth, self.truth_sizes, share),
            _weighted_quantile(self.of_predicted, self.predicted_sizes, share),
        )

    def mean(self) -> float:
        """Return the mean distance over both boundaries."""
        total = self.truth_sizes.sum() + self.predicted_sizes.sum()
        return float((self.of_truth @ self.truth_sizes + self.of_predicted @ self.predicted_sizes) / total)

    def share_within(self, tolerance: float) -> float:
        """Return the share of both boundaries whose distance is at most the tolerance."""
        within = self.truth_sizes[self.of_truth <= tolerance].sum()
        within += self.predicted_sizes[self.of_predicted <= tolerance].sum()
        return float(within / (self.truth_sizes.sum() + self.predicted_sizes.sum()))


def boundary_distances(truth: Mask, predicted: Mask, spacing: Spacing | None = None) -> BoundaryDistances:
    """Return the distances between the boundaries of two masks that are not empty."""
    boundary_of = contour if truth.ndim == 2 else surface
    spacing = spacing or (1.0,) * truth.ndim
    one, other = boundary_of(truth, spacing), boundary_of(predicted, spacing)
    return BoundaryDistances(
        of_truth=other.distances(one.midpoints), truth_sizes=one.sizes,
        of_predicted=one.distances(other.midpoints), predicted_sizes=other.sizes,
    )  # fmt: skip


def _weighted_quantile(values: FloatArray, weights: FloatArray, share: float) -> float:
    """Return the smallest value up to which at least this share of the weight lies."""
    order = np.argsort(values)
    cumulative = np.cumsum(weights[order])
    position = int(np.searchsorted(cumulative, share * cumulative[-1] * (1 - 1e-12)))
    return float(values[order][min(position, len(values) - 1)])
