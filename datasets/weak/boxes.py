"""Bounding boxes of the components of masks."""

from collections.abc import Sequence

from datasets.source import Box, Pixels
from datasets.weak.regions import class_regions, components


def mask_boxes(masks: Pixels, classes: Sequence[str], *, min_pixels: int = 1) -> tuple[Box, ...]:
    """Return the bounding box of each component of each class.

    Args:
        masks: The masks of an image.
        classes: Their classes.
        min_pixels: Smaller components have no box.
    """
    return tuple(
        Box(name=name, x=part.left, y=part.top, width=part.pixels.shape[1], height=part.pixels.shape[0])
        for name, region in class_regions(masks, classes)
        for part in components(region, min_pixels)
    )
