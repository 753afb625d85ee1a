"""How many labelled images a baseline needs for what a cell reaches: the paired difference to its curve, inverted."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from results.statistics.cells import Numbers
from results.statistics.estimates import Array
from results.statistics.inference import Inference

POINTS = 16
"""Steps between two measured amounts of labelled images, equal on the logarithm."""


class LabelEquivalence(NamedTuple):
    """Arrays over series. `images` is NaN unless `side` is "within"; ends are -inf or inf outside the measured range.

    `side` is "below", "within" or "above" the baseline's measured range, "" where nothing can be tested.
    """

    images: Array
    low: Array
    high: Array
    side: NDArray[np.object_]


def label_equivalence(inference: Inference, cell: int, curve: Sequence[int], series: Numbers) -> LabelEquivalence:
    """Invert the learning curve of a baseline for one cell.

    For each number of images within the range of the baseline's cells `curve` (fewest images first), the difference
    of the cell to the baseline's value, interpolated in log(images) within each replicate, is tested at 5 %. The
    numbers that are not rejected are the interval (their hull), the smallest where the mean difference is zero the
    estimate.
    """
    nothing = np.full(len(series), np.nan)
    images = inference.cells.cells["labelled_images"].to_numpy(np.float64)[list(curve)]
    if len(curve) < 2 or (np.diff(images) <= 0).any():
        return LabelEquivalence(nothing, nothing, nothing, np.full(len(series), "", dtype=object))
    points, weights = _grid(images)
    tested = inference.against_curve(cell, curve, series, weights)
    mean = tested.mean * inference.cells.directions[series]
    side = np.select(
        [~tested.testable, (mean > 0).all(axis=0), (mean < 0).all(axis=0)], ["", "above", "below"], "within"
    ).astype(object)
    estimate = np.where(side == "within", _crossing(points, mean), np.nan)
    low, high = _hull(points, tested.rejected, side, estimate)
    return LabelEquivalence(estimate, low, high, side)


def _grid(images: Array) -> tuple[Array, Array]:
    """Return points on log(images), the measured amounts among them, and their interpolation weights."""
    measured = np.log(images)
    steps = [np.linspace(left, right, POINTS, endpoint=False) for left, right in pairwise(measured)]
    points = np.concatenate([*steps, measured[-1:]])
    weights = np.stack([np.interp(points, measured, unit) for unit in np.eye(len(images))], axis=1)
    return points, weights


def _crossing(points: Array, mean: Array) -> Array:
    """Return exp of the first point where each column of (points, series) is or passes zero; NaN without one."""
    passes = (mean[:-1] == 0) | (np.sign(mean[:-1]) * np.sign(mean[1:]) < 0)
    passes = np.vstack([passes, mean[-1:] == 0])
    first = passes.argmax(axis=0)
    column = np.arange(mean.shape[1])
    following = np.minimum(first + 1, len(points) - 1)
    start, end = mean[first, column], mean[following, column]
    crosses = passes.any(axis=0) & (start != 0)
    share = np.where(crosses, start / np.where(crosses, start - end, 1.0), 0.0)
    crossing = points[first] + share * (points[following] - points[first])
    return np.where(passes.any(axis=0), np.exp(crossing), np.nan)


def _hull(
    points: Array, rejected: NDArray[np.bool_], side: NDArray[np.object_], estimate: Array
) -> tuple[Array, Array]:
    """Return the nearest rejected points on both sides of those that are not; infinite where there is none.

    The ends are rejected points, so that a step between two points never makes an interval too narrow.
    """
    images = np.exp(points)
    at = np.arange(len(points))[:, None]
    kept = ~rejected
    if (narrow := (side == "within") & ~kept.any(axis=0)).any():
        # The interval lies between two points.
        kept = kept | (narrow & (np.abs(points[:, None] - np.log(estimate)) <= np.diff(points).max()))
    first, last = np.where(kept, at, len(points)).min(axis=0), np.where(kept, at, -1).max(axis=0)
    padded = np.concatenate([[-np.inf], images, [np.inf]])
    low, high = padded[first], padded[last + 2]
    low = np.where(side == "below", -np.inf, low)
    high = np.where(side == "above", np.inf, high)
    unknown = side == ""
    return np.where(unknown, np.nan, low), np.where(unknown, np.nan, high)
