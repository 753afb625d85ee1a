"""Masks written as runs of pixels or as polygons in tables: Kaggle's and COCO's notations in one form.

The form: (start, length) of each run of foreground, counted from 0 down the columns, as little-endian
unsigned 32-bit numbers. No bytes are an empty mask.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from datasets.errors import DataError
from datasets.source import Pixels

Numbers = NDArray[np.int64]

TOLERANCE = 1.0
"""Pixels a box, point or corner may lie outside: published ones are often rounded outwards."""
LIMIT = 2**31
"""Pixels no image has; larger numbers are refused before they are added up."""
REMEDY = "correct or remove the annotation"


def absolute_runs(text: str, place: str) -> bytes:
    """Kaggle's usual notation: start and length of each run, starts from 1. Raises `DataError` naming `place`."""
    starts, lengths = _pairs(text, place)
    if len(starts) and starts.min() < 1:
        raise DataError(f"{place}: a run starts at {starts.min()}; allowed: 1 or more; {REMEDY}")
    return _packed(starts - 1, lengths)


def relative_runs(text: str, place: str) -> bytes:
    """SIIM-ACR's notation: each start counts from the end of the run before, the first from 0."""
    gaps, lengths = _pairs(text, place)
    return _packed(np.cumsum(gaps + lengths) - lengths, lengths)


def counted_runs(counts: Sequence[int], place: str, *, pixels: int) -> bytes:
    """COCO's uncompressed notation: lengths of background and foreground in turn, `pixels` together."""
    numbers = _numbers(counts, place)
    if numbers.sum() < pixels:  # those past the end are told of with the image
        raise DataError(f"{place}: runs of {numbers.sum()} pixels; allowed: {pixels}, all of its image's; {REMEDY}")
    starts = np.cumsum(numbers) - numbers
    return _packed(starts[1::2], numbers[1::2])


def compressed_runs(text: str, place: str, *, pixels: int) -> bytes:
    """COCO's compressed notation of the same lengths: groups of five bits, differences from the fourth on."""
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
    found = mask.frPyObjects([list(polygon) for polygon in polygons], size[1], size[0]) if polygons else []
    return b"".join(compressed_runs(part["counts"].decode(), place, pixels=size[0] * size[1]) for part in found)


def last_pixel(runs: bytes) -> int:
    """Return how many pixels an image needs at least, 0 for an empty mask."""
    return int(_unpacked(runs).sum(axis=1).max(initial=0))


def draw(runs: bytes, size: tuple[int, int], place: str) -> Pixels:
    """Return (height, width) of 0/1 for (width, height); raises `DataError` where runs leave the image."""
    width, height = size
    if last_pixel(runs) > width * height:
        raise DataError(past_the_end(runs, size, place))
    flat = np.zeros(width * height, np.uint8)
    for start, length in _unpacked(runs).tolist():
        flat[start : start + length] = 1
    return np.ascontiguousarray(flat.reshape(width, height).T)


def past_the_end(runs: bytes, size: tuple[int, int], place: str) -> str:
    """Say that runs leave an image."""
    return (
        f"{place} runs past the end (to pixel {last_pixel(runs)}); allowed: up to {size[0] * size[1]}, the pixels "
        f"of its image; {REMEDY}"
    )


def _pairs(text: str, place: str) -> tuple[Numbers, Numbers]:
    values = text.split()
    if len(values) % 2:
        raise DataError(f"{place}: {len(values)} run lengths; allowed: pairs of start and length; {REMEDY}")
    numbers = _numbers(values, place)
    return numbers[::2], numbers[1::2]


def _numbers(values: Sequence[str] | Sequence[int], place: str) -> Numbers:
    try:
        numbers = [int(value) for value in values]
    except ValueError as error:
        raise DataError(f"{place}: {error}; allowed: whole numbers; {REMEDY}") from error
    if numbers and min(numbers) < 0:
        raise DataError(f"{place}: a run length is {min(numbers)}; allowed: 0 or more; {REMEDY}")
    if sum(numbers) >= LIMIT:
        raise DataError(f"{place}: runs up to pixel {sum(numbers)}; allowed: less than {LIMIT}; {REMEDY}")
    return np.array(numbers, np.int64)


def _packed(starts: Numbers, lengths: Numbers) -> bytes:
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
