"""Class probabilities of whole images from networks with inputs of a fixed size."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from datasets.source import Pixels
from datasets.targets import Fit, fit_image, scaled_image
from study.training.load_model import Model, resized, unfitted
from study.training.loader import to_images
from study.training.sliding_window import sliding_window


class Predictor:
    """Mean class probabilities of one or more networks of the same arm.

    Images are (H, W) grey or (H, W, C).
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
        return probabilities if size is None else resized(probabilities, height, width)

    def predict_whole(self, pixels: Pixels, height: int, width: int) -> Tensor:
        """Return (channels, height, width) of an image, fitted to the input of the network as in training."""
        if self.image.fit == "patch":
            return resized(self.predict_patches(pixels), height, width)
        fit = Fit.of(self.image, pixels.shape[0], pixels.shape[1])
        return unfitted(self.predict_input(pixels), fit, height, width)

    def predict_input(self, pixels: Pixels) -> Tensor:
        """Return (channels, height, width) of an image fitted to the input as in training."""
        return self._predict(fit_image(pixels, self.image)[None])[0]

    def predict_patches(self, pixels: Pixels) -> Tensor:
        """Return (channels, H, W) of a scaled image, from windows of the size of the patches in training."""
        scaled = scaled_image(pixels, self.image)
        return sliding_window(self._predict, scaled, self.image.shape, mirrored=True)

    def predict_tiled(self, pixels: Pixels, side: int) -> Tensor:
        """Return (channels, H, W) of an image cut into overlapping tiles of this side, each predicted as an image.

        Images smaller than a tile are padded with zeros, as by letterbox fitting.
        """

        def predict(tiles: Pixels) -> Tensor:
            return torch.stack([self.predict_whole(tile, side, side) for tile in tiles])

        return sliding_window(predict, pixels, (side, side), mirrored=False)

    @torch.no_grad()
    def _predict(self, inputs: Pixels) -> Tensor:
        """Return the mean probabilities (n, channels, H, W) of network inputs (n, H, W, channels)."""
        images = to_images(torch.from_numpy(np.ascontiguousarray(inputs)), self.device)
        by_model = [model.task.probabilities(model.network(images).float()) for model in self.models]
        return (by_model[0] if len(by_model) == 1 else torch.stack(by_model).mean(dim=0)).cpu()
