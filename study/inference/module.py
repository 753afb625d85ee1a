"""A trained network as a module of torch, with the preparation of its inputs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from datasets.decoding.decode import pixels_of
from datasets.errors import DataError
from datasets.targets import fit_image, scaled_image
from models.counts import predicted_masks
from study.errors import ConfigError, Problem
from study.inference.arrays import spacing_of
from study.training.load_model import Model
from study.training.loader import to_images


class SegmentationModule(nn.Module):
    """Maps prepared images (N, channels, H, W) in 0..1 to probabilities (N, outputs, H, W) in 0..1.

    The network subtracts the mean and divides by the standard deviation of its training weights itself. `prepare`
    does what comes before: it converts colours, applies `prepare` of the study file and resizes to `shape`; with
    `image.fit: patch` it only scales. Images of other sizes than `shape` are accepted, but the network was trained at
    that size. Its parameters are frozen; `requires_grad_()` prepares them for training.

    Attributes:
        classes: Names of the classes.
        channels: The class of each output: the classes, with the background first if they exclude each other.
        exclusive: Whether the classes exclude each other.
        shape: Height and width of the input in pixels.
        threshold: The probability from which a pixel belongs to a class.
        metadata: What another program needs to use the network, as `study export` writes it.
    """

    def __init__(self, model: Model, *, threshold: float, metadata: Mapping[str, Any]) -> None:
        super().__init__()
        self.network = model.network
        self.classes = model.outputs.names
        self.exclusive = model.outputs.exclusive
        self.channels = ("background", *self.classes) if self.exclusive else self.classes
        self.shape = model.image.shape
        self.threshold = threshold
        self.metadata = dict(metadata)
        self._image = model.image
        self.requires_grad_(requires_grad=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return the probabilities (N, outputs, H, W) of prepared images (N, channels, H, W) in 0..1."""
        logits: Tensor = self.network(images).float()
        return logits.softmax(dim=1) if self.exclusive else logits.sigmoid()

    def prepare(self, image: object, *, spacing: Sequence[float] = ()) -> Tensor:
        """Return an image as the network expects it, float32 (1, channels, H, W) in 0..1.

        Args:
            image: (H, W) or (H, W, C), an array as for `Study.predict`.
            spacing: Height and width of a pixel in mm, if the study sets `image.spacing`.

        Raises:
            ConfigError: The image does not fit the network.
        """
        try:
            pixels = pixels_of(image, "the image")
            spacing = spacing_of(spacing, self._image)
            if self._image.fit == "patch":
                fitted = np.ascontiguousarray(scaled_image(pixels, self._image, spacing))
            else:
                fitted = fit_image(pixels, self._image)
        except DataError as error:
            raise ConfigError([Problem(path="", message=str(error))], "study model") from error
        return to_images(torch.from_numpy(fitted)[None], next(self.parameters()).device)

    def masks(self, probabilities: Tensor) -> Tensor:
        """Return the masks, bool (N, classes, H, W), of probabilities, without post-processing."""
        return predicted_masks(probabilities, exclusive=self.exclusive, threshold=self.threshold)
