"""Class probabilities of an image in bands of rows, so that those of a large image are never all in memory."""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate

WHOLE_PIXELS: Final = 2**24
"""Images up to this size are one band; sums over the bands of larger ones are exact (`models.counts`)."""
Size = tuple[int, int]
"""Height and width in pixels."""


class Band(NamedTuple):
    """Probabilities (channels, rows, width) of some rows of an image, from the row `top` on."""

    top: int
    probabilities: Tensor


def whole(bands: Iterable[Band]) -> Tensor:
    """Return the probabilities (channels, height, width) of all rows."""
    return torch.cat([band.probabilities for band in bands], dim=1)


def resized_bands(bands: Iterable[Band], size: Size, new_size: Size, *, limit: int = WHOLE_PIXELS) -> Iterator[Band]:
    """Yield the probabilities of an image at another size, all at once if it has at most `limit` pixels.

    Larger ones come in bands of about a quarter of the limit. Where these are resized, they equal those of the whole
    image up to rounding.

    Args:
        bands: The bands of the image from top to bottom.
        size: Size of the image.
        new_size: Size at which probabilities are returned.
        limit: Maximum number of pixels that are returned at once.
    """
    # Rows of the result, each with as many pixels as the rows of the image that it is made from.
    pixels_per_row = max(new_size[1], size[1] * -(-size[0] // new_size[0]))
    rows = max(1, limit // 4 // pixels_per_row)
    if max(size[0] * size[1], new_size[0] * new_size[1]) <= limit:
        yield Band(0, resized(whole(bands), *new_size))
    elif size == new_size:
        yield from _regrouped(bands, rows)
    else:
        yield from _interpolated(bands, size, new_size, rows)


def row_slices(height: int, width: int, *, limit: int = WHOLE_PIXELS) -> Iterator[slice]:
    """Yield the rows of the bands of `resized_bands` of an image that is not resized."""
    rows = height if height * width <= limit else max(1, limit // 4 // width)
    yield from (slice(start, min(start + rows, height)) for start in range(0, height, rows))


def resized(probabilities: Tensor, height: int, width: int) -> Tensor:
    """Resize probabilities (C, H, W) to (C, height, width)."""
    if probabilities.shape[-2:] == (height, width):
        return probabilities
    return interpolate(probabilities[None], (height, width), mode="bilinear", align_corners=False)[0].clamp_(0.0, 1.0)


def _regrouped(bands: Iterable[Band], rows: int) -> Iterator[Band]:
    """Yield the same rows, this many at a time; the last band may have fewer."""
    waiting = _Rows()
    for band in bands:
        waiting.append(band)
        while waiting.stop - waiting.top >= rows:
            yield waiting.take(rows)
    if waiting.stop > waiting.top:
        yield waiting.take(rows)


def _interpolated(bands: Iterable[Band], size: Size, new_size: Size, rows: int) -> Iterator[Band]:
    """Yield bands of this many rows by bilinear interpolation by pixel centres."""
    (height, _), (new_height, new_width) = size, new_size
    ratio = torch.tensor(height / new_height)  # float32, as in torch's own interpolation
    places = (ratio * (torch.arange(new_height) + 0.5) - 0.5).clamp(min=0.0)
    lower = places.long().clamp(max=height - 1)
    upper, share = (lower + 1).clamp(max=height - 1), places - lower
    waiting, remaining = _Rows(), iter(bands)
    for start in range(0, new_height, rows):
        part = slice(start, min(start + rows, new_height))
        while waiting.stop <= int(upper[part][-1]):
            waiting.append(next(remaining))
        waiting.drop(int(lower[part][0]))
        known = waiting.values()
        above, below = (known[:, (numbers[part] - waiting.top).to(known.device)] for numbers in (lower, upper))
        mixed = torch.lerp(above, below, share[part].to(known.device)[:, None])
        yield Band(start, resized(mixed, mixed.shape[1], new_width))


class _Rows:
    """Rows of probabilities that wait to be returned: from `top` up to `stop`."""

    def __init__(self) -> None:
        self.top, self.stop = 0, 0
        self._parts: list[Tensor] = []

    def append(self, band: Band) -> None:
        self._parts.append(band.probabilities)
        self.stop += band.probabilities.shape[1]

    def values(self) -> Tensor:
        self._parts = [torch.cat(self._parts, dim=1)]
        return self._parts[0]

    def drop(self, top: int) -> None:
        """Forget the rows before `top`."""
        self._parts = [self.values()[:, top - self.top :]]
        self.top = top

    def take(self, rows: int) -> Band:
        """Return the first rows and forget them."""
        band = Band(self.top, self.values()[:, :rows])
        self.drop(min(self.top + rows, self.stop))
        return band
