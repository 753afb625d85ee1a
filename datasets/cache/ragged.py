"""Arrays of different sizes in one flat array, so that they can be memory-mapped together."""

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from datasets.large import copy_into, release

Shape = tuple[int, ...]
RESIDENT_BYTES: Final = 2**28
"""Memory that parts which are read may take before they are released."""
MIN_READ_BYTES: Final = 2**16
"""Memory that systems map around values that are read."""


class RaggedArray:
    """Arrays of different sizes, one after the other in a flat array.

    Args:
        flat: (length,), see `length_of`.
        shapes: Shape of each array; one with a 0 in it takes no room.
    """

    def __init__(self, flat: NDArray[Any], shapes: Sequence[Shape]) -> None:
        self._flat, self.shapes = flat, shapes
        self._offsets = np.concatenate([[0], np.cumsum([math.prod(shape) for shape in shapes], dtype=np.int64)])
        self._read_bytes = 0

    def __len__(self) -> int:
        """Return the number of arrays."""
        return len(self.shapes)

    def __getitem__(self, row: int) -> NDArray[Any]:
        """Return a view of one array."""
        return self._flat[self._offsets[row] : self._offsets[row + 1]].reshape(self.shapes[row])

    def assign(self, row: int, values: NDArray[Any]) -> None:
        """Set one array."""
        copy_into(self[row], values)

    def copy(self, row: int, place: tuple[slice, ...]) -> NDArray[Any]:
        """Return a copy of a part of one array, without keeping much of a memory-mapped file in memory.

        Args:
            row: Number of the array.
            place: Slices of its axes.
        """
        view = self[row][place]
        part = np.array(view)
        self._read_bytes += max(part.nbytes, _runs(view) * MIN_READ_BYTES)
        if self._read_bytes > RESIDENT_BYTES:
            release(self._flat)
            self._read_bytes = 0
        return part


def _runs(view: NDArray[Any]) -> int:
    """Return the number of runs of values that lie together in memory."""
    run = view.itemsize
    for length, stride in zip(reversed(view.shape), reversed(view.strides), strict=True):
        if stride != run:
            break
        run *= length
    return view.nbytes // max(run, 1)


def length_of(shapes: Sequence[Shape]) -> int:
    """Return the length of the flat array."""
    return sum(map(math.prod, shapes))
