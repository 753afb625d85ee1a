"""Scores with several annotators: of a network against the others, and of the annotators against each other.

The split `test@NAME` has the scores of the network against the masks of the annotator NAME, `agreement@A~B` those of
the masks of B against the masks of A. Both are on the test images that have these masks.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import pyarrow as pa

from datasets.loading.truth import TrueMasks
from models.network import Network
from results.metrics.agreement import split_of_agreement, split_of_annotator
from study.training.scoring.batches import EvaluationSpec, mask_predictions, row_batches
from study.training.scoring.evaluate import score
from study.training.scoring.score_tables import ScoreTables, collect

Annotations = Mapping[str, tuple[TrueMasks, frozenset[int]]]
"""The masks of each annotator and the rows that have them; the first is the one that is trained on."""


def scores_of_annotators(
    network: Network, evaluation: EvaluationSpec, annotations: Annotations, test: Sequence[int]
) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Yield the tables of scores and of images of each other annotator, and of each pair of annotators.

    Args:
        network: The trained network.
        evaluation: Its evaluation.
        annotations: The annotators.
        test: Rows of the test images.
    """
    for name, (masks, annotated) in list(annotations.items())[1:]:
        rows = [row for row in test if row in annotated]
        spec = replace(evaluation, truth=masks, class_threshold=None, postprocess={})
        yield score(network, spec, {split_of_annotator(name): rows, "validation": ()})
    for first, second in combinations(annotations, 2):
        (masks, annotated), (others, also_annotated) = annotations[first], annotations[second]
        rows = [row for row in test if row in annotated and row in also_annotated]
        spec = replace(evaluation, truth=masks)
        yield _agreement(spec, others, rows, split_of_agreement(first, second))


def _agreement(
    evaluation: EvaluationSpec, others: TrueMasks, rows: Sequence[int], split: str
) -> tuple[pa.Table, pa.Table]:
    """Return the tables of scores and of images of masks that are scored like predictions."""
    collected = ScoreTables(evaluation)
    for batch_rows in row_batches(rows, evaluation.size):
        collected.add(
            batch_rows, *collect(evaluation, batch_rows, mask_predictions(evaluation, others, batch_rows)), split
        )
    collected.finish_split()
    return collected.tables()
