"""Arrays of different sizes in one flat array, so that they can be memory-mapped together."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, ...]


class RaggedArray:
    """Arrays of different sizes, one after the other in a flat array.

    Args:
        flat: (length,), see `length_of`.
        shapes: Shape of each array; one with a 0 in it takes no room.
    """

    def __init__(self, flat: NDArray[Any], shapes: Sequence[Shape]) -> None:
        self._flat, self.shapes = flat, shapes
        self._offsets = np.concatenate([[0], np.cumsum([math.prod(shape) for shape in shapes], dtype=np.int64)])

    def __len__(self) -> int:
        """Return the number of arrays."""
        return len(self.shapes)

    def __getitem__(self, row: int) -> NDArray[Any]:
        """Return a view of one array."""
        return self._flat[self._offsets[row] : self._offsets[row + 1]].reshape(self.shapes[row])

    def assign(self, row: int, values: NDArray[Any]) -> None:
        """Set one array."""
        self[row][...] = values


def length_of(shapes: Sequence[Shape]) -> int:
    """Return the length of the flat array."""
    return sum(map(math.prod, shapes))
