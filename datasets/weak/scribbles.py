"""Random scribbles inside of the components of masks and in the background, as simulated annotation.

A scribble is a part of a path along the inside of a component, which winds as its costs are random; compare the
simulated scribbles of Valvano et al. (2021), which are skeletons of the classes.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from datasets.keyed_random import generator_of
from datasets.source import BACKGROUND, IGNORE, Pixels
from datasets.weak.regions import (
    Key,
    Region,
    background_region,
    class_regions,
    components,
    depth,
)

if TYPE_CHECKING:
    from scipy.sparse import csr_array

MAX_PIXELS: Final = 2**14
"""Number of pixels of a component from which its path is searched on blocks of pixels."""
WINDING: Final = 4.0
"""How much more a path may cost at random at one pixel than at another one."""
GRAIN: Final = 0.1
"""Standard deviation of the filter that smooths the random costs, as a share of the longer side of the component."""
LENGTHS: Final = (0.5, 1.0)
"""Smallest and largest share of `length` that a scribble has."""
WIDTH: Final = 1 / 128
"""Default width as a share of the shorter side of the image."""


def mask_scribbles(
    masks: Pixels,
    classes: Sequence[str],
    key: Key,
    *,
    length: float = 0.6,
    width: float = WIDTH,
    min_pixels: int = 1,
    background: bool = True,
) -> Pixels:
    """Return a scribble in each component of each class, and one in the background, as masks.

    Args:
        masks: The masks of an image.
        classes: Their classes.
        key: Determines the scribbles.
        length: Largest length, as a share of a path between distant pixels of the component.
        width: Width as a share of the shorter side of the image; at least one pixel.
        min_pixels: Smaller components have no scribble.
        background: Whether the background has a scribble.

    Returns:
        Masks of the same shape: the values of `masks` at the scribbles, `IGNORE` elsewhere. Where classes overlap the
        scribble of a class is 1 in its mask alone, and that of the background 0 in all annotated masks.
    """
    scribbles = np.full_like(masks, IGNORE)
    pixels = max(1, round(width * min(masks.shape[-2:])))
    for number, (name, region) in enumerate(class_regions(masks, classes)):
        random = generator_of("scribbles", *key, name)
        plane, value = (scribbles, number + 1) if masks.ndim == 2 else (scribbles[number], 1)
        for part in components(region, min_pixels):
            plane[part.place][_scribble(part.pixels, random, length, pixels)] = value
    region = background_region(masks)
    if background and region.any():
        largest = max(components(region), key=lambda part: np.count_nonzero(part.pixels))
        drawn = _scribble(largest.pixels, generator_of("scribbles", *key, BACKGROUND), length, pixels)
        if masks.ndim == 2:
            scribbles[largest.place][drawn] = 0
        for plane, original in zip(scribbles, masks, strict=True) if masks.ndim == 3 else ():
            if (original != IGNORE).any():
                plane[largest.place][drawn] = 0
    return scribbles


def _scribble(component: Region, random: np.random.Generator, length: float, width: int) -> Region:
    """Return the pixels of a scribble of some width inside of a component."""
    import cv2

    path = _path(component, random)
    steps = max(1, round(len(path) * length * random.uniform(*LENGTHS)))
    start = int(random.integers(len(path) - steps + 1))
    drawn = np.zeros(component.shape, np.uint8)
    drawn[tuple(path[start : start + steps].T)] = 1
    if width > 1:
        drawn = np.asarray(cv2.dilate(drawn, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))), np.uint8)
    return np.asarray(component & (drawn == 1))


def _path(component: Region, random: np.random.Generator) -> NDArray[np.int64]:
    """Return rows and columns (n, 2) of a path of neighbouring pixels between distant pixels of a component."""
    from scipy.sparse.csgraph import dijkstra

    region, side = _blocks(component)
    graph = _graph(region, _costs(region, random), diagonal=side == 1)
    deepest = int(np.argmax(depth(region)[region]))
    first = _farthest(dijkstra(graph, indices=np.array([deepest])))
    distances, previous = dijkstra(graph, indices=np.array([first]), return_predecessors=True)
    numbers = [_farthest(distances)]
    while numbers[-1] != first:
        numbers.append(int(previous[0, numbers[-1]]))
    return _in_pixels(np.argwhere(region)[numbers], side)


def _blocks(component: Region) -> tuple[Region, int]:
    """Return the blocks of pixels that lie inside of a component as a whole, and the side of a block in pixels."""
    region, side = component, 1
    while np.count_nonzero(region) > MAX_PIXELS:
        height, width = region.shape[0] // 2 * 2, region.shape[1] // 2 * 2
        halved = np.asarray(region[:height, :width].reshape(height // 2, 2, width // 2, 2).all(axis=(1, 3)))
        if not halved.any():
            break
        region, side = halved, 2 * side
    return region, side


def _costs(region: Region, random: np.random.Generator) -> NDArray[np.float64]:
    """Return random smooth costs of the pixels of a region, which are lower far from its border."""
    from scipy.ndimage import gaussian_filter

    noise = gaussian_filter(random.standard_normal(region.shape), GRAIN * max(region.shape))
    low, high = noise.min(), noise.max()
    return np.asarray((1 + WINDING * (noise - low) / max(high - low, 1e-12)) / np.maximum(depth(region), 1))


def _graph(region: Region, costs: NDArray[np.float64], *, diagonal: bool) -> "csr_array":
    """Return the costs (pixels, pixels) of steps between neighbours in a region, whose pixels are counted by rows."""
    from scipy.sparse import csr_array

    numbers = np.full(region.shape, -1, np.int64)
    numbers[region] = np.arange(np.count_nonzero(region))
    height, width = region.shape
    parts = []
    for down, right in ((0, 1), (1, 0), *(((1, 1), (1, -1)) if diagonal else ())):
        here = slice(0, height - down), slice(max(-right, 0), width - max(right, 0))
        there = slice(down, height), slice(max(right, 0), width + min(right, 0))
        both = region[here] & region[there]
        steps = np.hypot(down, right) * (costs[here] + costs[there])[both] / 2
        parts.append((numbers[here][both], numbers[there][both], steps))
    starts, ends, steps = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    count = int(numbers.max()) + 1
    entries = np.concatenate([steps, steps]), (np.concatenate([starts, ends]), np.concatenate([ends, starts]))
    return csr_array(entries, shape=(count, count))


def _farthest(distances: NDArray[np.float64]) -> int:
    """Return the number of the farthest pixel that can be reached, from distances (1, pixels)."""
    return int(np.argmax(np.where(np.isfinite(distances), distances, -1.0)))


def _in_pixels(blocks: NDArray[np.int64], side: int) -> NDArray[np.int64]:
    """Return the pixels on the lines between the middles of neighbouring blocks."""
    middles = blocks * side + side // 2
    steps = np.arange(side)[:, None]
    lines = [start + steps * (end - start) // side for start, end in pairwise(middles)]
    return np.concatenate([*lines, middles[-1:]])
