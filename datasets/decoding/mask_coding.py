"""Masks whose stored values are no class ids: grey values above a threshold, colours, groups of ids."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from datasets.decoding.raster import Raster, StoredValues, UnsuitableError
from datasets.source import Pixels

MaskValue = tuple[int, ...]
"""A grey value or id, or the three numbers of a colour."""
REMEDY: Final = "add it to mask_values, under the name background or ignore if it is no class"


@dataclass(frozen=True, kw_only=True)
class MaskCoding:
    """The meaning of the values in mask files.

    Attributes:
        threshold: Values above it are foreground, 1; None with `ids`.
        ids: The id of each value. All of one number, or some of three numbers (colours). Black is 0 if it has no id.
    """

    threshold: int | None = None
    ids: tuple[tuple[MaskValue, int], ...] = ()

    @property
    def is_lossy(self) -> bool:
        """Whether compressed masks can be read, whose values are not exact."""
        return self.threshold is not None

    @property
    def has_colours(self) -> bool:
        """Whether some values are colours."""
        return any(len(value) == 3 for value, _ in self.ids)

    @cached_property
    def _table(self) -> tuple[NDArray[np.int64], Pixels]:
        """Return the values as single numbers in ascending order, and their ids."""
        colours = self.has_colours
        ids: Mapping[int, int] = {0: 0} | {_number(value, colours=colours): number for value, number in self.ids}
        ordered = sorted(ids)
        return np.array(ordered, np.int64), np.array([ids[number] for number in ordered], np.uint8)

    def of_raster(self, raster: Raster) -> Pixels:
        """Return (height, width) of ids. Raises `UnsuitableError` for a value without an id."""
        if self.threshold is not None:
            shape = raster.alpha_shape()
            values = raster.colour if shape is None else shape * np.uint8(255)
            return self.of_values(values.max(axis=2) if values.ndim == 3 else values)
        if not self.has_colours:
            numbers = raster.numbers()
            if numbers.ndim == 3 and (numbers != numbers[..., :1]).any():
                raise UnsuitableError(
                    "is in colour, and mask_values has no colours; allowed: colours such as [255, 0, 0]; name those of "
                    "the masks"
                )
            return self.of_values(numbers[..., 0] if numbers.ndim == 3 else numbers)
        colour = raster.colour
        if colour.dtype != np.uint8:
            raise UnsuitableError("has more than 8 bits; allowed: colours of 8 bits in mask_values; convert it")
        planes = [colour] * 3 if colour.ndim == 2 else [colour[..., channel] for channel in range(3)]
        red, green, blue = (plane.astype(np.int64) for plane in planes)
        return self._ids_of((red << 16) + (green << 8) + blue)

    def of_values(self, values: StoredValues) -> Pixels:
        """Return ids of the same shape for grey values or ids."""
        if self.threshold is not None:
            return np.asarray(values > self.threshold, np.uint8)
        if np.issubdtype(values.dtype, np.floating) and (values != np.floor(values)).any():
            raise UnsuitableError("holds fractions; allowed: whole numbers with mask_values; use mask_threshold")
        return self._ids_of(np.asarray(values, np.int64))

    def _ids_of(self, numbers: NDArray[np.int64]) -> Pixels:
        known, ids = self._table
        places = np.minimum(np.searchsorted(known, numbers), len(known) - 1)
        unknown = known[places] != numbers
        if unknown.any():
            value = _text(int(numbers[unknown][0]), colours=self.has_colours)
            raise UnsuitableError(
                f"holds {value} in {int(unknown.sum()):,} pixels, which mask_values does not name; allowed: "
                f"{', '.join(_text(int(number), colours=self.has_colours) for number in known[:16])}; {REMEDY}"
            )
        return ids[places]


def _number(value: MaskValue, *, colours: bool) -> int:
    """Return a value as one number; greys among colours are their three equal channels."""
    if not colours:
        return value[0]
    red, green, blue = value if len(value) == 3 else value * 3
    return (red << 16) + (green << 8) + blue


def _text(number: int, *, colours: bool) -> str:
    return f"[{number >> 16}, {number >> 8 & 255}, {number & 255}]" if colours else str(number)
