"""Labels of all pixels from points or scribbles, by the random walker (Grady 2006)."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import numpy as np

from datasets.source import BACKGROUND, IGNORE, Pixels, Point

BETA: Final = 130.0
"""How much the walk avoids steps between different grey values; the default of scikit-image."""
TOLERANCE: Final = 1e-6
"""Of the solution; with the default of scikit-image probabilities may leave 0..1 by more than 0.001."""


def expanded(image: Pixels, scribbles: Pixels, *, beta: float = BETA, min_probability: float = 0.0) -> Pixels:
    """Return the masks that scribbles are expanded to.

    Time and memory grow with the number of pixels: expand at the size of a network's input.

    Args:
        image: (height, width) or (height, width, channels).
        scribbles: Ids (height, width), or (classes, height, width) of 0/1; `IGNORE` outside of scribbles.
        beta: How much borders between grey values stop the walk.
        min_probability: Pixels whose most probable value is less probable stay `IGNORE`, as do pixels of undefined
            probabilities.

    Returns:
        Masks of the same shape. Those with scribbles of fewer than two values are returned as they are, as these say
        nothing about where a class ends.
    """
    planes = scribbles.reshape(-1, *scribbles.shape[-2:])
    labels = [_expanded(image, plane, beta, min_probability) for plane in planes]
    return np.stack(labels).reshape(scribbles.shape)


def _expanded(image: Pixels, scribbles: Pixels, beta: float, min_probability: float) -> Pixels:
    from skimage.segmentation import random_walker

    values = np.unique(scribbles[scribbles != IGNORE])
    if len(values) < 2 or (scribbles != IGNORE).all():
        return scribbles
    seeds = np.where(scribbles == IGNORE, 0, np.searchsorted(values, scribbles) + 1)
    if image.min() == image.max():
        # Differences are divided by the standard deviation, which is 0: all steps are equal, whatever the pixels.
        image, beta = _any_values(image.shape), 0.0
    probabilities = random_walker(
        image.astype(np.float64) / 255, seeds, beta=beta, mode="cg_j", tol=TOLERANCE, return_full_prob=True,
        channel_axis=2 if image.ndim == 3 else None,
    )  # fmt: skip
    labels = values[probabilities.argmax(axis=0)]
    largest = probabilities.max(axis=0)
    labels[~np.isfinite(largest) | (largest < min_probability)] = IGNORE
    return np.asarray(np.where(scribbles == IGNORE, labels, scribbles), np.uint8)


def _any_values(shape: tuple[int, ...]) -> Pixels:
    """Return pixels that differ."""
    return np.linspace(0, 255, int(np.prod(shape))).astype(np.uint8).reshape(shape)


def points_as_scribbles(
    points: Sequence[Point], classes: Sequence[str], shape: tuple[int, int], *, overlapping: bool
) -> Pixels:
    """Return the pixels of points as scribbles; pixels with points that contradict each other are `IGNORE`.

    These are points of different classes if classes are exclusive, and of a class and the background.

    Args:
        points: Points of an image.
        classes: The classes.
        shape: Height and width of the image.
        overlapping: Whether classes overlap. A point of the background is then 0 in all masks.
    """
    scribbles = np.full((len(classes), *shape) if overlapping else shape, IGNORE, np.uint8)
    names_by_pixel: dict[tuple[int, int], set[str]] = defaultdict(set)
    height, width = shape
    for point in points:
        row, column = min(max(int(point.y), 0), height - 1), min(max(int(point.x), 0), width - 1)
        names_by_pixel[row, column].add(point.name)
    for (row, column), names in names_by_pixel.items():
        if len(names) > 1 and (not overlapping or BACKGROUND in names):
            continue
        for name in names:
            if name == BACKGROUND:
                scribbles[..., row, column] = 0
            elif overlapping:
                scribbles[classes.index(name), row, column] = 1
            else:
                scribbles[row, column] = classes.index(name) + 1
    return scribbles
