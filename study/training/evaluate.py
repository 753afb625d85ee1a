"""Scoring a trained network: counts per image and class at the evaluated size, from which every metric follows."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from datasets.loading.prepare import Prepared
from datasets.settings import ImageSettings
from datasets.source import Index
from datasets.targets import Fit
from models import counts
from models.network import Network
from models.score_bins import SCORE_BINS
from models.tasks.base import Outputs
from models.tasks.segmentation import Segmentation
from results import schema
from results.metrics.thresholds import smallest_threshold
from study.config.stages import ClassThreshold
from study.training.load_model import unfitted
from study.training.loader import to_images

BATCH = 8
Rows = list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class EvaluationSpec:
    """What is shown to the network and held against its answer."""

    task: Segmentation
    index: Index
    prepared: Prepared
    truth: NDArray[np.uint8]
    """Masks at the evaluated size, from the originals."""
    image: ImageSettings
    size: int
    threshold: float
    class_threshold: ClassThreshold | None = None


@dataclass(frozen=True, kw_only=True)
class Answered:
    """A batch and the network's answer: probabilities (N, channels, S, S) beside the truth, on one device."""

    outputs: Outputs
    probabilities: Tensor
    truth: Tensor
    threshold: float
    held_back: tuple[int, float] | None
    """Channel that counts only from a probability on."""
    places: Sequence[Mapping[str, str]]
    """Image, patient and split of each row."""

    def masks(self) -> Tensor:
        """Return the true foreground masks (N, classes, S, S)."""
        if not self.outputs.exclusive:
            return self.truth.bool()
        return counts.one_hot(self.truth.long(), self.probabilities.shape[1])[:, 1:]

    def known(self) -> Tensor | None:
        """Return (N, 1, S, S) bool, where a pixel has a label; None where classes overlap and all have one."""
        return counts.is_labelled(self.truth).unsqueeze(1) if self.outputs.exclusive else None

    def deciding(self) -> Tensor:
        """Return the probabilities that decide."""
        return self.probabilities if self.held_back is None else counts.held_back(self.probabilities, *self.held_back)

    def predicted_ids(self) -> Tensor:
        """Return the predicted ids (N, S, S) of exclusive classes."""
        return counts.predicted_ids(self.deciding(), threshold=self.threshold)

    def predicted(self) -> Tensor:
        """Return the predicted foreground masks (N, classes, S, S)."""
        return counts.predicted_masks(self.deciding(), exclusive=self.outputs.exclusive, threshold=self.threshold)


def score(
    network: Network, evaluation: EvaluationSpec, splits: Mapping[str, Sequence[int]]
) -> tuple[pa.Table, pa.Table]:
    """Return the tables of scores and of images for the rows of each split, as `results.schema` lays them out."""
    scores: Rows = []
    images: Rows = []
    network.eval()
    held = _held_back(network, evaluation, splits["validation"])
    passes = [("", None), *([("_thresholded", held)] if held else [])]
    for (suffix, held_back), (split, rows) in itertools.product(passes, splits.items()):
        for part in _batches(rows):
            answered = answer(network, evaluation, part, split + suffix, held_back)
            scores += _scores(answered)
            images += _images(answered)
    return (
        pa.Table.from_pylist(scores, schema=schema.scores()),
        pa.Table.from_pylist(images, schema=schema.images()),
    )


@torch.no_grad()
def _predict(network: Network, evaluation: EvaluationSpec, rows: Sequence[int]) -> Tensor:
    """Return probabilities (N, channels, size, size) of the original image, without its borders."""
    device = next(network.parameters()).device
    pixels = torch.from_numpy(evaluation.prepared.images[np.asarray(rows)])
    squares = evaluation.task.probabilities(network(to_images(pixels, device)).float())
    return torch.cat([_unfitted(square, row, evaluation) for square, row in zip(squares, rows, strict=True)])


def _unfitted(square: Tensor, row: int, evaluation: EvaluationSpec) -> Tensor:
    height, width = (int(length) for length in evaluation.prepared.shapes[row])
    fit = Fit(height=height, width=width, size=evaluation.image.size, fit=evaluation.image.fit)
    return unfitted(square, fit, evaluation.size, evaluation.size)[None]


def _batches(rows: Sequence[int]) -> Iterator[Sequence[int]]:
    return (rows[start : start + BATCH] for start in range(0, len(rows), BATCH))


