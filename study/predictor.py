"""Probabilities of whole pictures at their own size, from networks that see squares."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from datasets.sample import Pixels
from datasets.targets import Fit, fit_image
from study.feed import to_images
from study.model import Model, unfitted

OVERLAP = 2
"""Every pixel but the outermost lies in so many tiles along each side."""


class Predictor:
    """Probabilities of pictures, the mean over networks of one cell."""

    def __init__(self, models: Sequence[Model]) -> None:
        self.models = models
        self.image = models[0].image
        self.device = next(models[0].network.parameters()).device

    @torch.no_grad()
    def square(self, pixels: Pixels) -> Tensor:
        """Return (channels, S, S) of a picture fitted as in training: (H, W) grey or (H, W, 3) RGB."""
        images = to_images(torch.from_numpy(fit_image(pixels, self.image)[None]), self.device)
        answers = [model.task.probabilities(model.network(images).float())[0] for model in self.models]
        return (answers[0] if len(answers) == 1 else torch.stack(answers).mean(dim=0)).cpu()

    def whole(self, pixels: Pixels, height: int, width: int) -> Tensor:
        """Return (channels, height, width) of a picture that is shown to the network as a whole."""
        fit = Fit(height=pixels.shape[0], width=pixels.shape[1], size=self.image.size, fit=self.image.fit)
        return unfitted(self.square(pixels), fit, height, width)

    def tiled(self, pixels: Pixels, side: int) -> Tensor:
        """Return (channels, H, W) of a picture shown in tiles of this side that overlap by half.

        Tiles count the more the nearer a pixel is to their middle. Beyond the picture is black, as in letterboxes.
        """
        height, width = pixels.shape[:2]
        rows, columns = (max(length, side) for length in (height, width))
        padding = [(0, rows - height), (0, columns - width), (0, 0)][: pixels.ndim]
        padded = np.pad(pixels, padding)
        weight, total = _weights(side), torch.zeros(rows, columns)
        blended: Tensor | None = None
        for top in _starts(rows, side):
            for left in _starts(columns, side):
                place = (slice(top, top + side), slice(left, left + side))
                found = self.whole(np.ascontiguousarray(padded[place]), side, side)
                blended = torch.zeros(len(found), rows, columns) if blended is None else blended
                blended[:, *place] += found * weight
                total[place] += weight
        assert blended is not None
        return (blended / total)[:, :height, :width].clamp_(0.0, 1.0)


def _starts(length: int, side: int) -> list[int]:
    """Return where tiles begin, evenly spread, the first and the last at the picture's ends."""
    steps = max(0, -(-(length - side) * OVERLAP // side))
    return sorted({round(place) for place in np.linspace(0, length - side, steps + 1)})


def _weights(side: int) -> Tensor:
    """Return (side, side): falls linearly from the middle to the edges, above 0 everywhere."""
    along = 1 - (torch.arange(side) - (side - 1) / 2).abs() / (side / 2 + 0.5)
    return along[:, None] * along
