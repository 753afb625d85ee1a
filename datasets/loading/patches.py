"""Examples that are patches of images in their own resolution: random ones for training, tiles for validation."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from datasets.cache.ragged import RaggedArray, Shape
from datasets.keyed_random import generator_of
from datasets.loading.examples import Example, Examples, Positions, augmentation_key
from datasets.settings import PatchSettings
from datasets.source import IGNORE, Pixels
from datasets.targets import TargetArray

if TYPE_CHECKING:
    from datasets.loading.augment import Augmenter


class Window(NamedTuple):
    """The part of an image from a row and a column on."""

    top: int
    left: int


class RandomPatches(Examples):
    """Random patches; a position always stands for the same image.

    Args:
        images: (height, width, channels) of each row of the index.
        targets: (height, width) or (classes, height, width) of each row; None if there is none.
        foreground: (points, 2) pixels of foreground as row and column, of each row.
        rows: The rows of the examples; each gives `settings.per_image` patches an epoch.
        shape: Height and width of a patch.
        settings: How patches are chosen.
        augmenter: Changes the patches.
    """

    def __init__(
        self,
        images: RaggedArray,
        targets: RaggedArray | None,
        foreground: RaggedArray | None,
        rows: Sequence[int],
        *,
        shape: tuple[int, int],
        settings: PatchSettings,
        augmenter: "Augmenter | None" = None,
    ) -> None:
        self._images, self._targets, self._foreground = images, targets, foreground
        self._rows, self._shape, self._settings = tuple(rows), shape, settings
        self._augmenter = augmenter if augmenter is not None and augmenter.active else None

    def __len__(self) -> int:
        """Return the number of patches in an epoch."""
        return len(self._rows) * self._settings.per_image

    def read(self, positions: Positions) -> Example:
        """Return the patches in the middle of the images."""
        rows = [self._row(position) for position in positions.tolist()]
        return _stacked(
            [
                _cut(self._images, self._targets, row, _centred(self._images.shapes[row], self._shape), self._shape)
                for row in rows
            ]
        )

    def draw(self, positions: Positions, key: tuple[int, int], view: int = 0) -> Example:
        """Return random patches; with the probability `foreground` one contains a random foreground pixel."""
        return _stacked([self._draw(position, key, view) for position in positions.tolist()])

    def _draw(self, position: int, key: tuple[int, int], view: int) -> Example:
        row = self._row(position)
        kind = "labelled" if self._targets is not None else "unlabelled"  # both have the same positions
        random = generator_of("patch", kind, *key, position)
        points = self._foreground[row] if self._foreground is not None else np.empty((0, 2), np.int32)
        image, target = _cut(self._images, self._targets, row, self._window(row, points, random), self._shape)
        if self._augmenter is None:
            return image, target
        return self._augmenter(image, target, augmentation_key(key, position, view))

    def _window(self, row: int, points: TargetArray, random: np.random.Generator) -> Window:
        limits = _limits(self._images.shapes[row], self._shape)
        if len(points) and random.random() < self._settings.foreground:
            point = points[random.integers(len(points))]
            starts = [int(at) - int(random.integers(side)) for at, side in zip(point, self._shape, strict=True)]
        else:
            starts = [int(random.integers(limit + 1)) for limit in limits]
        return Window(*(min(max(start, 0), limit) for start, limit in zip(starts, limits, strict=True)))

    def _row(self, position: int) -> int:
        return self._rows[position // self._settings.per_image]


class Tile(NamedTuple):
    """A tile of an image; the first rows and columns of it may be in the tiles before."""

    window: Window
    repeated_rows: int
    repeated_columns: int


class Tiles(Examples):
    """Tiles that cover images without random choice, for validation.

    The last tiles of an image end at its border. In masks of exclusive classes each pixel of the image has its label in
    one tile; repeated and mirrored ones are `IGNORE`. Where classes overlap these pixels count again.
    """

    def __init__(
        self, images: RaggedArray, targets: RaggedArray | None, rows: Sequence[int], *, shape: tuple[int, int]
    ) -> None:
        self._images, self._targets, self._shape = images, targets, shape
        self._tiles = [(row, tile) for row in rows for tile in tiles(images.shapes[row], shape)]

    def __len__(self) -> int:
        """Return the number of tiles."""
        return len(self._tiles)

    def read(self, positions: Positions) -> Example:
        """Return the tiles."""
        return _stacked([self._read(*self._tiles[position]) for position in positions.tolist()])

    def draw(self, positions: Positions, key: tuple[int, int], view: int = 0) -> Example:
        """Return the tiles."""
        return self.read(positions)

    def _read(self, row: int, tile: Tile) -> Example:
        image, target = _cut(self._images, self._targets, row, tile.window, self._shape)
        if target is not None and target.ndim == 2:
            height, width = self._images.shapes[row][:2]
            target[: tile.repeated_rows], target[:, : tile.repeated_columns] = IGNORE, IGNORE
            target[height - tile.window.top :], target[:, width - tile.window.left :] = IGNORE, IGNORE
        return image, target


def tiles(image: Shape, tile: tuple[int, int]) -> Iterator[Tile]:
    """Yield the tiles of some height and width that cover an image, row by row."""
    for top, repeated_rows in _starts(image[0], tile[0]):
        for left, repeated_columns in _starts(image[1], tile[1]):
            yield Tile(Window(top, left), repeated_rows, repeated_columns)


def _starts(length: int, side: int) -> Iterator[tuple[int, int]]:
    """Yield the start of each tile along an axis, and how many of its pixels are in the tile before."""
    last = max(length - side, 0)
    for start in range(0, max(length, 1), side):
        yield min(start, last), start - min(start, last)


def _limits(image: Shape, window: tuple[int, int]) -> tuple[int, int]:
    """Return the last row and column at which a window can start."""
    return max(image[0] - window[0], 0), max(image[1] - window[1], 0)


def _centred(image: Shape, window: tuple[int, int]) -> Window:
    last_row, last_column = _limits(image, window)
    return Window(last_row // 2, last_column // 2)


def _cut(images: RaggedArray, targets: RaggedArray | None, row: int, window: Window, shape: tuple[int, int]) -> Example:
    image = _cut_row(images, row, window, shape, axis=0)
    return image, None if targets is None else _cut_row(targets, row, window, shape, axis=len(targets.shapes[row]) - 2)


def _cut_row(arrays: RaggedArray, row: int, window: Window, shape: tuple[int, int], *, axis: int) -> Pixels:
    place, padding = _place(arrays.shapes[row], window, shape, axis)
    return _padded(arrays.copy(row, place), padding)


def cut(pixels: Pixels, window: Window, shape: tuple[int, int], *, axis: int) -> Pixels:
    """Copy a rectangle of pixels; beyond the lower and right border the image is mirrored.

    Args:
        pixels: (..., height, width, ...).
        window: The upper left pixel.
        shape: Height and width of the rectangle.
        axis: The axis of the height; the next one is that of the width.
    """
    place, padding = _place(pixels.shape, window, shape, axis)
    return _padded(np.array(pixels[place]), padding)


def _place(
    array: Shape, window: Window, shape: tuple[int, int], axis: int
) -> tuple[tuple[slice, ...], list[tuple[int, int]]]:
    """Return the part of an array that a window covers, and the padding of each axis beyond its borders."""
    place = [slice(None)] * len(array)
    padding = [(0, 0)] * len(array)
    for number, (start, side) in enumerate(zip(window, shape, strict=True)):
        stop = min(start + side, array[axis + number])
        place[axis + number] = slice(start, stop)
        padding[axis + number] = (0, side - (stop - start))
    return tuple(place), padding


def _padded(part: Pixels, padding: list[tuple[int, int]]) -> Pixels:
    return np.pad(part, padding, mode="symmetric") if any(after for _, after in padding) else part


def _stacked(examples: Sequence[Example]) -> Example:
    images = np.stack([image for image, _ in examples])
    targets = [target for _, target in examples if target is not None]
    return images, np.stack(targets) if targets else None
