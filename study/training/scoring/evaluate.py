"""Evaluate a trained network: counts per image and class at the evaluated size, from which all metrics derive."""

import itertools
import json
from collections.abc import Mapping, Sequence

import pyarrow as pa
import torch

from models import counts
from models.network import Network
from models.score_bins import SCORE_BINS
from results import schema
from results.metrics.thresholds import smallest_threshold
from study.training.scoring.batches import ChannelThreshold, EvaluationSpec, predictions, row_batches
from study.training.scoring.postprocessing import Rules, add_postprocessed, chosen_rules
from study.training.scoring.score_tables import ScoreTables, collect


def score(
    network: Network, evaluation: EvaluationSpec, splits: Mapping[str, Sequence[int]]
) -> tuple[pa.Table, pa.Table]:
    """Return the tables of scores and of images for the rows of each split, with the schemas of `results.schema`.

    The metadata of the table of scores (`schema.EVALUATION`) has the test-time augmentation and the rules of
    post-processing.
    """
    network.eval()
    collected = ScoreTables(evaluation)
    validation = splits["validation"]
    class_threshold = _choose_threshold(network, evaluation, validation)
    passes = [("", None), *([("_thresholded", class_threshold)] if class_threshold else [])]
    for (suffix, channel_threshold), (split, rows) in itertools.product(passes, splits.items()):
        for batch_rows in row_batches(rows, evaluation.size):
            batches = predictions(network, evaluation, batch_rows, channel_threshold)
            collected.add(batch_rows, *collect(evaluation, batch_rows, batches), split + suffix, channel_threshold)
        collected.finish_split()
    rules: Rules = {}
    if evaluation.postprocess:
        rules = chosen_rules(network, evaluation, validation, collected)
        for split, rows in splits.items():
            add_postprocessed(network, evaluation, rules, rows, split, collected)
    scores, images = collected.tables()
    records = {name: rule.record() for name, rule in rules.items()}
    record = {"size": evaluation.size, "tta": evaluation.tta, "postprocess": records}
    return scores.replace_schema_metadata({schema.EVALUATION: json.dumps(record)}), images


def _choose_threshold(
    network: Network, evaluation: EvaluationSpec, validation: Sequence[int]
) -> ChannelThreshold | None:
    """Choose the threshold of a class on the validation images that annotate it.

    None without `class_threshold` or such images.
    """
    settings = evaluation.class_threshold
    if settings is None or not validation:
        return None
    exclusive, number = evaluation.task.outputs.exclusive, evaluation.task.outputs.names.index(settings.class_)
    channel = number + exclusive
    false_positives, negatives, pixels = torch.zeros(SCORE_BINS, dtype=torch.int64), 0, 0
    for rows in row_batches(validation, evaluation.size):
        for batch in predictions(network, evaluation, rows):
            truth, known = batch.masks()[:, number : number + 1], batch.known(slice(number, number + 1))
            predicted = batch.predicted()[:, number : number + 1]
            negative = ~truth
            if known is not None:
                predicted, negative = predicted & known, negative & known
            bins = counts.score_histograms(batch.probabilities[:, channel : channel + 1], truth, known=predicted)
            false_positives += bins.negatives.sum(dim=(0, 1)).cpu()
            negatives += int(negative.sum())
            pixels += truth.numel() if known is None else int(known.sum())
    if not pixels:
        return None
    threshold = smallest_threshold(false_positives.numpy(), negatives, settings.false_positive_rate)
    return ChannelThreshold(channel, threshold)
