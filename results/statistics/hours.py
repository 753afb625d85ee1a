"""Hours of annotation that a baseline needs to match a cell, and the difference to it at equal hours."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from results.metrics.formulas import FloatArray
from results.statistics.cells import IntArray
from results.statistics.inference import CurvePoint, Inference
from results.statistics.label_equivalence import LabelEquivalence


class HoursEquivalence(NamedTuple):
    """Arrays over series: the fields of `LabelEquivalence` in hours, and p of the difference at equal hours."""

    hours: FloatArray
    low: FloatArray
    high: FloatArray
    side: NDArray[np.object_]
    p: FloatArray


def hours_equivalence(
    inference: Inference, cell: int, curve: Sequence[int], series: IntArray, labels: LabelEquivalence
) -> HoursEquivalence:
    """Convert the labels that a baseline needs to hours, and test a cell against the baseline at equal hours.

    The baseline's hours are interpolated linearly between its cells `curve` (fewest images first), which is exact: each
    further image costs as much as the last one. Its score at the hours of the cell is interpolated in log(images)
    within each replicate, as for the labels; outside of the measured range its nearest cell is compared. Undefined
    where hours are unknown or do not grow with the images.
    """
    hours = inference.cells.cells["annotation_hours"].to_numpy(np.float64)
    images = inference.cells.cells["labelled_images"].to_numpy(np.float64)[list(curve)]
    own, of_curve = hours[cell], hours[list(curve)]
    undefined = np.full(len(series), np.nan)
    known = len(curve) > 1 and not np.isnan(own) and bool((np.diff(of_curve) > 0).all() and (np.diff(images) > 0).all())
    if not known:
        return HoursEquivalence(undefined, undefined, undefined, np.full(len(series), "", dtype=object), undefined)
    at_equal_hours = np.log(np.interp(own, of_curve, images))
    reference = CurvePoint.interpolated(curve, np.log(images), float(at_equal_hours))
    tested = inference.compare_points(CurvePoint(cells=(cell,), weights=(1.0,)), reference, series)
    needed, low, high = (
        np.where(np.isfinite(numbers), np.interp(numbers, images, of_curve), numbers)
        for numbers in (labels.images, labels.low, labels.high)
    )
    return HoursEquivalence(needed, low, high, labels.side, np.where(labels.side == "", np.nan, tested.p))
