"""Which classes an image shows."""

import numpy as np
from numpy.typing import NDArray

from datasets.source import IGNORE, Pixels


def mask_presence(masks: Pixels, classes: int) -> NDArray[np.float32]:
    """Return (classes,): 1 present, 0 absent, NaN where neither is known, as pixels are not annotated.

    Args:
        masks: The masks of an image.
        classes: Number of classes.
    """
    ids = range(1, classes + 1)
    is_shown = [(masks == number).any() for number in ids] if masks.ndim == 2 else (masks == 1).any(axis=(1, 2))
    absent = np.where(fully_annotated(masks, classes), 0.0, np.nan)
    return np.where(is_shown, 1.0, absent).astype(np.float32)


def fully_annotated(masks: Pixels, classes: int) -> NDArray[np.bool_]:
    """Return (classes,): whether all pixels of an image are annotated for a class."""
    if masks.ndim == 2:
        return np.full(classes, not (masks == IGNORE).any())
    return np.asarray((masks != IGNORE).all(axis=(1, 2)))
