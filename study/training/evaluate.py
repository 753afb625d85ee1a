"""Evaluate a trained network: counts per image and class at the evaluated size, from which all metrics derive."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from datasets.loading.native import NativeImages
from datasets.loading.prepare import Prepared
from datasets.loading.truth import TrueMasks
from datasets.settings import NATIVE, EvaluatedSize, ImageSettings, shape_of
from datasets.source import Index, Pixels
from datasets.targets import Fit
from models import counts
from models.network import Network
from models.score_bins import SCORE_BINS
from models.tasks.base import Outputs
from models.tasks.segmentation import Segmentation
from results import schema
from results.metrics.background import BACKGROUND
from results.metrics.surface import ShapeSettings, Spacing, shape_values
from results.metrics.thresholds import smallest_threshold
from study.config.stages import ClassThreshold
from study.training.load_model import resized, unfitted
from study.training.loader import to_images
from study.training.sliding_window import sliding_window

BATCH = 8
Rows = list[dict[str, Any]]


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
    shape: ShapeSettings | None = None
    """Settings of the metrics of contours and lesions; None: these are not computed."""

    def shape_of(self, row: int) -> tuple[int, int]:
        """Return height and width at which a row is evaluated."""
        return self.index.shape(row) if self.size == NATIVE else shape_of(self.size)

    def spacing_of(self, row: int) -> Spacing:
        """Return height and width of an evaluated pixel in pixels of the image."""
        (image_height, image_width), (height, width) = self.index.shape(row), self.shape_of(row)
        return image_height / height, image_width / width


@dataclass(frozen=True, kw_only=True)
class EvaluatedBatch:
    """The predicted probabilities (N, channels, H, W) and the true masks of a batch, on one device."""

    outputs: Outputs
    probabilities: Tensor
    truth: Tensor
    threshold: float
    held_back: tuple[int, float] | None
    """Channel with a separate threshold, and the threshold."""
    identifiers: Sequence[Mapping[str, str]]
    """Image, patient and split of each row."""

    def masks(self) -> Tensor:
        """Return the true foreground masks (N, classes, H, W)."""
        if not self.outputs.exclusive:
            return self.truth.bool()
        return counts.one_hot(self.truth.long(), self.probabilities.shape[1])[:, 1:]

    def known(self) -> Tensor | None:
        """Return which pixels have a label, (N, 1, H, W) bool; None for overlapping classes, where all have one."""
        return counts.is_labelled(self.truth).unsqueeze(1) if self.outputs.exclusive else None

    def decision_probabilities(self) -> Tensor:
        """Return the probabilities from which masks are predicted, after the separate threshold of a class."""
        return (
            self.probabilities
            if self.held_back is None
            else counts.apply_class_threshold(self.probabilities, *self.held_back)
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


def score(
    network: Network, evaluation: EvaluationSpec, splits: Mapping[str, Sequence[int]]
) -> tuple[pa.Table, pa.Table]:
    """Return the tables of scores and of images for the rows of each split, with the schemas of `results.schema`."""
    scores: Rows = []
    images: Rows = []
    network.eval()
    class_threshold = _choose_threshold(network, evaluation, splits["validation"])
    passes = [("", None), *([("_thresholded", class_threshold)] if class_threshold else [])]
    for (suffix, held_back), (split, rows) in itertools.product(passes, splits.items()):
        for batch_rows in _batches(rows, evaluation.size):
            batch = answer(network, evaluation, batch_rows, split + suffix, held_back)
            scores += _scores(batch, _spacings(evaluation, batch_rows), evaluation.shape)
            images += _images(batch)
    return (
        pa.Table.from_pylist(scores, schema=schema.scores()),
        pa.Table.from_pylist(images, schema=schema.images()),
    )


@torch.no_grad()
def _predict(network: Network, evaluation: EvaluationSpec, rows: Sequence[int]) -> Tensor:
    """Return probabilities (N, channels, H, W) at the evaluated size, without letterbox borders."""
    device, arrays, window = next(network.parameters()).device, evaluation.images, evaluation.image.shape

    def predict(inputs: Pixels) -> Tensor:
        return evaluation.task.probabilities(network(to_images(torch.from_numpy(inputs), device)).float())

    sizes = [evaluation.shape_of(row) for row in rows]
    if isinstance(arrays, NativeImages):
        by_row = (sliding_window(predict, arrays.images[row], window, mirrored=True) for row in rows)
        return torch.stack([resized(whole, *size) for whole, size in zip(by_row, sizes, strict=True)]).to(device)
    fits = [Fit.of(evaluation.image, *(int(length) for length in arrays.shapes[row])) for row in rows]
    outputs = zip(predict(arrays.images[np.asarray(rows)]), fits, sizes, strict=True)
    return torch.stack([unfitted(output, fit, *size) for output, fit, size in outputs])


def _batches(rows: Sequence[int], size: EvaluatedSize) -> Iterator[Sequence[int]]:
    """Yield the rows that are evaluated together: images of different sizes are evaluated one by one."""
    count = 1 if size == NATIVE else BATCH
    return (rows[start : start + count] for start in range(0, len(rows), count))


def _choose_threshold(
    network: Network, evaluation: EvaluationSpec, validation: Sequence[int]
) -> tuple[int, float] | None:
    """Choose the threshold of a class on the validation images; None without `class_threshold` or such images."""
    settings = evaluation.class_threshold
    if settings is None or not validation:
        return None
    exclusive, number = evaluation.task.outputs.exclusive, evaluation.task.outputs.names.index(settings.class_)
    channel = number + exclusive
    false_positives, negatives = torch.zeros(SCORE_BINS, dtype=torch.int64), 0
    for rows in _batches(validation, evaluation.size):
        batch = answer(network, evaluation, rows, "validation")
        truth, known = batch.masks()[:, number : number + 1], batch.known()
        predicted = batch.predicted()[:, number : number + 1]
        negative = ~truth
        if known is not None:
            predicted, negative = predicted & known, negative & known
        bins = counts.score_histograms(batch.probabilities[:, channel : channel + 1], truth, known=predicted)
        false_positives += bins.negatives.sum(dim=(0, 1)).cpu()
        negatives += int(negative.sum())
    return channel, smallest_threshold(false_positives.numpy(), negatives, settings.false_positive_rate)


def answer(
    network: Network,
    evaluation: EvaluationSpec,
    rows: Sequence[int],
    split: str,
    held_back: tuple[int, float] | None = None,
) -> EvaluatedBatch:
    """Run the network on some rows; `held_back` is a channel with a separate threshold, and the threshold."""
    index = evaluation.index
    probabilities = _predict(network, evaluation, rows)
    return EvaluatedBatch(
        outputs=evaluation.task.outputs,
        probabilities=probabilities,
        truth=torch.from_numpy(evaluation.truth[rows]).to(probabilities.device),
        threshold=evaluation.threshold,
        held_back=held_back,
        identifiers=[{"image": index.ids[row], "patient": index.patients[row], "split": split} for row in rows],
    )


def _spacings(evaluation: EvaluationSpec, rows: Sequence[int]) -> list[Spacing]:
    """Return the size of an evaluated pixel of each row; empty if no metric needs it."""
    return [] if evaluation.shape is None else [evaluation.spacing_of(row) for row in rows]


def _scores(
    batch: EvaluatedBatch, spacings: Sequence[Spacing], shape: ShapeSettings | None
) -> Iterator[dict[str, Any]]:
    """Yield rows of the scores table.

    Args:
        batch: The evaluated images.
        spacings: Height and width of a pixel of each image.
        shape: Settings of the metrics of shapes, for which pixels without a label are background.
    """
    (predicted, masks), probabilities = batch.all_masks(), batch.probabilities
    held_back, known = batch.held_back, batch.known()
    pixels = counts.pixel_counts(predicted, masks, known=known)
    # One channel at a time: the bins of all pixels need several times the memory of the probabilities.
    channels = [slice(channel, channel + 1) for channel in range(probabilities.shape[1])]
    by_channel = [counts.score_histograms(probabilities[:, part], masks[:, part], known=known) for part in channels]
    sums = [counts.score_sums(probabilities[:, part], known=known) for part in channels]
    columns = {name: getattr(pixels, name).cpu().numpy() for name in ("tp", "fp", "fn", "tn")}
    for name in ("positives", "negatives"):
        columns[name] = torch.cat([getattr(bins, name) for bins in by_channel], dim=1).cpu().numpy()
    columns["score_sums"] = torch.cat(sums, dim=1).cpu().numpy()
    if shape is not None:
        labelled = torch.ones_like(masks) if known is None else known
        arrays = [(part & labelled).cpu().numpy() for part in (masks.bool(), predicted.bool())]
    labels = list(enumerate(batch.outputs.names))
    if batch.outputs.exclusive:
        labels = [*((number + 1, label) for number, label in labels), (0, BACKGROUND)]
    for row, identifier in enumerate(batch.identifiers):
        for channel, label in labels:
            values = {name: column[row, channel].tolist() for name, column in columns.items()}
            threshold = held_back[1] if held_back is not None and held_back[0] == channel else None
            row_identifier = {"image": identifier["image"], "class": label, "split": identifier["split"]}
            if shape is not None and label != BACKGROUND:
                true_mask, predicted_mask = (part[row, channel] for part in arrays)
                values |= shape_values(true_mask, predicted_mask, shape, spacing=spacings[row])._asdict()
            yield {**row_identifier, **values, "threshold": threshold}


def _images(batch: EvaluatedBatch) -> Iterator[dict[str, Any]]:
    """Yield rows of the images table.

    Foreground is the union of truth and prediction: pixels for exclusive classes, otherwise pairs of pixel and class.
    The prediction is the one of the scores: at the threshold of the stage, with the separate threshold of a class.
    """
    exclusive, probabilities = batch.outputs.exclusive, batch.probabilities
    target = batch.truth.long() if exclusive else batch.truth.bool()
    predicted = batch.predicted_ids() if exclusive else batch.predicted()
    foreground = (predicted != 0) | (target != 0)
    known = counts.is_labelled(target) if exclusive else None
    all_bins, foreground_bins = counts.confidence_bins(
        probabilities, target, foreground=foreground, exclusive=exclusive, known=known
    )
    confusion: NDArray[np.int64] | None = None
    if exclusive:
        by_pair = counts.confusion(predicted, target, classes=probabilities.shape[1], known=known)
        confusion = by_pair.flatten(1).cpu().numpy()
    columns: dict[str, NDArray[Any]] = {}
    for prefix, bins in (("confidence", all_bins), ("foreground", foreground_bins)):
        columns[f"{prefix}_count"] = bins.pixels.cpu().numpy()
        columns[f"{prefix}_sum"] = bins.confidence.cpu().numpy()
        columns[f"{prefix}_correct"] = bins.correct.cpu().numpy()
    for row, identifier in enumerate(batch.identifiers):
        values = {name: column[row].tolist() for name, column in columns.items()}
        row_confusion = None if confusion is None else confusion[row].tolist()
        yield {**identifier, **values, "confusion": row_confusion}
