"""Regions of masks: the pixels of each class and of the background, and their connected components."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datasets.source import IGNORE, Pixels

Region = NDArray[np.bool_]
"""Pixels (height, width)."""
Key = tuple[int | str, ...]
"""Such as the seed and the id of an image: equal keys give equal weak labels of equal masks in any process."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Component:
    """A connected component of a region: its bounding box, and its pixels inside of it."""

    top: int
    left: int
    pixels: Region

    @property
    def place(self) -> tuple[slice, slice]:
        """Return rows and columns of the bounding box."""
        height, width = self.pixels.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


def class_regions(masks: Pixels, classes: Sequence[str]) -> Iterator[tuple[str, Region]]:
    """Yield the foreground of each class."""
    for number, name in enumerate(classes):
        yield name, np.asarray(masks == number + 1 if masks.ndim == 2 else masks[number] == 1)


def background_region(masks: Pixels) -> Region:
    """Return the pixels that belong to no class.

    Overlapping classes that are not annotated are left out; pixels that other ones leave open are no background.
    """
    if masks.ndim == 2:
        return np.asarray(masks == 0)
    annotated = [plane for plane in masks if (plane != IGNORE).any()]
    if not annotated:
        return np.zeros(masks.shape[1:], np.bool_)
    return np.asarray(np.logical_and.reduce([plane == 0 for plane in annotated]))


def components(region: Region, min_pixels: int = 1) -> list[Component]:
    """Return the connected components (8 neighbours) of at least `min_pixels` pixels, from top to bottom."""
    from scipy.ndimage import find_objects, label

    labels, _ = label(region, np.ones((3, 3)))
    parts = [
        Component(top=rows.start, left=columns.start, pixels=labels[rows, columns] == number)
        for number, (rows, columns) in enumerate(find_objects(labels), start=1)
    ]
    return [part for part in parts if np.count_nonzero(part.pixels) >= min_pixels]


def depth(region: Region) -> NDArray[np.float64]:
    """Return the distance of each pixel of a region to the nearest pixel outside; the image ends the region."""
    from scipy.ndimage import distance_transform_edt

    return np.asarray(distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1])
