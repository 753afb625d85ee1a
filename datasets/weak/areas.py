"""Areas of classes in masks."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from datasets.source import IGNORE, Pixels
from datasets.weak.regions import class_regions


def class_areas(masks: Callable[[int], Pixels], rows: Iterable[int], classes: Sequence[str]) -> NDArray[np.float32]:
    """Return the smallest and the largest share (classes, 2) of an image that each class has, NaN if it never occurs.

    Images that do not show a class, or in which it is not annotated everywhere, are left out.

    Args:
        masks: Returns the masks of a row.
        rows: Rows with masks.
        classes: Their classes.
    """
    areas = np.full((len(classes), 2), np.nan, np.float32)
    for row in rows:
        mask = masks(row)
        for number, (_, region) in enumerate(class_regions(mask, classes)):
            plane = mask if mask.ndim == 2 else mask[number]
            if region.any() and not (plane == IGNORE).any():
                share = np.count_nonzero(region) / region.size
                areas[number] = np.fmin(areas[number, 0], share), np.fmax(areas[number, 1], share)
    return areas
