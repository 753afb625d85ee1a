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
def sliding_window(
    predict: Callable[[Pixels], Tensor], pixels: Pixels, window: tuple[int, int], *, mirrored: bool
) -> Tensor:
    """Return (channels, H, W) probabilities of an image cut into windows that overlap by half.

    The weight of a window falls linearly from its centre to its edges.

    Args:
        predict: Returns the probabilities (n, channels, height, width) of windows (n, height, width[, channels]).
        pixels: (H, W) or (H, W, channels).
        window: Height and width of a window in pixels.
        mirrored: Whether images smaller than a window are mirrored at the lower and right border, else padded with 0.
    """
    height, width = pixels.shape[:2]
    rows, columns = max(height, window[0]), max(width, window[1])
    padding = [(0, rows - height), (0, columns - width), (0, 0)][: pixels.ndim]
    padded = np.pad(pixels, padding, mode="symmetric" if mirrored else "constant")
    corners = list(product(_starts(rows, window[0]), _starts(columns, window[1])))
    weight, total = _weights(window), torch.zeros(rows, columns)
    blended: Tensor | None = None
    for first in range(0, len(corners), BATCH):
        places = [
            (slice(top, top + window[0]), slice(left, left + window[1])) for top, left in corners[first : first + BATCH]
        ]
        predicted = predict(np.stack([padded[place] for place in places])).cpu()
        blended = torch.zeros(predicted.shape[1], rows, columns) if blended is None else blended
        for place, probabilities in zip(places, predicted, strict=True):
            blended[:, *place] += probabilities * weight
            total[place] += weight
    assert blended is not None, "every image has a window"
    return (blended / total)[:, :height, :width].clamp_(0.0, 1.0)


def _starts(length: int, side: int) -> list[int]:
    """Return the offsets of evenly spaced windows, the first and the last at the borders of the image."""
    steps = max(0, -(-(length - side) * OVERLAP // side))
    return sorted({round(start) for start in np.linspace(0, length - side, steps + 1)})


def _weights(window: tuple[int, int]) -> Tensor:
    """Return (height, width) weights that fall linearly from the centre to the edges and stay positive."""
    down, across = (1 - (torch.arange(side) - (side - 1) / 2).abs() / (side / 2 + 0.5) for side in window)
    return down[:, None] * across
