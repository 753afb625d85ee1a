"""Metrics of contours, centre lines and lesions of one class in one image.

The contour of a mask is the marching-squares polygon halfway between the centres of neighbouring pixels; outside the
image is background. Each of its segments counts with its length, as in Nikolov et al. (2021, surface-distance), so
that results do not depend on how finely a contour is sampled; distances are to the nearest point of the other polygon.
Tools that measure between boundary pixels, such as MONAI, differ by up to about one pixel.
"""

import math
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from results.metrics.formulas import FloatArray

Mask = NDArray[np.bool_]
Spacing = tuple[float, float]
"""Height and width of a pixel."""
CANDIDATES = 8
"""Segments with the nearest midpoints among which the nearest point is searched."""


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
    either = truth | predicted
    rows, columns = np.flatnonzero(either.any(axis=1)), np.flatnonzero(either.any(axis=0))
    if not len(rows):
        return truth[:1, :1], predicted[:1, :1]
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    return truth[box], predicted[box]


@dataclass(frozen=True, kw_only=True, eq=False)
class ContourDistances:
    """Distances of the segments of two contours to the other contour, with the lengths of the segments."""

    of_truth: FloatArray
    truth_lengths: FloatArray
    of_predicted: FloatArray
    predicted_lengths: FloatArray

    def percentile(self, share: float) -> float:
        """Return the larger one of both contours' percentiles, weighted by length; `share` 1 is Hausdorff's."""
        return max(
            _weighted_quantile(self.of_truth, self.truth_lengths, share),
            _weighted_quantile(self.of_predicted, self.predicted_lengths, share),
        )

    def mean(self) -> float:
        """Return the mean distance over both contours."""
        total = self.truth_lengths.sum() + self.predicted_lengths.sum()
        return float((self.of_truth @ self.truth_lengths + self.of_predicted @ self.predicted_lengths) / total)

    def share_within(self, tolerance: float) -> float:
        """Return the share of both contours whose distance is at most the tolerance."""
        within = self.truth_lengths[self.of_truth <= tolerance].sum()
        within += self.predicted_lengths[self.of_predicted <= tolerance].sum()
        return float(within / (self.truth_lengths.sum() + self.predicted_lengths.sum()))


