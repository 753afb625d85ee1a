"""The tables of scores and of images of an evaluation, filled image by image."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from results import schema
from results.metrics.background import BACKGROUND
from results.metrics.surface import ShapeValues
from study.training.scoring.batches import ChannelThreshold, EvaluatedBatch, EvaluationSpec
from study.training.scoring.image_masks import ImageMasks
from study.training.scoring.pixel_sums import PixelSums
from study.training.scoring.shape_scores import ShapeScores

Rows = list[dict[str, Any]]
RowsByClass = dict[str, dict[str, Any]]
Histograms = NDArray[np.float64]


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
        self._by_row: dict[tuple[str, int], tuple[RowsByClass, dict[str, Any]]] = {}
        """Rows of both tables by split and row of the index."""

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
            identifier = {
                "image": index.ids[row], "patient": index.patients[row], "split": split,
                "volume": index.volume(row) or None,
            }  # fmt: skip
            image = {"confusion": None, **identifier, **sums.image_values(position)}
            self._by_row[split, row] = scores, image
            self._append(row, scores, image, masks, position)

    def add_masks(self, row: int, sums: PixelSums, masks: ImageMasks | None, split: str, end: str) -> None:
        """Add other masks of a row that has been added.

        What depends on probabilities stays; the calibration of the foreground, which depends on both, is left out.

        Args:
            row: The row.
            sums: The sums of `PixelSums.of_masks`.
            masks: The masks, as in `add`.
            split: Name of the split of the row.
            end: What its name ends with for these masks.
        """
        scores, image = self._by_row[split, row]
        channels = {label: channel for channel, label in self._channels()}
        changed = {
            label: {name: value for name, value in line.items() if name not in ShapeValues._fields}
            | sums.score_values(0, channels[label])
            | {"split": split + end}
            for label, line in scores.items()
        }
        kept = {name: value for name, value in image.items() if not name.startswith("foreground_")}
        self._append(row, changed, kept | sums.image_values(0) | {"split": split + end}, masks, 0)

    def _append(
        self, row: int, scores: RowsByClass, image: dict[str, Any], masks: ImageMasks | None, position: int
    ) -> None:
        if self._shapes is not None and masks is not None:
            by_class = {name: scores[name] for name in self._evaluation.task.outputs.names}
            self._shapes.add(
                by_class, masks.truth[position], masks.predicted[position], self._evaluation.spacing_of(row),
                self._evaluation.index.volume(row) or None, masks.is_measurable[position],
            )  # fmt: skip
        self._scores += scores.values()
        self._images.append(image)

    def histograms(self, split: str, label: str) -> tuple[Histograms, Histograms]:
        """Return the score histograms (cases, bins) of the positive and the negative pixels of a class.

        Cases are images and volumes, in the order in which they were added.
        """
        index, by_case = self._evaluation.index, dict[str, list[dict[str, Any]]]()
        for (part, row), (scores, _) in self._by_row.items():
            if part == split:
                by_case.setdefault(index.volume(row) or f"image {row}", []).append(scores[label])
        positives, negatives = (
            np.array([np.sum([line[name] for line in lines], axis=0) for lines in by_case.values()], np.float64)
            for name in ("positives", "negatives")
        )
        return positives, negatives

    def _channels(self) -> list[tuple[int, str]]:
        """Return the channel and the name of each class; the background is the last one."""
        outputs = self._evaluation.task.outputs
        if not outputs.exclusive:
            return list(enumerate(outputs.names))
        return [*enumerate(outputs.names, start=1), (0, BACKGROUND)]

    def _score_rows(
        self, position: int, row: int, sums: PixelSums, split: str, channel_threshold: ChannelThreshold | None
    ) -> RowsByClass:
        rows: RowsByClass = {}
        for channel, label in self._channels():
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
    evaluation: EvaluationSpec,
    rows: Sequence[int],
    batches: Iterable[EvaluatedBatch],
    sums_of: Callable[[EvaluatedBatch], PixelSums] = PixelSums.of,
) -> tuple[PixelSums, ImageMasks | None]:
    """Return the sums over the pixels of some rows, and their masks if metrics of shapes are computed.

    Args:
        evaluation: The evaluation.
        rows: The rows, of one size.
        batches: Their batch, or the bands of a large image.
        sums_of: Which sums.
    """
    masks = ImageMasks(evaluation.shape_of(rows[0])[0]) if evaluation.shape is not None else None
    total: PixelSums | None = None
    for batch in batches:
        sums = sums_of(batch)
        total = sums if total is None else total + sums
        if masks is not None:
            masks.add(batch)
    assert total is not None, "every image has a band"
    return total, masks
