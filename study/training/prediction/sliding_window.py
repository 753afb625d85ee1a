"""Predict an image by overlapping windows, with weights that fall towards their edges."""

from collections.abc import Callable, Iterator
from itertools import product

import numpy as np
import torch
from torch import Tensor

from datasets.large import is_large, release
from datasets.source import Pixels
from study.training.prediction.bands import Band

OVERLAP = 2
"""Number of windows along each axis that cover a pixel away from the border."""
BATCH = 8
"""Maximum number of windows that are predicted at once."""


@torch.no_grad()
def window_bands(
    predict: Callable[[Pixels], Tensor], pixels: Pixels, window: tuple[int, int], *, mirrored: bool
) -> Iterator[Band]:
    """Yield the probabilities of an image cut into windows that overlap by half, from top to bottom.

    The weight of a window falls linearly from its centre to its edges. A band ends where the next windows start.

    Args:
        predict: Returns the probabilities (n, channels, height, width) of windows (n, height, width[, channels]).
        pixels: (H, W) or (H, W, channels).
        window: Height and width of a window in pixels.
        mirrored: Whether images smaller than a window are mirrored at the lower and right border, else padded with 0.
    """
    height, width = pixels.shape[:2]
    rows, columns = max(height, window[0]), max(width, window[1])
    corners = list(product(_starts(rows, window[0]), _starts(columns, window[1])))
    strips = _Strips(pixels, window, mirrored=mirrored)
    sums: _WeightedSums | None = None
    for first in range(0, len(corners), BATCH):
        batch = corners[first : first + BATCH]
        predicted = predict(np.stack([strips.window(top, left) for top, left in batch])).cpu()
        sums = sums or _WeightedSums(predicted.shape[1], window, columns)
        for (top, left), probabilities in zip(batch, predicted, strict=True):
            if top > sums.top:
                yield sums.finish(top, width)
            sums.add(probabilities, left)
    assert sums is not None, "every image has a window"
    yield sums.finish(height, width)


class _Strips:
    """The rows of an image that windows of one top cover, padded to the size of a window."""

    def __init__(self, pixels: Pixels, window: tuple[int, int], *, mirrored: bool) -> None:
        self._pixels, self._window = pixels, window
        self._mode: str = "symmetric" if mirrored else "constant"
        self._top, self._strip = -1, pixels[:0]

    def window(self, top: int, left: int) -> Pixels:
        """Return the window (height, width[, channels]) at a corner."""
        if top != self._top:
            self._top, self._strip = top, self._read(top)
        return self._strip[:, left : left + self._window[1]]

    def _read(self, top: int) -> Pixels:
        strip = np.asarray(self._pixels[top : top + self._window[0]])
        missing = [max(side - length, 0) for side, length in zip(self._window, strip.shape[:2], strict=True)]
        padding = [(0, length) for length in missing] + [(0, 0)] * (strip.ndim - 2)
        padded = np.pad(strip, padding, mode=self._mode)  # type: ignore[call-overload]
        if is_large(*self._pixels.shape[:2]):
            release(self._pixels)
        return np.asarray(padded, np.uint8)


class _WeightedSums:
    """Weighted sums of the windows that cover the rows from `top` on."""

    def __init__(self, channels: int, window: tuple[int, int], columns: int) -> None:
        self.top = 0
        self._weight = _weights(window)
        self._blended, self._total = torch.zeros(channels, window[0], columns), torch.zeros(window[0], columns)

    def add(self, window: Tensor, left: int) -> None:
        """Add a window (channels, height, width) whose first row is `top`."""
        columns = slice(left, left + window.shape[-1])
        self._blended[:, :, columns] += window * self._weight
        self._total[:, columns] += self._weight

    def finish(self, top: int, width: int) -> Band:
        """Return the probabilities of the rows before `top`, to which no more windows are added."""
        rows = top - self.top
        band = Band(self.top, (self._blended[:, :rows] / self._total[:rows])[:, :, :width].clamp_(0.0, 1.0))
        for sums in (self._blended, self._total):
            kept = sums[..., rows:, :].clone()
            sums.zero_()
            sums[..., : kept.shape[-2], :] = kept
        self.top = top
        return band


def _starts(length: int, side: int) -> list[int]:
    """Return the offsets of evenly spaced windows, the first and the last at the borders of the image."""
    steps = max(0, -(-(length - side) * OVERLAP // side))
    return sorted({round(start) for start in np.linspace(0, length - side, steps + 1)})


def _weights(window: tuple[int, int]) -> Tensor:
    """Return (height, width) weights that fall linearly from the centre to the edges and stay positive."""
    down, across = (1 - (torch.arange(side) - (side - 1) / 2).abs() / (side / 2 + 0.5) for side in window)
    return down[:, None] * across
