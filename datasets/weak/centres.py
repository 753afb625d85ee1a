"""Centres of masks."""

from collections.abc import Mapping, Sequence

import numpy as np

from datasets.source import Pixels
from datasets.weak.regions import class_regions


def mask_centres(masks: Pixels, classes: Sequence[str]) -> Mapping[str, tuple[float, float]]:
    """Return the centroid (x, y) of the pixels of each class that has any; that of one pixel is its middle."""
    centres = {}
    for name, region in class_regions(masks, classes):
        rows, columns = np.nonzero(region)
        if len(rows):
            centres[name] = (float(columns.mean()) + 0.5, float(rows.mean()) + 0.5)
    return centres
