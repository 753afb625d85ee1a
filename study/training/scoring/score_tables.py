"""The tables of scores and of images of an evaluation, filled image by image."""

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from results import schema
from results.metrics.background import BACKGROUND
from study.training.scoring.batches import ChannelThreshold, EvaluatedBatch, EvaluationSpec
from study.training.scoring.image_masks import ImageMasks
from study.training.scoring.pixel_sums import PixelSums
from study.training.scoring.shape_scores import ShapeScores

Rows = list[dict[str, Any]]
RowsByClass = dict[str, dict[str, Any]]


class ScoreTables:
    """Collects the rows of both tables.

    The slices of a volume have to be added one after the other, and `finish_split` called after the last row of a
    split.
    """

    def __init__(self, evaluation: EvaluationSpec) -> None:
        self._evaluation = evaluation
        self._shapes = None if evaluation.shape is None else ShapeScores(evaluation.shape)
        self._scores: Rows = []
        self._images: Rows = []

    def add(
        self,
        rows: Sequence[int],
        sums: PixelSums,
        masks: ImageMasks | None,
        split: str,
        channel_threshold: ChannelThreshold | None = None,
    ) -> None:
        """Add some rows of the index.

        Args:
            rows: The rows.
            sums: Sums over their pixels.
            masks: Their masks, in which pixels without a label are background; None without metrics of shapes.
            split: Name of the split.
            channel_threshold: The separate threshold of a class, if there is one.
        """
        index = self._evaluation.index
        for position, row in enumerate(rows):
            scores = self._score_rows(position, row, sums, split, channel_threshold)
            if self._shapes is not None and masks is not None:
                by_class = {name: scores[name] for name in self._evaluation.task.outputs.names}
                self._shapes.add(
                    by_class, masks.truth[position], masks.predicted[position], self._evaluation.spacing_of(row),
                    index.volume(row) or None,
                )  # fmt: skip
            self._scores += scores.values()
            identifier = {
                "image": index.ids[row], "patient": index.patients[row], "split": split,
                "volume": index.volume(row) or None,
            }  # fmt: skip
            self._images.append({"confusion": None, **identifier, **sums.image_values(position)})

    def _score_rows(
        self, position: int, row: int, sums: PixelSums, split: str, channel_threshold: ChannelThreshold | None
    ) -> RowsByClass:
        outputs = self._evaluation.task.outputs
        labels = list(enumerate(outputs.names))
        if outputs.exclusive:
            labels = [*((number + 1, label) for number, label in labels), (0, BACKGROUND)]
        rows: RowsByClass = {}
        for channel, label in labels:
            is_separate = channel_threshold is not None and channel_threshold.channel == channel
            threshold = channel_threshold.threshold if channel_threshold is not None and is_separate else None
            identifier = {"image": self._evaluation.index.ids[row], "class": label, "split": split}
            rows[label] = {**identifier, **sums.score_values(position, channel), "threshold": threshold}
        return rows

    def finish_split(self) -> None:
        """Compute the metrics of shapes of the last volume of a split."""
        if self._shapes is not None:
            self._shapes.finish()

    def tables(self) -> tuple[pa.Table, pa.Table]:
        """Return the tables of scores and of images, with the schemas of `results.schema`."""
        return (
            pa.Table.from_pylist(self._scores, schema=schema.scores()),
            pa.Table.from_pylist(self._images, schema=schema.images()),
        )


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
