"""Predictions of a network for the rows of an evaluation: probabilities at the evaluated size with the true masks."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from datasets.loading.native import NativeImages
from datasets.loading.prepare import Prepared
from datasets.loading.truth import TrueMasks
from datasets.settings import NATIVE, EvaluatedSize, ImageSettings, shape_of
from datasets.source import IGNORE, Index, Pixels
from datasets.targets import Fit
from models import counts
from models.network import Network
from models.tasks.base import Outputs
from models.tasks.segmentation import Segmentation
from results.metrics.contours import Spacing
from results.metrics.surface import ShapeSettings
from study.config.evaluation import ClassPostprocess, ClassThreshold, TtaName
from study.training.load_model import without_padding
from study.training.loader import FeatureReader, to_images
from study.training.prediction.bands import WHOLE_PIXELS, Band, resized_bands, row_slices, whole
from study.training.prediction.sliding_window import window_bands
from study.training.prediction.views import ORIGINAL, mean_probabilities, views_of

BATCH = 8
ALL_CHANNELS = slice(None)


class ChannelThreshold(NamedTuple):
    """A separate threshold of one channel."""

    channel: int
    threshold: float


@dataclass(frozen=True, kw_only=True)
class EvaluationSpec:
    """Inputs of an evaluation: images, masks and settings."""

    task: Segmentation
    index: Index
    images: Prepared | NativeImages
    truth: TrueMasks
    """Masks at the evaluated size."""
    image: ImageSettings
    size: EvaluatedSize
    threshold: float
    class_threshold: ClassThreshold | None = None
    tta: tuple[TtaName, ...] = ()
    """Test-time augmentation."""
    postprocess: Mapping[str, ClassPostprocess] = field(default_factory=dict)
    """By class, of those whose masks may change."""
    shape: ShapeSettings | None = None
    """Settings of the metrics of contours and lesions; None: these are not computed."""
    features: FeatureReader | None = None
    """Reads the feature maps of rows in place of computing them, without test-time augmentation."""
    limit: int = WHOLE_PIXELS
    """Number of pixels up to which an image is evaluated at once."""

    def shape_of(self, row: int) -> tuple[int, int]:
        """Return height and width at which a row is evaluated."""
        return self.index.shape(row) if self.size == NATIVE else shape_of(self.size)

    @cached_property
    def in_mm(self) -> bool:
        """Whether distances are in mm."""
        return self.index.has_spacing

    def spacing_of(self, row: int) -> Spacing:
        """Return the size of an evaluated pixel, of a slice with the distance of the slices before height and width.

        In mm if `in_mm`, else in pixels of the image.
        """
        (image_height, image_width), (height, width) = self.index.shape(row), self.shape_of(row)
        is_slice = bool(self.index.volume(row))
        *distance, pixel_height, pixel_width = self.index.spacing(row) if self.in_mm else (1.0, 1.0, 1.0)
        pixel = (pixel_height * image_height / height, pixel_width * image_width / width)
        return (*distance, *pixel) if is_slice else pixel


@dataclass(frozen=True, kw_only=True)
class EvaluatedBatch:
    """The predicted probabilities (N, channels, H, W) and the true masks of a batch, on one device.

    Of large images, which are evaluated alone, a batch has some rows of pixels, `lines`.
    """

    outputs: Outputs
    probabilities: Tensor
    truth: Tensor
    threshold: float
    channel_threshold: ChannelThreshold | None
    lines: slice

    def image(self, position: int) -> "EvaluatedBatch":
        """Return one image of the batch."""
        part = slice(position, position + 1)
        return replace(self, probabilities=self.probabilities[part], truth=self.truth[part])

    def masks(self) -> Tensor:
        """Return the true foreground masks (N, classes, H, W)."""
        if not self.outputs.exclusive:
            return self.truth == 1
        return counts.one_hot(self.truth.long(), self.probabilities.shape[1])[:, 1:]

    def known(self, channels: slice = ALL_CHANNELS) -> Tensor | None:
        """Return which pixels have a label, bool: (N, 1, H, W), or (N, channels, H, W) of overlapping classes.

        None if these are annotated in all pixels.
        """
        if self.outputs.exclusive:
            return counts.is_labelled(self.truth).unsqueeze(1)
        return None if self._is_wholly_labelled else counts.is_labelled(self.truth[:, channels])

    @cached_property
    def _is_wholly_labelled(self) -> bool:
        """Whether all pixels have a label; waits for the device."""
        return bool(counts.is_labelled(self.truth).all())

    def is_measurable(self) -> Tensor:
        """Return whether shapes can be measured, (N, classes) bool: not in partly annotated overlapping classes.

        Pixels without a label of exclusive classes are background of shapes.
        """
        known = None if self.outputs.exclusive else self.known()
        if known is None:
            return torch.ones(len(self.truth), len(self.outputs.names), dtype=torch.bool)
        return known.flatten(2).all(dim=2)

    def decision_probabilities(self) -> Tensor:
        """Return the probabilities from which masks are predicted, after the separate threshold of a class."""
        return (
            self.probabilities
            if self.channel_threshold is None
            else counts.apply_class_threshold(self.probabilities, *self.channel_threshold)
        )

    def predicted_ids(self) -> Tensor:
        """Return the predicted ids (N, H, W) of exclusive classes."""
        return counts.predicted_ids(self.decision_probabilities(), threshold=self.threshold)

    def predicted(self) -> Tensor:
        """Return the predicted foreground masks (N, classes, H, W)."""
        return counts.predicted_masks(
            self.decision_probabilities(), exclusive=self.outputs.exclusive, threshold=self.threshold
        )

    def all_masks(self) -> tuple[Tensor, Tensor]:
        """Return the predicted and the true masks of all channels, of exclusive classes with the background."""
        if not self.outputs.exclusive:
            return self.predicted(), self.masks()
        channels = self.probabilities.shape[1]
        return counts.one_hot(self.predicted_ids(), channels), counts.one_hot(self.truth.long(), channels)

    def labelled_masks(self) -> tuple[Tensor, Tensor]:
        """Return the true and the predicted foreground masks, in which pixels without a label are background."""
        truth, predicted, known = self.masks(), self.predicted(), self.known()
        return (truth, predicted) if known is None else (truth & known, predicted & known)


def row_batches(rows: Sequence[int], size: EvaluatedSize) -> Iterator[Sequence[int]]:
    """Yield the rows that are evaluated together: images of different sizes are evaluated one by one."""
    count = 1 if size == NATIVE else BATCH
    return (rows[start : start + count] for start in range(0, len(rows), count))


def predictions(
    network: Network,
    evaluation: EvaluationSpec,
    rows: Sequence[int],
    channel_threshold: ChannelThreshold | None = None,
) -> Iterator[EvaluatedBatch]:
    """Run the network on some rows of `row_batches`; yield one batch, or the bands of a large image."""
    for top, probabilities in _predict(network, evaluation, rows):
        lines = slice(top, top + probabilities.shape[-2])
        yield EvaluatedBatch(
            outputs=evaluation.task.outputs,
            probabilities=probabilities,
            truth=torch.from_numpy(evaluation.truth.lines(rows, lines)).to(probabilities.device),
            threshold=evaluation.threshold,
            channel_threshold=channel_threshold,
            lines=lines,
        )


@torch.no_grad()
def _predict(network: Network, evaluation: EvaluationSpec, rows: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
    """Yield probabilities (N, channels, H, W) at the evaluated size from a row of pixels on."""
    device, sizes = next(network.parameters()).device, [evaluation.shape_of(row) for row in rows]
    images = zip(_at_own_size(network, evaluation, rows), sizes, strict=True)
    by_image = [resized_bands(bands, own_size, size, limit=evaluation.limit) for (bands, own_size), size in images]
    if len(rows) > 1:
        yield 0, torch.stack([whole(bands) for bands in by_image]).to(device)
        return
    for band in by_image[0]:
        yield band.top, band.probabilities[None].to(device)


def _at_own_size(
    network: Network, evaluation: EvaluationSpec, rows: Sequence[int]
) -> Iterator[tuple[Iterator[Band], tuple[int, int]]]:
    """Yield the probabilities of each image at the size of its input, without letterbox borders, and this size."""
    device, arrays, window = next(network.parameters()).device, evaluation.images, evaluation.image.shape
    views = views_of(evaluation.tta)

    def predict(inputs: Pixels) -> Tensor:
        images = to_images(torch.from_numpy(inputs), device)
        return mean_probabilities([network], evaluation.task, images, [views])

    if isinstance(arrays, NativeImages):
        for row in rows:
            height, width = arrays.images.shapes[row][:2]
            yield window_bands(predict, arrays.images[row], window, mirrored=True), (height, width)
        return
    positions = np.asarray(rows)
    if evaluation.features is not None and views == ORIGINAL:
        outputs = evaluation.task.probabilities(network(evaluation.features(positions)).float())
    else:
        outputs = predict(arrays.images[positions])
    for row, output in zip(rows, outputs, strict=True):
        fit = Fit.of(evaluation.image, *(int(length) for length in arrays.shapes[row]))
        inner = without_padding(output, fit)
        yield iter([Band(0, inner)]), (inner.shape[1], inner.shape[2])


class MaskLines(Protocol):
    """Masks of a data set by row, as `TrueMasks`."""

    def lines(self, rows: Sequence[int], lines: slice) -> Pixels:
        """Return some lines of pixels, (rows, lines, width) or (rows, classes, lines, width)."""


def mask_predictions(evaluation: EvaluationSpec, masks: MaskLines, rows: Sequence[int]) -> Iterator[EvaluatedBatch]:
    """Yield masks as if a network had predicted them with certainty: one batch, or the bands of a large image.

    Pixels without a label in the masks have none in the truth.
    """
    outputs, channels = evaluation.task.outputs, evaluation.task.head_channels()
    for lines in row_slices(*evaluation.shape_of(rows[0]), limit=evaluation.limit):
        truth, predicted = (part.lines(rows, lines) for part in (evaluation.truth, masks))
        truth = np.where(predicted == IGNORE, IGNORE, truth).astype(np.uint8)
        if outputs.exclusive:
            probabilities = counts.one_hot(torch.from_numpy(predicted).long(), channels).float()
        else:
            probabilities = torch.from_numpy(predicted == 1).float()
        yield EvaluatedBatch(
            outputs=outputs, probabilities=probabilities, truth=torch.from_numpy(truth), threshold=0.5,
            channel_threshold=None, lines=lines,
        )  # fmt: skip
