"""Which classes an image shows."""

import numpy as np
from numpy.typing import NDArray

from datasets.source import IGNORE, Pixels


def mask_presence(masks: Pixels, classes: int) -> NDArray[np.float32]:
    """Return (classes,): 1 present, 0 absent from the annotated pixels, NaN without an annotated pixel.

    Args:
        masks: The masks of an image.
        classes: Number of classes.
    """
    planes = [masks] * classes if masks.ndim == 2 else list(masks)
    values = range(1, classes + 1) if masks.ndim == 2 else [1] * classes
    return np.array(
        [
            float((plane == value).any()) if (plane != IGNORE).any() else np.nan
            for plane, value in zip(planes, values, strict=True)
        ],
        np.float32,
    )