def contour_distances(truth: Mask, predicted: Mask, spacing: Spacing = (1.0, 1.0)) -> ContourDistances:
    """Return the distances between the contours of two masks that are not empty."""
    one, other = contour(truth, spacing), contour(predicted, spacing)
    return ContourDistances(
        of_truth=_distances(one.midpoints, other), truth_lengths=one.lengths,
        of_predicted=_distances(other.midpoints, one), predicted_lengths=other.lengths,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class Contour:
    """Segments of a contour: `starts` and `ends` (segments, 2) as row and column, in the unit of the spacing."""

    starts: FloatArray
    ends: FloatArray

    @property
    def midpoints(self) -> FloatArray:
        """Return the midpoints, (segments, 2)."""
        return (self.starts + self.ends) / 2

    @property
    def lengths(self) -> FloatArray:
        """Return the lengths, (segments,)."""
        return np.asarray(np.linalg.norm(self.ends - self.starts, axis=1))


def contour(mask: Mask, spacing: Spacing = (1.0, 1.0)) -> Contour:
    """Return the marching-squares contour of a mask; diagonal neighbours of the foreground are connected."""
    padded = np.pad(mask, 1).astype(np.uint8)
    cases = padded[:-1, :-1] | padded[:-1, 1:] << 1 | padded[1:, 1:] << 2 | padded[1:, :-1] << 3
    rows, columns = np.nonzero((cases != 0) & (cases != 15))
    corners = np.stack([rows, columns], axis=1)[:, None].astype(np.float64)
    table, counts = _segments_by_case()
    cells = cases[rows, columns]
    ends = [table[cells, number] + corners for number in range(2)]
    has_second = counts[cells] > 1
    segments = np.concatenate([ends[0], ends[1][has_second]]) * np.asarray(spacing)
    return Contour(starts=segments[:, 0], ends=segments[:, 1])


@cache
def _segments_by_case() -> tuple[FloatArray, NDArray[np.int64]]:
    """Return the segments of each of the 16 cases (16, 2, 2 ends, 2) in a cell of side 1, and their numbers (16,)."""
    top, right, bottom, left = (0.0, 0.5), (0.5, 1.0), (1.0, 0.5), (0.5, 0.0)
    by_case = {
        1: [(left, top)], 2: [(top, right)], 3: [(left, right)], 4: [(right, bottom)],
        5: [(top, right), (bottom, left)], 6: [(top, bottom)], 7: [(left, bottom)], 8: [(bottom, left)],
        9: [(bottom, top)], 10: [(left, top), (right, bottom)], 11: [(bottom, right)], 12: [(right, left)],
        13: [(right, top)], 14: [(top, left)],
    }  # fmt: skip
    table, counts = np.zeros((16, 2, 2, 2)), np.zeros(16, dtype=np.int64)
    for case, segments in by_case.items():
        table[case, : len(segments)], counts[case] = segments, len(segments)
    return table, counts


def _distances(points: FloatArray, contour: Contour) -> FloatArray:
    """Return the distance of each point (n, 2) to the nearest point of a contour."""
    from scipy.spatial import cKDTree

    count = min(CANDIDATES, len(contour.starts))
    _, nearest = cKDTree(contour.midpoints).query(points, k=count)
    nearest = np.asarray(nearest).reshape(len(points), count)
    starts = contour.starts[nearest]
    sides = contour.ends[nearest] - starts
    offsets = points[:, None] - starts
    along = np.clip((offsets * sides).sum(axis=2) / (sides**2).sum(axis=2), 0.0, 1.0)
    return np.asarray(np.linalg.norm(offsets - along[..., None] * sides, axis=2).min(axis=1))


def _weighted_quantile(values: FloatArray, weights: FloatArray, share: float) -> float:
    """Return the smallest value up to which at least this share of the weight lies."""
    order = np.argsort(values)
    cumulative = np.cumsum(weights[order])
    position = int(np.searchsorted(cumulative, share * cumulative[-1] * (1 - 1e-12)))
    return float(values[order][min(position, len(values) - 1)])


def centre_line_dice(truth: Mask, predicted: Mask) -> float:
    """Return the harmonic mean of the shares of each mask's skeleton inside the other mask; NaN if both are empty."""
    from skimage.morphology import skeletonize

    if not truth.any() or not predicted.any():
        return 0.0 if truth.any() or predicted.any() else math.nan
    true_line: Mask
    predicted_line: Mask
    true_line, predicted_line = (skeletonize(mask) for mask in (truth, predicted))  # type: ignore[no-untyped-call]
    precision = (predicted_line & truth).sum() / predicted_line.sum()
    sensitivity = (true_line & predicted).sum() / true_line.sum()
    return float(2 * precision * sensitivity / (precision + sensitivity)) if precision + sensitivity else 0.0


def lesion_counts(truth: Mask, predicted: Mask, *, min_iou: float) -> tuple[int, int, int]:
    """Return the numbers of true positive, false positive and false negative lesions.

    Lesions are 8-connected components. Each is matched to at most one, so that the number of pairs with an IoU of at
    least `min_iou` is largest.
    """
    from scipy.ndimage import label
    from scipy.optimize import linear_sum_assignment

    neighbours = np.ones((3, 3), dtype=int)
    true_labels, true_count = label(truth, neighbours)
    predicted_labels, predicted_count = label(predicted, neighbours)
    pairs = (
        true_labels[truth & predicted].astype(np.int64) * (predicted_count + 1) + predicted_labels[truth & predicted]
    )
    keys, intersections = np.unique(pairs, return_counts=True)
    rows, columns = np.divmod(keys, predicted_count + 1)
    true_sizes, predicted_sizes = np.bincount(true_labels.ravel()), np.bincount(predicted_labels.ravel())
    matching = intersections / (true_sizes[rows] + predicted_sizes[columns] - intersections) >= min_iou
    if not matching.any():
        return 0, predicted_count, true_count
    rows, columns = rows[matching], columns[matching]
    true_numbers, row = np.unique(rows, return_inverse=True)
    predicted_numbers, column = np.unique(columns, return_inverse=True)
    matches = np.zeros((len(true_numbers), len(predicted_numbers)))
    matches[row, column] = 1.0
    assigned = linear_sum_assignment(matches, maximize=True)
    matched = int(matches[assigned].sum())
    return matched, predicted_count - matched, true_count - matched
