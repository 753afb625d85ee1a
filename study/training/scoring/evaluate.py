"""Evaluate a trained network: counts per image and class at the evaluated size, from which all metrics derive."""

import itertools
from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa
import torch

from models import counts
from models.network import Network
from models.score_bins import SCORE_BINS
from results.metrics.thresholds import smallest_threshold
from study.training.scoring.answers import EvaluatedBatch, EvaluationSpec, answers, row_batches
from study.training.scoring.image_masks import ImageMasks
from study.training.scoring.pixel_sums import PixelSums
from study.training.scoring.score_tables import ScoreTables


def score(
    network: Network, evaluation: EvaluationSpec, splits: Mapping[str, Sequence[int]]
) -> tuple[pa.Table, pa.Table]:
    """Return the tables of scores and of images for the rows of each split, with the schemas of `results.schema`."""
    network.eval()
    collected = ScoreTables(evaluation)
    class_threshold = _choose_threshold(network, evaluation, splits["validation"])
    passes = [("", None), *([("_thresholded", class_threshold)] if class_threshold else [])]
    for (suffix, held_back), (split, rows) in itertools.product(passes, splits.items()):
        for batch_rows in row_batches(rows, evaluation.size):
            sums, masks = collect(evaluation, batch_rows, answers(network, evaluation, batch_rows, held_back))
            collected.add(batch_rows, sums, masks, split + suffix, held_back)
        collected.finish_split()
    return collected.tables()


def collect(
    evaluation: EvaluationSpec, rows: Sequence[int], batches: Iterable[EvaluatedBatch]
) -> tuple[PixelSums, ImageMasks | None]:
    """Return the sums over the pixels of some rows, and their masks if metrics of shapes are computed.

    Args:
        evaluation: The evaluation.
        rows: The rows, of one size.
        batches: Their batch, or the bands of a large image.
    """
    masks = ImageMasks(evaluation.shape_of(rows[0])[0]) if evaluation.shape is not None else None
    total: PixelSums | None = None
    for batch in batches:
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
