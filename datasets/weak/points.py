"""Random points inside of the components of masks, and in the background."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from datasets.keyed_random import generator_of
from datasets.source import BACKGROUND, Pixels, Point
from datasets.weak.regions import (
    Key,
    Region,
    background_region,
    class_regions,
    components,
    depth,
)

INTERIOR: Final = 0.5
"""Points of a component are at least this share of its largest depth away from its border."""
MARGIN: Final = 0.02
"""Distance of points of the background from classes as a share of the shorter side of the image, where possible."""


def mask_points(
    masks: Pixels,
    classes: Sequence[str],
    key: Key,
    *,
    per_component: int = 1,
    background: int = 1,
    min_pixels: int = 1,
) -> tuple[Point, ...]:
    """Return random points, at the centres of different pixels.

    Args:
        masks: The masks of an image.
        classes: Their classes.
        key: Determines the points.
        per_component: Number of points of each component of each class, fewer if its interior has fewer pixels.
        background: Number of points of the background.
        min_pixels: Smaller components have no points.
    """
    points: list[Point] = []
    for name, region in class_regions(masks, classes):
        random = generator_of("points", *key, name)
        for part in components(region, min_pixels):
            distances = depth(part.pixels)
            pixels = _chosen(distances >= INTERIOR * distances.max(), per_component, random)
            points += _points(pixels + np.array([part.top, part.left]), name)
    region = background_region(masks)
    if background and region.any():
        distances = depth(region)
        interior = distances >= min(INTERIOR * distances.max(), MARGIN * min(region.shape))
        points += _points(_chosen(interior & region, background, generator_of("points", *key, BACKGROUND)), BACKGROUND)
    return tuple(points)


def _chosen(interior: Region, count: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Return rows and columns (n, 2) of random pixels."""
    pixels = np.argwhere(interior)
    return pixels[random.choice(len(pixels), min(count, len(pixels)), replace=False)]


def _points(pixels: NDArray[np.int64], name: str) -> list[Point]:
    return [Point(name=name, x=column + 0.5, y=row + 0.5) for row, column in pixels.tolist()]
