"""Images as large as those of slide scanners, written tile by tile."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import tifffile

TILE = 512
Strip = Callable[[int, int], np.ndarray]
"""Returns the rows of an image between two row numbers."""


def mask_strip(side: int, seed: int) -> Strip:
    """Return the rows of a mask (side, side) of ids: discs of two classes on background."""
    random = np.random.default_rng(seed)
    radius = side // 40
    centres = random.integers(radius, side - radius, (16, 2))

    def strip(start: int, stop: int) -> np.ndarray:
        ids, rows = np.zeros((stop - start, side), np.uint8), np.arange(start, stop)[:, None]
        for number, (row, column) in enumerate(centres):
            columns = np.arange(column - radius, column + radius)
            if start - radius < row < stop + radius:
                inside = (rows - row) ** 2 + (columns - column) ** 2 < radius**2
                ids[:, column - radius : column + radius][inside] = 1 + number % 2
        return ids

    return strip


def image_strip(side: int, seed: int) -> Strip:
    """Return the rows of an RGB image (side, side, 3) that shows the classes of `mask_strip` in colours and noise."""
    masks = mask_strip(side, seed)
    colours = np.array([[220, 190, 210], [150, 80, 150], [90, 60, 140]], np.uint8)

    def strip(start: int, stop: int) -> np.ndarray:
        noise = np.random.default_rng([seed, start]).integers(0, 40, (stop - start, side, 1), dtype=np.uint8)
        return colours[masks(start, stop)] - noise

    return strip


def write_tiled(path: Path, strip: Strip, side: int, *, colour: bool = False, compression: str = "deflate") -> Path:
    """Write an image (side, side[, 3]) as tiled BigTIFF."""

    def tiles() -> Iterator[np.ndarray]:
        for top in range(0, side, TILE):
            rows = strip(top, min(top + TILE, side))
            for left in range(0, side, TILE):
                part = rows[:, left : left + TILE]
                padding = [(0, TILE - part.shape[0]), (0, TILE - part.shape[1])] + [(0, 0)] * colour
                yield np.pad(part, padding)

    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(
        path, tiles(), shape=(side, side, *([3] if colour else [])), dtype=np.uint8, tile=(TILE, TILE),
        compression=compression, photometric="rgb" if colour else "minisblack", bigtiff=True,
    )  # fmt: skip
    return path


def write_slides(root: Path, count: int, side: int) -> Path:
    """Write slides with masks of class ids in the layout of the source `folder`, one patient each."""
    for number in range(count):
        write_tiled(
            root / "images" / f"s{number}.tif", image_strip(side, number), side, colour=True, compression="jpeg"
        )
        write_tiled(root / "masks" / f"s{number}.tif", mask_strip(side, number), side)
    (root / "classes.txt").write_text("tumour\nstroma\n")
    return root
