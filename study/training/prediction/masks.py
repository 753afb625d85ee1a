"""Predicted masks of an image or a volume, made part by part from probabilities and then post-processed."""

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from datasets.large import is_large, release, temporary_array
from datasets.source import Pixels
from models.counts import predicted_masks
from models.tasks.base import Outputs
from results.postprocessing.rules import ClassRule, postprocess

Masks = NDArray[np.bool_]
ALL_ROWS: Final = slice(None)


class PredictedMasks:
    """The masks of an image or a volume; those of a large one are memory-mapped.

    Args:
        outputs: The classes.
        threshold: The probability from which a pixel belongs to a class.
        shape: (slices, height, width), one slice for an image.
        rules: Post-processing of each class; empty for none.
    """

    def __init__(
        self, outputs: Outputs, threshold: float, shape: tuple[int, int, int], rules: Sequence[ClassRule] = ()
    ) -> None:
        self._outputs, self._threshold, self._rules = outputs, threshold, tuple(rules)
        whole = (len(outputs.names), *shape)
        self.masks: Masks = (
            temporary_array(whole, np.bool_) if is_large(shape[0] * shape[1], shape[2]) else np.zeros(whole, np.bool_)
        )
        """(classes, slices, height, width)"""
        self._top_pixels = [0] * len(outputs.names)

    def add(self, probabilities: Tensor, *, position: int = 0, lines: slice = ALL_ROWS) -> None:
        """Fill in rows of pixels of one slice from their probabilities (channels, rows, width)."""
        exclusive = self._outputs.exclusive
        masks = predicted_masks(probabilities[None], exclusive=exclusive, threshold=self._threshold)[0].cpu().numpy()
        for number, rule in enumerate(self._rules):
            if rule.empty is not None:
                scores = probabilities[number + exclusive]
                masks[number] = (scores >= rule.empty.bottom).cpu().numpy()
                self._top_pixels[number] += int((scores >= rule.empty.top).sum())
        self.masks[:, position, lines] = masks
        release(self.masks)

    def of_class(self, number: int) -> Masks:
        """Return the mask of a class, (height, width), or (slices, height, width) of several slices."""
        mask: Masks = self.masks[number]
        return mask[0] if len(mask) == 1 else mask

    def postprocess(self, rules: Sequence[ClassRule] | None = None) -> None:
        """Post-process all masks in place, once they are filled, by the rules or by simpler ones."""
        for number, rule in enumerate(self._rules if rules is None else rules):
            postprocess(self.of_class(number), rule, top_pixels=self._top_pixels[number])


def volume_masks(predicted: PredictedMasks, probabilities: Iterable[Tensor], order: Sequence[int]) -> Masks:
    """Fill in the slices of a volume, post-process them and return the masks (classes, slices, H, W) as stored.

    Args:
        predicted: The masks to fill in.
        probabilities: (channels, H, W) of each slice, as stored.
        order: Positions of the slices as stored, by their place in the body; empty if they are stored in that order.
    """
    # Neighbouring slices are post-processed together, in whatever order they are stored.
    positions = np.argsort(order).tolist() if order else range(predicted.masks.shape[1])
    for position, part in zip(positions, probabilities, strict=True):
        predicted.add(part, position=position)
    predicted.postprocess()
    masks: Masks = predicted.masks[:, positions] if order else predicted.masks
    return masks


def ids_of(masks: Masks) -> Pixels:
    """Return the class ids (...) of masks (classes, ...) that exclude each other; 0 is the background."""
    ids = np.zeros(masks.shape[1:], np.uint8)
    for number, mask in enumerate(masks, start=1):
        ids[mask] = number
    return ids
