"""Metrics of contours, centre lines and lesions in the table of scores: of images, or of whole volumes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from results.metrics.contours import Mask, Spacing
from results.metrics.surface import ShapeSettings, shape_values

Masks = NDArray[np.bool_]
"""(classes, height, width)."""


@dataclass(kw_only=True)
class _Slices:
    """The slices of a volume so far, one bit a pixel."""

    volume: str
    rows: Mapping[str, dict[str, Any]]
    """Row of the first slice in the table of scores, by class."""
    spacing: Spacing
    shape: tuple[int, ...]
    is_measurable: NDArray[np.bool_]
    """(classes,), of all slices so far."""
    truth: list[NDArray[np.uint8]] = field(default_factory=list)
    predicted: list[NDArray[np.uint8]] = field(default_factory=list)

    def masks(self, slices: Sequence[NDArray[np.uint8]], number: int) -> Mask:
        """Return the mask of a class, (slices, height, width)."""
        height, width = self.shape[1:]
        unpacked = [np.unpackbits(packed[number], count=height * width) for packed in slices]
        return np.stack(unpacked).astype(np.bool_).reshape(-1, height, width)


class ShapeScores:
    """Adds metrics to rows of the table of scores; those of a volume to the rows of its first slice.

    A volume of one slice is measured as an image.

    The slices of a volume have to be added one after the other, and `finish` called after the last image of a split.
    """

    def __init__(self, settings: ShapeSettings) -> None:
        self._settings = settings
        self._slices: _Slices | None = None

    def add(
        self,
        rows: Mapping[str, dict[str, Any]],
        truth: Masks,
        predicted: Masks,
        spacing: Spacing,
        volume: str | None,
        is_measurable: NDArray[np.bool_],
    ) -> None:
        """Add an image or a slice.

        Args:
            rows: Rows of the table of scores by class, in the order of the masks.
            truth: True masks.
            predicted: Predicted masks.
            spacing: Height and width of a pixel, before them the distance of the slices of a volume.
            volume: Name of the volume; None for a single image.
            is_measurable: (classes,); the metrics of other classes, and of their volumes, are undefined.
        """
        if volume is None:
            for number in np.flatnonzero(is_measurable):
                values = shape_values(truth[number], predicted[number], self._settings, spacing=spacing)
                list(rows.values())[number].update(values._asdict())
            return
        if self._slices is None or self._slices.volume != volume:
            self.finish()
            self._slices = _Slices(
                volume=volume, rows=rows, spacing=spacing, shape=truth.shape, is_measurable=is_measurable
            )
        self._slices.is_measurable = self._slices.is_measurable & is_measurable
        for packed, masks in ((self._slices.truth, truth), (self._slices.predicted, predicted)):
            packed.append(np.packbits(masks.reshape(len(masks), -1), axis=1))

    def finish(self) -> None:
        """Compute the metrics of the last volume, if there is one."""
        slices, self._slices = self._slices, None
        if slices is None:
            return
        for number, row in enumerate(slices.rows.values()):
            if not slices.is_measurable[number]:
                continue
            true_mask, predicted_mask = (slices.masks(part, number) for part in (slices.truth, slices.predicted))
            spacing = slices.spacing
            if len(true_mask) == 1:  # an image: the faces of a single layer are no surfaces
                true_mask, predicted_mask, spacing = true_mask[0], predicted_mask[0], spacing[-2:]
            row.update(shape_values(true_mask, predicted_mask, self._settings, spacing=spacing)._asdict())
