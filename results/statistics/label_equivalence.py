"""How many labelled images a baseline needs to match a cell: inverts the paired difference to its learning curve."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from results.metrics.formulas import FloatArray
from results.statistics.cells import IntArray
from results.statistics.inference import Inference

POINTS = 16
"""Steps between two measured numbers of labelled images, equidistant on a logarithmic scale."""


class LabelEquivalence(NamedTuple):
    """Arrays over series. `images` is NaN unless `side` is "within"; ends are -inf or inf outside the measured range.

    `side` is "below", "within" or "above" the baseline's measured range, "" where nothing can be tested.
    """

    images: FloatArray
    low: FloatArray
    high: FloatArray
    side: NDArray[np.object_]


def label_equivalence(inference: Inference, cell: int, curve: Sequence[int], series: IntArray) -> LabelEquivalence:
    """Invert the learning curve of a baseline for one cell.

    For each number of images within the range of the baseline's cells `curve` (fewest images first), the difference
    of the cell to the baseline's value, interpolated in log(images) within each replicate, is tested at 5 %. The
    numbers that are not rejected form the interval (their hull); the estimate is the smallest number where the mean
    difference is zero.
    """
    undefined = np.full(len(series), np.nan)
    images = inference.cells.cells["labelled_images"].to_numpy(np.float64)[list(curve)]
    if len(curve) < 2 or (np.diff(images) <= 0).any():
        return LabelEquivalence(undefined, undefined, undefined, np.full(len(series), "", dtype=object))
    points, weights = _grid(images)
    tested = inference.against_curve(cell, curve, series, weights)
    mean = tested.mean * inference.cells.directions[series]
    side = np.select(
        [~tested.testable, (mean > 0).all(axis=0), (mean < 0).all(axis=0)], ["", "above", "below"], "within"
    ).astype(object)
    estimate = np.where(side == "within", _crossing(points, mean), np.nan)
    low, high = _hull(points, tested.rejected, side, estimate)
    return LabelEquivalence(estimate, low, high, side)


def _grid(images: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return points on log(images), including the measured numbers, and their interpolation weights."""
    measured = np.log(images)
    steps = [np.linspace(left, right, POINTS, endpoint=False) for left, right in pairwise(measured)]
    points = np.concatenate([*steps, measured[-1:]])
    weights = np.stack([np.interp(points, measured, unit) for unit in np.eye(len(images))], axis=1)
    return points, weights


def _crossing(points: FloatArray, mean: FloatArray) -> FloatArray:
    """Return exp of the first point where each column of (points, series) is or crosses zero; NaN without one."""
    passes = (mean[:-1] == 0) | (np.sign(mean[:-1]) * np.sign(mean[1:]) < 0)
    passes = np.vstack([passes, mean[-1:] == 0])
    first = passes.argmax(axis=0)
    column = np.arange(mean.shape[1])
    following = np.minimum(first + 1, len(points) - 1)
    start, end = mean[first, column], mean[following, column]
    crosses = passes.any(axis=0) & (start != 0)
    fraction = np.where(crosses, start / np.where(crosses, start - end, 1.0), 0.0)
    crossing = points[first] + fraction * (points[following] - points[first])
    return np.where(passes.any(axis=0), np.exp(crossing), np.nan)


def _hull(
    points: FloatArray, rejected: NDArray[np.bool_], side: NDArray[np.object_], estimate: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return the nearest rejected points on both sides of the accepted ones; infinite without one.

    The ends are rejected points, so that the grid never makes an interval too narrow.
    """
    images = np.exp(points)
    positions = np.arange(len(points))[:, None]
    accepted = ~rejected
    if (narrow := (side == "within") & ~accepted.any(axis=0)).any():
        # The interval lies between two points.
        accepted = accepted | (narrow & (np.abs(points[:, None] - np.log(estimate)) <= np.diff(points).max()))
    first, last = np.where(accepted, positions, len(points)).min(axis=0), np.where(accepted, positions, -1).max(axis=0)
    padded = np.concatenate([[-np.inf], images, [np.inf]])
    low, high = padded[first], padded[last + 2]
    low = np.where(side == "below", -np.inf, low)
    high = np.where(side == "above", np.inf, high)
    unknown = side == ""
    return np.where(unknown, np.nan, low), np.where(unknown, np.nan, high)
