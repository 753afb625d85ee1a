"""Scoring a trained network: counts per image and class at the evaluated size, from which every metric follows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from datasets.prepare import Prepared
from datasets.sample import Index
from datasets.settings import ImageSettings
from datasets.targets import Fit
from models import counts
from models.network import Network
from models.tasks.base import Outputs
from models.tasks.segmentation import Segmentation
from results import schema
from study.train import to_images

BATCH = 8
Rows = list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Examination:
    """What is shown to the network and held against its answer."""

    index: Index
    prepared: Prepared
    truth: NDArray[np.uint8]
    """Masks at the evaluated size, from the originals."""
    image: ImageSettings
    size: int
    threshold: float


@dataclass(frozen=True, kw_only=True)
class _Answered:
    """A batch and the network's answer: probabilities (N, channels, S, S) beside the truth, on one device."""

    outputs: Outputs
    probabilities: Tensor
    truth: Tensor
    threshold: float
    places: Sequence[Mapping[str, str]]
    """Image, patient and split of each row."""


def score(
    network: Network, task: Segmentation, examination: Examination, splits: dict[str, Sequence[int]]
) -> tuple[pa.Table, pa.Table]:
    """Return the tables of scores and of images for the rows of each split, as `results.schema` lays them out."""
    scores: Rows = []
    images: Rows = []
    network.eval()
    for split, rows in splits.items():
        for start in range(0, len(rows), BATCH):
            answered = _answered(network, task, examination, rows[start : start + BATCH], split)
            scores += _scores(answered)
            images += _images(answered)
    return (
        pa.Table.from_pylist(scores, schema=schema.scores()),
        pa.Table.from_pylist(images, schema=schema.images()),
    )


@torch.no_grad()
def predict(network: Network, task: Segmentation, examination: Examination, rows: Sequence[int]) -> Tensor:
    """Return probabilities (N, channels, size, size) of the original image, without its borders."""
    device = next(network.parameters()).device
    pixels = torch.from_numpy(examination.prepared.images[np.asarray(rows)])
    squares = task.probabilities(network(to_images(pixels, device)).float())
    return torch.cat([_unfitted(square, row, examination) for square, row in zip(squares, rows, strict=True)])


def _unfitted(square: Tensor, row: int, examination: Examination) -> Tensor:
    height, width = (int(length) for length in examination.prepared.shapes[row])
    fit = Fit(height=height, width=width, size=examination.image.size, fit=examination.image.fit)
    top, left, height, width = fit.inner
    inner = square[None, :, top : top + height, left : left + width]
    if inner.shape[-2:] == (examination.size, examination.size):
        return inner
    return torch.nn.functional.interpolate(
        inner, (examination.size, examination.size), mode="bilinear", align_corners=False
    ).clamp_(0.0, 1.0)


def _answered(
    network: Network, task: Segmentation, examination: Examination, rows: Sequence[int], split: str
) -> _Answered:
    index = examination.index
    probabilities = predict(network, task, examination, rows)
    return _Answered(
        outputs=task.outputs,
        probabilities=probabilities,
        truth=torch.from_numpy(examination.truth[np.asarray(rows)]).to(probabilities.device),
        threshold=examination.threshold,
        places=[{"image": index.ids[row], "patient": index.patients[row], "split": split} for row in rows],
    )


def _scores(answered: _Answered) -> Iterator[dict[str, Any]]:
    exclusive, probabilities = answered.outputs.exclusive, answered.probabilities
    predicted = counts.predicted_masks(probabilities, exclusive=exclusive, threshold=answered.threshold)
    channels = probabilities.shape[1]
    truth = answered.truth
    masks = counts.one_hot(truth.long(), channels)[:, 1:] if exclusive else truth.bool()
    pixels = counts.pixel_counts(predicted, masks)
    bins = counts.score_histograms(probabilities[:, 1:] if exclusive else probabilities, masks)
    columns = {name: getattr(pixels, name).cpu().numpy() for name in ("tp", "fp", "fn", "tn")}
    columns |= {name: getattr(bins, name).cpu().numpy() for name in ("positives", "negatives")}
    for row, place in enumerate(answered.places):
        for number, label in enumerate(answered.outputs.names):
            values = {name: column[row, number].tolist() for name, column in columns.items()}
            yield {"image": place["image"], "class": label, "split": place["split"], **values}


def _images(answered: _Answered) -> Iterator[dict[str, Any]]:
    exclusive, probabilities = answered.outputs.exclusive, answered.probabilities
    goal = answered.truth.long() if exclusive else answered.truth.bool()
    bins = counts.confidence_bins(probabilities, goal, exclusive=exclusive)
    confusion: NDArray[np.int64] | None = None
    if exclusive:
        predicted = counts.predicted_ids(probabilities, threshold=answered.threshold)
        confusion = counts.confusion(predicted, goal, classes=probabilities.shape[1]).flatten(1).cpu().numpy()
    columns = {
        "confidence_count": bins.pixels.cpu().numpy(),
        "confidence_sum": bins.confidence.cpu().numpy(),
        "confidence_correct": bins.correct.cpu().numpy(),
    }
    for row, place in enumerate(answered.places):
        values = {name: column[row].tolist() for name, column in columns.items()}
        seen = None if confusion is None else confusion[row].tolist()
        yield {**place, **values, "confusion": seen}
