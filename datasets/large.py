"""Large images: memory-mapped, and processed by bands of rows, so that only a part of them is in memory."""

import mmap
from collections.abc import Callable, Iterator
from tempfile import TemporaryFile
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

AnyArray = NDArray[Any]

LARGE_PIXELS: Final = 2**26
"""Images with more pixels than this are large."""
BAND_PIXELS: Final = 2**22
"""Number of pixels of a band of a large image, at least one row."""
BLOCK_VALUES: Final = 2**24
"""Number of values that are copied at a time."""


def is_large(height: int, width: int) -> bool:
    """Return whether an image is processed by bands."""
    return height * width > LARGE_PIXELS


def row_bands(height: int, width: int, *, step: int = 1) -> Iterator[slice]:
    """Yield the rows of each band; an image that is not large is one band.

    Args:
        height, width: Size of the image in pixels.
        step: Rows that are stored together: bands start at their multiples.
    """
    rows = height
    if is_large(height, width):
        rows = max(1, BAND_PIXELS // width // step) * step
    for start in range(0, height, max(rows, 1)):
        yield slice(start, min(start + rows, height))


def temporary_array(shape: tuple[int, ...], dtype: DTypeLike = np.uint8) -> AnyArray:
    """Return an array of zeros in an unnamed temporary file (below `TMPDIR`), which is removed with the array."""
    with TemporaryFile() as file:  # the mapping keeps the file
        return np.memmap(file, dtype=dtype, mode="w+", shape=shape)


def release(array: AnyArray) -> None:
    """Drop the pages of a memory-mapped array from the memory of the process; other arrays stay as they are.

    Nothing is lost: pages are read from the file again when they are used.
    """
    mapped = getattr(array, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def by_bands(function: Callable[[AnyArray], AnyArray], pixels: AnyArray) -> AnyArray:
    """Apply a function of single pixels to an image (height, width[, channels]).

    The result for a large image is a `temporary_array`.
    """
    height, width = pixels.shape[:2]
    if not is_large(height, width):
        return function(pixels)
    result: AnyArray | None = None
    for rows in row_bands(height, width):
        part = function(np.asarray(pixels[rows]))
        if result is None:
            result = temporary_array((height, *part.shape[1:]), part.dtype)
        result[rows] = part
        release(pixels)
        release(result)
    assert result is not None, "a large image has rows"
    return result


def copy_into(target: AnyArray, values: AnyArray) -> None:
    """Set all values of an array of the same shape, block by block; memory-mapped arrays are released meanwhile."""
    if values.size <= BLOCK_VALUES or not values.ndim:
        target[...] = values
        return
    rows = max(1, BLOCK_VALUES * len(values) // values.size)
    for start in range(0, len(values), rows):
        part = slice(start, start + rows)
        if rows == 1:
            copy_into(target[start], values[start])
        else:
            target[part] = values[part]
        release(target)
        release(values)
