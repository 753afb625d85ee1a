"""Evaluate a trained network: counts per image and class at the evaluated size, from which all metrics derive."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import torch

from datasets.source import Index
from models import counts
from models.network import Network
from models.score_bins import SCORE_BINS
from results import schema
from results.metrics.background import BACKGROUND
from results.metrics.contours import Spacing
from results.metrics.surface import ShapeSettings, shape_values
from results.metrics.thresholds import smallest_threshold
from study.training.scoring.answers import EvaluationSpec, answers, row_batches
from study.training.scoring.image_masks import ImageMasks
from study.training.scoring.pixel_sums import PixelSums

Rows = list[dict[str, Any]]


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
        for batch_rows in row_batches(rows, evaluation.size):
            sums, masks = _sums(network, evaluation, batch_rows, held_back)
            scores += score_rows(evaluation, batch_rows, sums, masks, split + suffix, held_back)
            images += image_rows(evaluation.index, batch_rows, sums, split + suffix)
    return tables(scores, images)


def tables(scores: Rows, images: Rows) -> tuple[pa.Table, pa.Table]:
    """Return rows as the tables of scores and of images."""
    return (
        pa.Table.from_pylist(scores, schema=schema.scores()),
        pa.Table.from_pylist(images, schema=schema.images()),
    )


def _sums(
    network: Network, evaluation: EvaluationSpec, rows: Sequence[int], held_back: tuple[int, float] | None
) -> tuple[PixelSums, ImageMasks | None]:
    """Return the sums over the pixels of some rows, and their masks if metrics of shapes are computed."""
    masks = ImageMasks(evaluation.shape_of(rows[0])[0]) if evaluation.shape is not None else None
    total: PixelSums | None = None
    for batch in answers(network, evaluation, rows, held_back):
        sums = PixelSums.of(batch)
        total = sums if total is None else total + sums
        if masks is not None:
            masks.add(batch)
    assert total is not None, "every image has a band"
    return total, masks


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
    for rows in row_batches(validation, evaluation.size):
        for batch in answers(network, evaluation, rows):
            truth, known = batch.masks()[:, number : number + 1], batch.known()
            predicted = batch.predicted()[:, number : number + 1]
            negative = ~truth
            if known is not None:
                predicted, negative = predicted & known, negative & known
            bins = counts.score_histograms(batch.probabilities[:, channel : channel + 1], truth, known=predicted)
            false_positives += bins.negatives.sum(dim=(0, 1)).cpu()
            negatives += int(negative.sum())
    return channel, smallest_threshold(false_positives.numpy(), negatives, settings.false_positive_rate)


def score_rows(
    evaluation: EvaluationSpec,
    rows: Sequence[int],
    sums: PixelSums,
    masks: ImageMasks | None,
    split: str,
    held_back: tuple[int, float] | None,
) -> Iterator[dict[str, Any]]:
    """Yield rows of the scores table; in metrics of shapes pixels without a label are background."""
    outputs, shape = evaluation.task.outputs, evaluation.shape
    labels = list(enumerate(outputs.names))
    if outputs.exclusive:
        labels = [*((number + 1, label) for number, label in labels), (0, BACKGROUND)]
    for position, row in enumerate(rows):
        for channel, label in labels:
            threshold = held_back[1] if held_back is not None and held_back[0] == channel else None
            identifier = {"image": evaluation.index.ids[row], "class": label, "split": split}
            values = sums.score_values(position, channel)
            if masks is not None and shape is not None and label != BACKGROUND:
                place = position, channel - outputs.exclusive
                values |= _shape_values(masks, place, shape, evaluation.spacing_of(row))
            yield {**identifier, **values, "threshold": threshold}


def _shape_values(masks: ImageMasks, place: tuple[int, int], shape: ShapeSettings, spacing: Spacing) -> dict[str, Any]:
    return shape_values(masks.truth[place], masks.predicted[place], shape, spacing=spacing)._asdict()


def image_rows(index: Index, rows: Sequence[int], sums: PixelSums, split: str) -> Iterator[dict[str, Any]]:
    """Yield rows of the images table."""
    for position, row in enumerate(rows):
        identifier = {"image": index.ids[row], "patient": index.patients[row], "split": split}
        yield {"confusion": None, **identifier, **sums.image_values(position)}
