"""Conversion of run lengths and polygons (Kaggle's and COCO's notations) to a common format.

The format: (start, length) of each run of foreground, counted from 0 in column-major order, as little-endian
unsigned 32-bit integers. An empty mask has no bytes.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from datasets.errors import DataError
from datasets.source import Pixels

RunArray = NDArray[np.int64]

TOLERANCE = 1.0
"""Pixels by which a box, point or corner may exceed the image: published ones are often rounded outwards."""
LIMIT = 2**31
"""Upper bound of pixels; larger numbers are an error, which avoids overflow."""
REMEDY = "correct or remove the annotation"


def absolute_runs(text: str, place: str) -> bytes:
    """Convert Kaggle's usual notation: start (from 1) and length of each run. Raises `DataError` naming `place`."""
    starts, lengths = _pairs(text, place)
    if len(starts) and starts.min() < 1:
        raise DataError(f"{place}: a run starts at {starts.min()}; allowed: 1 or more; {REMEDY}")
    return _packed(starts - 1, lengths)


def relative_runs(text: str, place: str) -> bytes:
    """Convert SIIM-ACR's notation: starts are relative to the end of the previous run, the first to 0."""
    gaps, lengths = _pairs(text, place)
    return _packed(np.cumsum(gaps + lengths) - lengths, lengths)


def counted_runs(counts: Sequence[int], place: str, *, pixels: int) -> bytes:
    """Convert COCO's uncompressed notation: alternating lengths of background and foreground, `pixels` in total."""
    numbers = _numbers(counts, place)
    if numbers.sum() < pixels:  # runs past the end are reported with the image
        raise DataError(f"{place}: runs of {numbers.sum()} pixels; allowed: {pixels}, all of its image's; {REMEDY}")
    starts = np.cumsum(numbers) - numbers
    return _packed(starts[1::2], numbers[1::2])


def compressed_runs(text: str, place: str, *, pixels: int) -> bytes:
    """Convert COCO's compressed notation: groups of five bits, differences from the fourth length on."""
    bits = np.frombuffer(text.encode(), np.uint8).astype(np.int64) - 48
    if len(bits) and (bits.min() < 0 or bits.max() > 63 or bits[-1] & 32):
        raise DataError(f"{place}: '{text[:20]}' are no compressed run lengths; allowed: whole ones of COCO; {REMEDY}")
    lasts = np.flatnonzero(bits & 32 == 0)
    firsts = np.concatenate([[0], lasts[:-1] + 1])[: len(lasts)]
    shifts = 5 * (np.arange(len(bits)) - np.repeat(firsts, lasts - firsts + 1))
    if len(bits) and shifts.max() > 30:
        raise DataError(f"{place}: a run is {LIMIT} or more pixels long; allowed: fewer; {REMEDY}")
    numbers = np.add.reduceat((bits & 31) << shifts, firsts) if len(firsts) else bits
    negative = bits[lasts] & 16 != 0
    numbers = numbers - (negative.astype(np.int64) << shifts[lasts] + 5)
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return counted_runs(numbers.tolist(), place, pixels=pixels)


def polygon_runs(polygons: Sequence[Sequence[float]], size: tuple[int, int], place: str) -> bytes:
    """Rasterise COCO's polygons (x, y, x, y, ...) for an image of (width, height), as pycocotools does."""
    from pycocotools import mask  # type: ignore[import-untyped]

    for polygon in polygons:
        _check_polygon(polygon, size, place)
    encoded = mask.frPyObjects([list(polygon) for polygon in polygons], size[1], size[0]) if polygons else []
    return b"".join(compressed_runs(part["counts"].decode(), place, pixels=size[0] * size[1]) for part in encoded)


def last_pixel(runs: bytes) -> int:
    """Return the end of the last run, 0 for an empty mask."""
    return int(_unpacked(runs).sum(axis=1).max(initial=0))


def draw(runs: bytes, size: tuple[int, int], place: str) -> Pixels:
    """Return (height, width) of 0/1 for (width, height); raises `DataError` if runs exceed the image."""
    width, height = size
    if last_pixel(runs) > width * height:
        raise DataError(past_the_end(runs, size, place))
    flat = np.zeros(width * height, np.uint8)
    for start, length in _unpacked(runs).tolist():
        flat[start : start + length] = 1
    return np.ascontiguousarray(flat.reshape(width, height).T)


def past_the_end(runs: bytes, size: tuple[int, int], place: str) -> str:
    """Return the message for runs that exceed an image."""
    return (
        f"{place} runs past the end (to pixel {last_pixel(runs)}); allowed: up to {size[0] * size[1]}, the pixels "
        f"of its image; {REMEDY}"
    )


def _pairs(text: str, place: str) -> tuple[RunArray, RunArray]:
    values = text.split()
    if len(values) % 2:
        raise DataError(f"{place}: {len(values)} run lengths; allowed: pairs of start and length; {REMEDY}")
    numbers = _numbers(values, place)
    return numbers[::2], numbers[1::2]


def _numbers(values: Sequence[str] | Sequence[int], place: str) -> RunArray:
    try:
        numbers = [int(value) for value in values]
    except ValueError as error:
        raise DataError(f"{place}: {error}; allowed: whole numbers; {REMEDY}") from error
    if numbers and min(numbers) < 0:
        raise DataError(f"{place}: a run length is {min(numbers)}; allowed: 0 or more; {REMEDY}")
    if sum(numbers) >= LIMIT:
        raise DataError(f"{place}: runs up to pixel {sum(numbers)}; allowed: less than {LIMIT}; {REMEDY}")
    return np.array(numbers, np.int64)


def _packed(starts: RunArray, lengths: RunArray) -> bytes:
    return np.stack([starts, lengths], axis=1)[lengths > 0].astype("<u4").tobytes()


def _unpacked(runs: bytes) -> NDArray[np.uint32]:
    return np.frombuffer(runs, "<u4").reshape(-1, 2)


def _check_polygon(polygon: Sequence[float], size: tuple[int, int], place: str) -> None:
    if len(polygon) % 2 or len(polygon) < 6:
        raise DataError(
            f"{place}: a polygon of {len(polygon)} numbers; allowed: x and y of three or more corners; {REMEDY}"
        )
    for numbers, side in ((polygon[::2], size[0]), (polygon[1::2], size[1])):
        outside = [number for number in numbers if not -TOLERANCE <= number <= side + TOLERANCE]
        if outside:
            raise DataError(
                f"{place}: a polygon at {outside[0]:g} leaves the image; allowed: inside {size[0]} x {size[1]}; "
                f"{REMEDY}"
            )
