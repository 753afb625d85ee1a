"""The true and the predicted masks of evaluated images, collected for metrics that need them as a whole."""

import numpy as np
from numpy.typing import NDArray

from datasets.large import release, temporary_array
from study.training.scoring.batches import EvaluatedBatch

Masks = NDArray[np.bool_]


class ImageMasks:
    """Foreground masks (N, classes, H, W) in which pixels without a label are background.

    Those of an image in bands are memory-mapped. `is_measurable` (N, classes) is `EvaluatedBatch.is_measurable` of the
    whole images.
    """

    def __init__(self, height: int) -> None:
        self._height = height
        self.truth: Masks = np.zeros((0, 0, 0, 0), np.bool_)
        self.predicted: Masks = self.truth
        self.is_measurable: NDArray[np.bool_] = np.zeros((0, 0), np.bool_)

    def add(self, batch: EvaluatedBatch) -> None:
        """Add a batch of images, or the next band of an image."""
        truth, predicted = (masks.cpu().numpy() for masks in batch.labelled_masks())
        lines, is_measurable = batch.lines, batch.is_measurable().cpu().numpy()
        self.is_measurable = is_measurable if lines.start == 0 else self.is_measurable & is_measurable
        if lines == slice(0, self._height):
            self.truth, self.predicted = truth, predicted
            return
        if lines.start == 0:
            shape = (*truth.shape[:2], self._height, truth.shape[3])
            self.truth, self.predicted = temporary_array(shape, np.bool_), temporary_array(shape, np.bool_)
        for masks, band in ((self.truth, truth), (self.predicted, predicted)):
            masks[:, :, lines] = band
            release(masks)
