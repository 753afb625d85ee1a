"""Predict an image by overlapping windows, with weights that fall towards their edges."""

from collections.abc import Callable
from itertools import product

import numpy as np
import torch
from torch import Tensor

from datasets.source import Pixels

OVERLAP = 2
"""Number of windows along each axis that cover a pixel away from the border."""
BATCH = 8
"""Maximum number of windows that are predicted at once."""


@torch.no_grad()
def sliding_window(predict: Callable[[Pixels], Tensor], pixels: Pixels, side: int, *, mirrored: bool) -> Tensor:
    """Return (channels, H, W) probabilities of an image cut into squares of this side that overlap by half.

    The weight of a window falls linearly from its centre to its edges.

    Args:
        predict: Returns the probabilities (n, channels, side, side) of windows (n, side, side[, 3]).
        pixels: (H, W) or (H, W, channels).
        side: Height and width of a window in pixels.
        mirrored: Whether images smaller than a window are mirrored at the lower and right border, else padded with 0.
    """
    height, width = pixels.shape[:2]
    rows, columns = (max(length, side) for length in (height, width))
    padding = [(0, rows - height), (0, columns - width), (0, 0)][: pixels.ndim]
    padded = np.pad(pixels, padding, mode="symmetric" if mirrored else "constant")
    corners = list(product(_starts(rows, side), _starts(columns, side)))
    weight, total = _weights(side), torch.zeros(rows, columns)
    blended: Tensor | None = None
    for first in range(0, len(corners), BATCH):
        places = [(slice(top, top + side), slice(left, left + side)) for top, left in corners[first : first + BATCH]]
        windows = predict(np.stack([padded[place] for place in places])).cpu()
        blended = torch.zeros(windows.shape[1], rows, columns) if blended is None else blended
        for place, window in zip(places, windows, strict=True):
            blended[:, *place] += window * weight
            total[place] += weight
    assert blended is not None, "every image has a window"
    return (blended / total)[:, :height, :width].clamp_(0.0, 1.0)


def _starts(length: int, side: int) -> list[int]:
    """Return the offsets of evenly spaced windows, the first and the last at the borders of the image."""
    steps = max(0, -(-(length - side) * OVERLAP // side))
    return sorted({round(start) for start in np.linspace(0, length - side, steps + 1)})


def _weights(side: int) -> Tensor:
    """Return (side, side) weights that fall linearly from the centre to the edges and stay positive."""
    along = 1 - (torch.arange(side) - (side - 1) / 2).abs() / (side / 2 + 0.5)
    return along[:, None] * along
