"""Sums over the pixels of images, from which all metrics derive; those of the bands of an image are added."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models import counts
from study.training.scoring.batches import EvaluatedBatch

Sums = dict[str, NDArray[np.int64]]
FIXED_POINT_SUMS: Final = frozenset({"score_sums", "confidence_sum", "foreground_sum"})
"""Sums of probabilities, which are added in the fixed point of `models.counts`, so that their order does not matter."""


@dataclass(frozen=True, kw_only=True)
class PixelSums:
    """Sums of a batch of images, by the name of their column.

    Attributes:
        scores: By image and channel, (N, channels[, bins]).
        images: By image, (N, bins).
    """

    scores: Sums
    images: Sums

    @classmethod
    def of(cls, batch: EvaluatedBatch) -> "PixelSums":
        """Count the pixels of a batch, or of a band of an image."""
        return cls(
            scores=_integers(chain(_mask_sums(batch), _probability_sums(batch))),
            images=_integers(chain(_confidence_sums(batch), _confusion(batch))),
        )

    @classmethod
    def of_masks(cls, batch: EvaluatedBatch) -> "PixelSums":
        """Count the pixels of a batch without the columns that depend on probabilities."""
        return cls(scores=_integers(_mask_sums(batch)), images=_integers(_confusion(batch)))

    def __add__(self, other: "PixelSums") -> "PixelSums":
        """Return the sums over the pixels of both."""
        return PixelSums(scores=_added(self.scores, other.scores), images=_added(self.images, other.images))

    def score_values(self, row: int, channel: int) -> dict[str, object]:
        """Return the columns of a row of the scores table."""
        return {name: _value(name, sums[row, channel]) for name, sums in self.scores.items()}

    def image_values(self, row: int) -> dict[str, object]:
        """Return the columns of a row of the images table."""
        return {name: _value(name, sums[row]) for name, sums in self.images.items()}


def _mask_sums(batch: EvaluatedBatch) -> Iterator[tuple[str, Tensor]]:
    predicted, masks = batch.all_masks()
    pixels = counts.pixel_counts(predicted, masks, known=batch.known())
    yield from ((name, getattr(pixels, name)) for name in ("tp", "fp", "fn", "tn"))


def _probability_sums(batch: EvaluatedBatch) -> Iterator[tuple[str, Tensor]]:
    masks, probabilities = batch.all_masks()[1], batch.probabilities
    # One channel at a time: the bins of all pixels need several times the memory of the probabilities.
    channels = [slice(channel, channel + 1) for channel in range(probabilities.shape[1])]
    known = [batch.known(part) for part in channels]
    by_channel = [
        counts.score_histograms(probabilities[:, part], masks[:, part], known=labelled)
        for part, labelled in zip(channels, known, strict=True)
    ]
    sums = [
        counts.score_sums(probabilities[:, part], known=labelled)
        for part, labelled in zip(channels, known, strict=True)
    ]
    for name in ("positives", "negatives"):
        yield name, torch.cat([getattr(bins, name) for bins in by_channel], dim=1)
    yield "score_sums", torch.cat(sums, dim=1)


def _confidence_sums(batch: EvaluatedBatch) -> Iterator[tuple[str, Tensor]]:
    """Yield bins of confidence.

    Foreground is the union of truth and prediction: pixels for exclusive classes, otherwise pairs of pixel and class.
    The prediction is the one of the scores: at the threshold of the stage, with the separate threshold of a class.
    """
    exclusive, probabilities = batch.outputs.exclusive, batch.probabilities
    target = batch.truth.long() if exclusive else batch.masks()
    predicted = batch.predicted_ids() if exclusive else batch.predicted()
    foreground = (predicted != 0) | (target != 0)
    known = counts.is_labelled(target) if exclusive else batch.known()
    all_bins, foreground_bins = counts.confidence_bins(
        probabilities, target, foreground=foreground, exclusive=exclusive, known=known
    )
    for prefix, bins in (("confidence", all_bins), ("foreground", foreground_bins)):
        yield f"{prefix}_count", bins.pixels
        yield f"{prefix}_sum", bins.confidence
        yield f"{prefix}_correct", bins.correct


def _confusion(batch: EvaluatedBatch) -> Iterator[tuple[str, Tensor]]:
    """Yield the confusion matrix of exclusive classes."""
    if batch.outputs.exclusive:
        target = batch.truth.long()
        by_pair = counts.confusion(
            batch.predicted_ids(), target, classes=batch.probabilities.shape[1], known=counts.is_labelled(target)
        )
        yield "confusion", by_pair.flatten(1)


def _integers(columns: Iterator[tuple[str, Tensor]]) -> Sums:
    return {
        name: (counts.to_fixed_point(sums) if name in FIXED_POINT_SUMS else sums).cpu().numpy()
        for name, sums in columns
    }


def _added(sums: Mapping[str, NDArray[np.int64]], others: Mapping[str, NDArray[np.int64]]) -> Sums:
    return {name: values + others[name] for name, values in sums.items()}


def _value(name: str, sums: NDArray[np.int64]) -> object:
    return (sums / counts.FIXED_POINT if name in FIXED_POINT_SUMS else sums).tolist()
