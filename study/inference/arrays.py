"""Predictions of images in memory, as `study predict` writes them to files."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from datasets.decoding.decode import pixels_of
from datasets.errors import DataError
from datasets.settings import ImageSettings
from datasets.source import Pixels
from datasets.targets import check_channels
from study.errors import ConfigError, Problem
from study.inference.inputs import COMMAND, InputImage, find_images, group_channels
from study.inference.networks import CellNetworks
from study.inference.outputs import draw_outlines, largest_slice
from study.training.prediction.masks import Masks, PredictedMasks, ids_of, volume_masks


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """The prediction of an image (H, W), or of a volume (S, H, W) with S slices, at its own size.

    Attributes:
        channels: The class of each channel of `probabilities`: the classes, with the background first if they exclude
            each other.
        classes: The classes of `masks`.
        exclusive: Whether the classes exclude each other.
        probabilities: float32 (channels, [S,] H, W) in 0..1.
        masks: bool (classes, [S,] H, W), after the post-processing of the study.
        threshold: The probability from which a pixel belongs to a class; of several exclusive classes the most
            probable one is taken instead.
        networks: Digests of the networks whose mean the probabilities are.
        out_of_fold: Whether the image is one of the study's own, and in the test split of all these networks. None for
            a file if the study's own images cannot be recognised, such as without its data.
        pixels: uint8 ([S,] H, W) grey or ([S,] H, W, C), the image after decoding.
        file: Path of the image, None for an array.
    """

    channels: tuple[str, ...]
    classes: tuple[str, ...]
    exclusive: bool
    probabilities: NDArray[np.float32] = field(repr=False)
    masks: Masks = field(repr=False)
    threshold: float
    networks: tuple[str, ...]
    out_of_fold: bool | None
    pixels: Pixels = field(repr=False)
    file: Path | None = None

    @property
    def labels(self) -> Pixels:
        """Return uint8 ([S,] H, W) with 0 for the background and the number of the class, from 1 on.

        Raises:
            ConfigError: Classes overlap; use `masks`.
        """
        if not self.exclusive:
            message = f"the classes {', '.join(self.classes)} may overlap, so that a pixel has no single label"
            raise _config_error(f"{message}; allowed: exclusive classes; use masks")
        return ids_of(self.masks)

    def overlay(self) -> Pixels:
        """Return uint8 (H, W, 3), the image with the outlines of its masks, of a volume the slice with the largest."""
        pixels, masks = self.pixels, self.masks
        if masks.ndim == 4:
            number = largest_slice(masks)
            pixels, masks = pixels[number], masks[:, number]
        return draw_outlines(pixels, masks)


def spacing_of(spacing: Sequence[float], settings: ImageSettings) -> tuple[float, ...]:
    """Return the spacing of an image in memory after checks: two positive numbers if the network needs them, else none.

    Raises `DataError`.
    """
    needed = settings.spacing
    if needed is None:
        if np.size(spacing) > 0:
            message = f"spacing is {spacing}, and the study sets no image.spacing; allowed: none; leave it out"
            raise DataError(message)
        return ()
    try:
        values = np.asarray(spacing, np.float64)
    except (TypeError, ValueError):
        values = np.zeros(0)
    if values.shape != (2,) or not (np.isfinite(values) & (values > 0)).all():
        allowed = "allowed: height and width of a pixel in mm, two numbers above 0"
        raise DataError(f"spacing is {spacing}, and the study sets image.spacing {needed:g} mm; {allowed}; give them")
    return tuple(values.tolist())


def predict_array(networks: CellNetworks, image: object, *, spacing: Sequence[float] = ()) -> Prediction:
    """Return the prediction of one image.

    Args:
        networks: The networks.
        image: As for `datasets.decoding.decode.pixels_of`.
        spacing: Height and width of a pixel in mm, if the networks need it.

    Raises:
        ConfigError: The image does not fit the networks.
    """
    try:
        pixels = pixels_of(image, "the image")
        check_channels(pixels, networks.first.image, "the image")
        return _predict(networks, pixels[None], spacing_of(spacing, networks.first.image), None)
    except DataError as error:
        raise _config_error(str(error)) from error


def predict_files(networks: CellNetworks, paths: Sequence[Path]) -> Iterator[Prediction]:
    """Yield the prediction of each image and volume among files and folders, in the order of `study predict`.

    Raises:
        ConfigError: There are no images, or one cannot be read or does not fit the networks.
    """
    images = find_images(paths, None)
    if networks.first.channel_files:
        images = group_channels(images, networks.first.channel_files)
    for image in images:
        try:
            yield _predict_file(networks, image)
        except DataError as error:
            raise _config_error(str(error)) from error


def _predict_file(networks: CellNetworks, image: InputImage) -> Prediction:
    decoded = networks.read(image)
    geometry = decoded.geometry
    pixels = decoded.pixels if geometry.slices else decoded.pixels[None]
    return _predict(
        networks, pixels, tuple(geometry.spacing), image.file, order=geometry.frame_order, volume=geometry.slices > 0
    )


def _predict(
    networks: CellNetworks, slices: Pixels, spacing: tuple[float, ...], file: Path | None, *,
    order: Sequence[int] = (), volume: bool = False,
) -> Prediction:  # fmt: skip
    """Return the prediction of slices (S, H, W[, C]), which are one image without `volume`."""
    _, selection = networks.select(file)
    predictor, outputs = networks.predictor(selection), networks.first.outputs
    tile, size = networks.tile_of(slices[0]), (slices.shape[1], slices.shape[2])
    parts = [predictor.probabilities(part, tile=tile, spacing=spacing) for part in slices]
    rules = networks.rules(selection.digests, size, size)
    predicted = PredictedMasks(outputs, networks.threshold, (len(slices), *size), rules)
    masks = volume_masks(predicted, parts, order)
    probabilities = torch.stack(parts, dim=1).numpy()
    return Prediction(
        channels=("background", *outputs.names) if outputs.exclusive else outputs.names,
        classes=outputs.names,
        exclusive=outputs.exclusive,
        probabilities=probabilities if volume else probabilities[:, 0],
        masks=masks if volume else masks[:, 0],
        threshold=networks.threshold,
        networks=selection.digests,
        out_of_fold=None if file is not None and networks.study_images is None else selection.out_of_fold,
        pixels=slices if volume else slices[0],
        file=file,
    )


def _config_error(message: str) -> ConfigError:
    return ConfigError([Problem(path="", message=message)], COMMAND)
