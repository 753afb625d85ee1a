"""Points as annotated discs."""

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from datasets.source import BACKGROUND, IGNORE, Pixels
from datasets.weak.regions import Region

NamedPoints = Sequence[tuple[str, NDArray[np.floating]]]
"""Names of classes, or `BACKGROUND`, each with a point (x, y)."""


def point_discs(
    points: NamedPoints,
    classes: Sequence[str],
    shape: tuple[int, int],
    *,
    radius: float,
    overlapping: bool,
    annotated: Collection[str] | None = None,
) -> Pixels:
    """Return the pixels within a radius of points as masks; pixels that belong to contradicting points are `IGNORE`.

    These are points of different classes if classes are exclusive, and of a class and the background.

    Args:
        points: Points in pixels of the masks; (0, 0) is the upper left corner of the upper left pixel.
        classes: The classes.
        shape: Height and width of the masks.
        radius: Largest distance of the centres of pixels; the pixel of a point always belongs to its disc.
        overlapping: Whether classes overlap. Points of the background are then 0 in the masks of annotated classes.
        annotated: The annotated classes of overlapping ones, None for all.
    """
    regions = {name: np.zeros(shape, np.bool_) for name in (*classes, BACKGROUND)}
    for name, point in points:
        _add_disc(regions[name], point, radius)
    background = regions[BACKGROUND]
    if overlapping:
        masks = np.full((len(classes), *shape), IGNORE, np.uint8)
        shown = np.logical_or.reduce([regions[name] for name in classes])
        for plane, name in zip(masks, classes, strict=True):
            plane[regions[name] & ~background] = 1
            if annotated is None or name in annotated:
                plane[background & ~shown] = 0
        return masks
    ids = np.full(shape, IGNORE, np.uint8)
    named = np.sum(list(regions.values()), axis=0)
    for number, name in enumerate((BACKGROUND, *classes)):
        ids[regions[name] & (named == 1)] = number
    return ids


def _add_disc(region: Region, point: NDArray[np.floating], radius: float) -> None:
    """Add the pixels of a disc to a region, in place."""
    height, width = region.shape
    column, row = (min(max(int(value), 0), side - 1) for value, side in zip(point, (width, height), strict=True))
    top, left = max(0, int(point[1] - radius) - 1), max(0, int(point[0] - radius) - 1)
    bottom, right = int(point[1] + radius) + 2, int(point[0] + radius) + 2
    rows, columns = np.ogrid[top : max(min(bottom, height), top), left : max(min(right, width), left)]
    near = (columns + 0.5 - point[0]) ** 2 + (rows + 0.5 - point[1]) ** 2 <= radius**2
    region[top : top + near.shape[0], left : left + near.shape[1]] |= near
    region[row, column] = True