def _held_back(network: Network, evaluation: EvaluationSpec, validation: Sequence[int]) -> tuple[int, float] | None:
    """Choose on the validation images from which probability on a class counts; None where none is to be chosen."""
    wanted = evaluation.class_threshold
    if wanted is None or not validation:
        return None
    exclusive, number = evaluation.task.outputs.exclusive, evaluation.task.outputs.names.index(wanted.class_)
    channel = number + exclusive
    wrong, negatives = torch.zeros(SCORE_BINS, dtype=torch.int64), 0
    for rows in _batches(validation):
        answered = answer(network, evaluation, rows, "validation")
        truth, known = answered.masks()[:, number : number + 1], answered.known()
        called = answered.predicted()[:, number : number + 1]
        false = ~truth
        if known is not None:
            called, false = called & known, false & known
        bins = counts.score_histograms(answered.probabilities[:, channel : channel + 1], truth, known=called)
        wrong += bins.negatives.sum(dim=(0, 1)).cpu()
        negatives += int(false.sum())
    return channel, smallest_threshold(wrong.numpy(), negatives, wanted.false_positive_rate)


def answer(
    network: Network,
    evaluation: EvaluationSpec,
    rows: Sequence[int],
    split: str,
    held_back: tuple[int, float] | None = None,
) -> Answered:
    """Return what the network says of some rows; `held_back`: a channel, and from which probability on it counts."""
    index = evaluation.index
    probabilities = _predict(network, evaluation, rows)
    return Answered(
        outputs=evaluation.task.outputs,
        probabilities=probabilities,
        truth=torch.from_numpy(evaluation.truth[np.asarray(rows)]).to(probabilities.device),
        threshold=evaluation.threshold,
        held_back=held_back,
        places=[{"image": index.ids[row], "patient": index.patients[row], "split": split} for row in rows],
    )


def _scores(answered: Answered) -> Iterator[dict[str, Any]]:
    exclusive, probabilities = answered.outputs.exclusive, answered.probabilities
    masks, held, known = answered.masks(), answered.held_back, answered.known()
    pixels = counts.pixel_counts(answered.predicted(), masks, known=known)
    bins = counts.score_histograms(probabilities[:, 1:] if exclusive else probabilities, masks, known=known)
    columns = {name: getattr(pixels, name).cpu().numpy() for name in ("tp", "fp", "fn", "tn")}
    columns |= {name: getattr(bins, name).cpu().numpy() for name in ("positives", "negatives")}
    for row, place in enumerate(answered.places):
        for number, label in enumerate(answered.outputs.names):
            values = {name: column[row, number].tolist() for name, column in columns.items()}
            threshold = held[1] if held is not None and held[0] == number + exclusive else None
            row_place = {"image": place["image"], "class": label, "split": place["split"]}
            yield {**row_place, **values, "threshold": threshold}


def _images(answered: Answered) -> Iterator[dict[str, Any]]:
    """Yield rows of the images table.

    Foreground is what the truth or the stage's prediction has: pixels of exclusive classes, else pairs of pixel and
    class. The prediction is that of the scores: at the stage's threshold, with a class held back where one is.
    """
    exclusive, probabilities = answered.outputs.exclusive, answered.probabilities
    goal = answered.truth.long() if exclusive else answered.truth.bool()
    predicted = answered.predicted_ids() if exclusive else answered.predicted()
    foreground = (predicted != 0) | (goal != 0)
    known = counts.is_labelled(goal) if exclusive else None
    everywhere, inside = counts.confidence_bins(
        probabilities, goal, foreground=foreground, exclusive=exclusive, known=known
    )
    confusion: NDArray[np.int64] | None = None
    if exclusive:
        by_pair = counts.confusion(predicted, goal, classes=probabilities.shape[1], known=known)
        confusion = by_pair.flatten(1).cpu().numpy()
    columns: dict[str, NDArray[Any]] = {}
    for prefix, part in (("confidence", everywhere), ("foreground", inside)):
        columns[f"{prefix}_count"] = part.pixels.cpu().numpy()
        columns[f"{prefix}_sum"] = part.confidence.cpu().numpy()
        columns[f"{prefix}_correct"] = part.correct.cpu().numpy()
    for row, place in enumerate(answered.places):
        values = {name: column[row].tolist() for name, column in columns.items()}
        seen = None if confusion is None else confusion[row].tolist()
        yield {**place, **values, "confusion": seen}
