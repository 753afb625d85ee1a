"""Resizing of images and masks; large ones by bands of rows."""

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from datasets.large import BAND_PIXELS, is_large, release, row_bands, temporary_array
from datasets.source import Pixels

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Positions = NDArray[np.int64]
OPENCV_CHANNELS: Final = 4
"""Maximum number of channels that OpenCV moves or averages at once."""


def in_parts(pixels: NDArray[Any], function: Callable[[NDArray[Any]], NDArray[Any]]) -> NDArray[Any]:
    """Apply a function of OpenCV to an image (height, width[, channels]), to a few channels at a time."""
    if pixels.ndim == 2:
        return function(pixels)
    firsts = range(0, pixels.shape[2], OPENCV_CHANNELS)
    parts = [np.atleast_3d(function(pixels[..., first : first + OPENCV_CHANNELS])) for first in firsts]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)  # OpenCV drops a single channel


def resized(pixels: Pixels, height: int, width: int, *, shrinks: bool) -> Pixels:
    """Resize (H, W[, channels]): by area averaging if it `shrinks`, else linearly.

    A large image is resized by bands. The result is that of OpenCV for the whole image if both sides shrink by an
    integer factor; if they shrink by others, or grow, single values differ by 1, where nearly equal means are rounded
    differently. OpenCV does not average over areas if only one side shrinks, so that values differ more.
    """
    import cv2

    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    if not is_large(*pixels.shape[:2]) and not is_large(height, width):
        return np.asarray(_resize(pixels, height, width, method), np.uint8)
    resize = _by_factor if shrinks and not (pixels.shape[0] % height or pixels.shape[1] % width) else _by_weights
    result = _new_array((height, width, *pixels.shape[2:]), height, width)
    pixels_per_row = max(width, pixels.shape[1] * -(-pixels.shape[0] // height))
    for start in range(0, height, rows := max(1, BAND_PIXELS // pixels_per_row)):
        part = slice(start, min(start + rows, height))
        result[part] = resize(pixels, part, height, width, shrinks=shrinks)
        release(pixels)
        release(result)
    return result


def _resize(pixels: NDArray[Any], height: int, width: int, method: int) -> NDArray[Any]:
    """Resize (H, W[, channels]) with OpenCV."""
    import cv2

    return in_parts(pixels, lambda part: np.asarray(cv2.resize(part, (width, height), interpolation=method)))


def _by_factor(pixels: Pixels, rows: slice, height: int, width: int, *, shrinks: bool) -> Pixels:
    """Return some rows of an image whose sides shrink by integer factors."""
    import cv2

    factor = pixels.shape[0] // height
    band = np.asarray(pixels[rows.start * factor : rows.stop * factor])
    return np.asarray(_resize(band, rows.stop - rows.start, width, cv2.INTER_AREA), np.uint8)


def _by_weights(pixels: Pixels, rows: slice, height: int, width: int, *, shrinks: bool) -> Pixels:
    """Return some rows of a resized image: columns are resized by OpenCV, rows are weighted sums."""
    import cv2

    weights = _row_weights(pixels.shape[0], height, shrinks=shrinks)[rows]
    first, stop = int(weights.indices.min()), int(weights.indices.max()) + 1
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    band = _resize(np.asarray(pixels[first:stop], np.float32), stop - first, width, method)
    means = np.asarray(weights[:, first:stop] @ band.reshape(stop - first, -1))
    return np.asarray(np.rint(means.reshape(-1, width, *pixels.shape[2:])).clip(0, 255), np.uint8)


def sampled(masks: Pixels, height: int, width: int) -> Pixels:
    """Resize (..., H, W) of ids by nearest neighbour (OpenCV's INTER_NEAREST_EXACT)."""
    import cv2

    planes = masks.reshape(-1, *masks.shape[-2:])
    if not is_large(*masks.shape[-2:]) and not is_large(height, width):
        small = [cv2.resize(plane, (width, height), interpolation=cv2.INTER_NEAREST_EXACT) for plane in planes]
        return np.stack(small).astype(np.uint8).reshape(*masks.shape[:-2], height, width)
    rows, columns = nearest_positions(masks.shape[-2], height), nearest_positions(masks.shape[-1], width)
    result = _new_array((len(planes), height, width), height, width)
    for plane, target in zip(planes, result, strict=True):
        for part in row_bands(height, masks.shape[-1]):
            target[part] = plane[rows[part]][:, columns]
            release(masks)
            release(result)
    return result.reshape(*masks.shape[:-2], height, width)


def nearest_positions(length: int, new_length: int) -> Positions:
    """Return for each position along a resized axis the nearest one along the original axis, by pixel centres.

    These are the positions of OpenCV's INTER_NEAREST_EXACT.
    """
    import cv2

    numbers = np.arange(length, dtype=np.float32)[None]  # exact below 2**24
    return np.asarray(cv2.resize(numbers, (new_length, 1), interpolation=cv2.INTER_NEAREST_EXACT)[0], np.int64)


def _new_array(shape: tuple[int, ...], height: int, width: int) -> Pixels:
    return temporary_array(shape) if is_large(height, width) else np.zeros(shape, np.uint8)


@cache
def _row_weights(length: int, new_length: int, *, shrinks: bool) -> "csr_array":
    """Return (new_length, length) weights of rows: shares of area, or of linear interpolation by pixel centres."""
    from scipy.sparse import csr_array

    ratio = length / new_length
    number = np.arange(new_length)
    if shrinks:
        first = np.floor(number * ratio + 1e-9).astype(int)
        covered = np.ceil((number + 1) * ratio - 1e-9).astype(int).clip(first + 1, length) - first
        rows = np.repeat(number, covered)
        columns = np.arange(len(rows)) - np.repeat(np.cumsum(covered) - covered, covered) + first[rows]
        values = np.minimum(columns + 1, (rows + 1) * ratio) - np.maximum(columns, rows * ratio)
        values = values / np.bincount(rows, values)[rows]
    else:
        place = (number + 0.5) * ratio - 0.5
        rows = np.concatenate([number, number])
        columns = np.concatenate([np.floor(place), np.floor(place) + 1]).clip(0, length - 1).astype(int)
        values = np.concatenate([1 - (place - np.floor(place)), place - np.floor(place)])
    return csr_array((values.astype(np.float32), (rows, columns)), shape=(new_length, length))
