"""Class probabilities of whole images from networks with square inputs."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from datasets.source import Pixels
from datasets.targets import Fit, fit_image
from study.training.load_model import Model, unfitted
from study.training.loader import to_images

OVERLAP = 2
"""Number of tiles along each axis that cover a pixel away from the border."""


class Predictor:
    """Mean class probabilities of one or more networks of the same arm.

    Images are (H, W) grey or (H, W, 3) RGB.
    """

    def __init__(self, models: Sequence[Model]) -> None:
        self.models = models
        self.image = models[0].image
        self.device = next(models[0].network.parameters()).device

    def probabilities(self, pixels: Pixels, *, size: int | None = None, tile: int | None = None) -> Tensor:
        """Return (channels, H, W) at the size of the image, or (channels, size, size).

        `tile` is the side of overlapping tiles in pixels; default: the image is predicted without tiles.
        """
        height, width = (size, size) if size else pixels.shape[:2]
        if tile is None:
            return self.predict_whole(pixels, height, width)
        probabilities = self.predict_tiled(pixels, tile)
        if size is None:
            return probabilities
        resized = torch.nn.functional.interpolate(
            probabilities[None], (height, width), mode="bilinear", align_corners=False
        )
        return resized[0]

    @torch.no_grad()
    def predict_square(self, pixels: Pixels) -> Tensor:
        """Return (channels, S, S) of an image fitted to the input size S as in training."""
        images = to_images(torch.from_numpy(fit_image(pixels, self.image)[None]), self.device)
        by_model = [model.task.probabilities(model.network(images).float())[0] for model in self.models]
        return (by_model[0] if len(by_model) == 1 else torch.stack(by_model).mean(dim=0)).cpu()

    def predict_whole(self, pixels: Pixels, height: int, width: int) -> Tensor:
        """Return (channels, height, width) of an image that is predicted without tiles."""
        fit = Fit(height=pixels.shape[0], width=pixels.shape[1], size=self.image.size, fit=self.image.fit)
        return unfitted(self.predict_square(pixels), fit, height, width)

    def predict_tiled(self, pixels: Pixels, side: int) -> Tensor:
        """Return (channels, H, W) of an image cut into tiles of this side that overlap by half.

        The weight of a tile falls linearly from its centre to its edges. Images smaller than a tile are padded with
        zeros, as by letterbox fitting.
        """
        height, width = pixels.shape[:2]
        rows, columns = (max(length, side) for length in (height, width))
        padding = [(0, rows - height), (0, columns - width), (0, 0)][: pixels.ndim]
        padded = np.pad(pixels, padding)
        weight, total = _weights(side), torch.zeros(rows, columns)
        blended: Tensor | None = None
        for top in _starts(rows, side):
            for left in _starts(columns, side):
                window = (slice(top, top + side), slice(left, left + side))
                probabilities = self.predict_whole(np.ascontiguousarray(padded[window]), side, side)
                blended = torch.zeros(len(probabilities), rows, columns) if blended is None else blended
                blended[:, *window] += probabilities * weight
                total[window] += weight
        assert blended is not None
        return (blended / total)[:, :height, :width].clamp_(0.0, 1.0)


def _starts(length: int, side: int) -> list[int]:
    """Return the offsets of evenly spaced tiles, the first and the last at the borders of the image."""
    steps = max(0, -(-(length - side) * OVERLAP // side))
    return sorted({round(start) for start in np.linspace(0, length - side, steps + 1)})


def _weights(side: int) -> Tensor:
    """Return (side, side) weights that fall linearly from the centre to the edges and stay positive."""
    along = 1 - (torch.arange(side) - (side - 1) / 2).abs() / (side / 2 + 0.5)
    return along[:, None] * along
