"""Bounding boxes of the components of masks."""

from collections.abc import Sequence

import numpy as np

from datasets.source import IGNORE, Box, Pixels
from datasets.weak.regions import Component, class_regions, components


def mask_boxes(masks: Pixels, classes: Sequence[str], *, min_pixels: int = 1) -> tuple[Box, ...]:
    """Return the bounding box of each component of each class.

    Components beside pixels that are not annotated have none, as they may go on there.

    Args:
        masks: The masks of an image.
        classes: Their classes.
        min_pixels: Smaller components have no box.
    """
    planes = [masks] * len(classes) if masks.ndim == 2 else masks
    return tuple(
        Box(name=name, x=part.left, y=part.top, width=part.pixels.shape[1], height=part.pixels.shape[0])
        for plane, (name, region) in zip(planes, class_regions(masks, classes), strict=True)
        for part in _complete(components(region, min_pixels), plane)
    )


def _complete(parts: Sequence[Component], plane: Pixels) -> Sequence[Component]:
    """Return the components that touch no pixel that is not annotated."""
    from scipy.ndimage import binary_dilation

    unknown = plane == IGNORE
    if not parts or not unknown.any():
        return parts
    beside = binary_dilation(unknown, np.ones((3, 3), np.bool_))
    return [part for part in parts if not (beside[part.place] & part.pixels).any()]
