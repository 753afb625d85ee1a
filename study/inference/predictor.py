"""Class probabilities of whole images from networks with inputs of a fixed size."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from datasets.source import Pixels
from datasets.targets import Fit, fit_image, scaled_image
from study.config.evaluation import TtaName
from study.training.load_model import Model, without_padding
from study.training.loader import to_images
from study.training.prediction.bands import Band, resized_bands, whole
from study.training.prediction.sliding_window import window_bands
from study.training.prediction.views import mean_probabilities, views_of


class Predictor:
    """Mean class probabilities of one or more networks of the same arm.

    Images are (H, W) grey or (H, W, C).

    Args:
        models: The networks.
        tta: Test-time augmentation of each network; default: none.
    """

    def __init__(self, models: Sequence[Model], tta: Sequence[Sequence[TtaName]] | None = None) -> None:
        self.models = models
        self._views = [views_of(names) for names in tta or [()] * len(models)]
        self.image = models[0].image
        self.device = next(models[0].network.parameters()).device

    def probabilities(
        self,
        pixels: Pixels,
        *,
        size: tuple[int, int] | None = None,
        tile: int | None = None,
        spacing: Sequence[float] = (),
    ) -> Tensor:
        """Return (channels, H, W) at the size of the image, or at `size`; see `bands`."""
        return whole(self.bands(pixels, size=size, tile=tile, spacing=spacing))

    def bands(
        self,
        pixels: Pixels,
        *,
        size: tuple[int, int] | None = None,
        tile: int | None = None,
        spacing: Sequence[float] = (),
    ) -> Iterator[Band]:
        """Yield the probabilities at the size of the image, or at `size`, in bands of rows.

        Args:
            pixels: The image.
            size: Height and width of the output; default: those of the image.
            tile: Side of overlapping tiles in pixels; default: the image is predicted without tiles.
            spacing: Size of a pixel in mm as in `Index.spacings`; empty if it is unknown.

        Raises:
            DataError: The networks were trained with `ImageSettings.spacing`, and that of the image is unknown.
        """
        height, width = pixels.shape[:2]
        new_size = size or (height, width)
        if tile is None:
            return self._whole_bands(pixels, new_size, spacing)
        return resized_bands(self._tiled_bands(pixels, tile, spacing), (height, width), new_size)

    def predict_input(self, pixels: Pixels) -> Tensor:
        """Return (channels, height, width) of an image fitted to the input as in training."""
        return self._predict(fit_image(pixels, self.image)[None])[0]

    def _whole_bands(self, pixels: Pixels, new_size: tuple[int, int], spacing: Sequence[float]) -> Iterator[Band]:
        """Yield the probabilities of an image, fitted to the input of the network or in windows, as in training."""
        if self.image.fit == "patch":
            scaled = scaled_image(pixels, self.image, spacing)
            bands = window_bands(self._predict, scaled, self.image.shape, mirrored=True)
            return resized_bands(bands, (scaled.shape[0], scaled.shape[1]), new_size)
        fit = Fit.of(self.image, pixels.shape[0], pixels.shape[1])
        inner = without_padding(self.predict_input(pixels), fit)
        return resized_bands([Band(0, inner)], (inner.shape[1], inner.shape[2]), new_size)

    def _tiled_bands(self, pixels: Pixels, side: int, spacing: Sequence[float]) -> Iterator[Band]:
        """Yield the probabilities of an image cut into overlapping tiles of this side, each predicted as an image.

        Images smaller than a tile are padded with zeros, as by letterbox fitting.
        """

        def predict(tiles: Pixels) -> Tensor:
            return torch.stack([whole(self._whole_bands(tile, (side, side), spacing)) for tile in tiles])

        return window_bands(predict, pixels, (side, side), mirrored=False)

    def _predict(self, inputs: Pixels) -> Tensor:
        """Return the mean probabilities (n, channels, H, W) of network inputs (n, H, W, channels)."""
        images = to_images(torch.from_numpy(np.ascontiguousarray(inputs)), self.device)
        networks = [model.network for model in self.models]
        return mean_probabilities(networks, self.models[0].task, images, self._views).cpu()
