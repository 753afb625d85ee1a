"""Scribbles in the input of a network."""

import numpy as np

from datasets.resampling import sampled
from datasets.settings import ImageSettings
from datasets.source import IGNORE, Pixels
from datasets.targets import Fit


def fit_scribbles(scribbles: Pixels, settings: ImageSettings) -> Pixels:
    """Fit scribbles (height, width) or (classes, height, width) into the input, without losing thin ones.

    A side that grows is sampled by nearest neighbour. Where a side shrinks, a pixel of the input has the value of the
    annotated pixels that fall into it, `IGNORE` if they differ. Padding is `IGNORE`.
    """
    fit = Fit.of(settings, scribbles.shape[-2], scribbles.shape[-1])
    _, _, height, width = fit.inner
    planes = scribbles.reshape(-1, fit.height, fit.width)
    fitted = np.full((len(planes), *settings.shape), IGNORE, np.uint8)
    for plane, place in zip(planes, fit.crop(fitted), strict=True):
        grown = sampled(plane, max(height, fit.height), max(width, fit.width))
        place[:] = _gathered(grown, height, width)
    return fitted.reshape(*scribbles.shape[:-2], *settings.shape)


def _gathered(plane: Pixels, height: int, width: int) -> Pixels:
    """Shrink (H, W): each pixel has the value of the annotated pixels whose centres it contains."""
    rows, columns = np.nonzero(plane != IGNORE)
    values = plane[rows, columns]
    places = (2 * rows + 1) * height // (2 * plane.shape[0]), (2 * columns + 1) * width // (2 * plane.shape[1])
    lowest, highest = np.full((height, width), IGNORE, np.uint8), np.zeros((height, width), np.uint8)
    np.minimum.at(lowest, places, values)
    np.maximum.at(highest, places, values)
    return np.where(lowest == highest, lowest, IGNORE)


def agreeing(labels: Pixels, masks: Pixels) -> Pixels:
    """Return labels of pixels where they are those of masks of the same shape, `IGNORE` elsewhere."""
    return np.where(labels == masks, labels, IGNORE)
