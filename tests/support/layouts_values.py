"""Small data sets with values, tables and names that can be misread."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from datasets.source import Pixels
from tests.support.layouts import HEIGHT, WIDTH, blob, coloured
from tests.support.pictures import picture, save


def folders(root: Path, mask: Callable[[int], Pixels], names: Sequence[str] = (), *, suffix: str = "png") -> Path:
    """Write grey images and a mask for each, by number, in the folders images and masks."""
    for number, name in enumerate(names or [f"{number:02d}" for number in range(12)]):
        save(picture(number + 100), root / "images" / f"{name}.png")
        save(mask(number), root / "masks" / f"{name}.{suffix}")
    return root


def nested(number: int) -> Pixels:
    """Return ids 1 to n of structures in rows, of which some images show fewer, as numbers of objects do."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    for number_ in range(1, 2 + number % 4):
        mask[4 + 8 * number_ : 10 + 8 * number_, 10 + number : 40 + number] = number_
    return mask


def levels(number: int, values: Sequence[int], background: int = 0) -> Pixels:
    """Return stripes of some values on a background."""
    mask = np.full((HEIGHT, WIDTH), background, np.uint8)
    for place, value in enumerate(values):
        mask[6 + 10 * place : 14 + 10 * place, 10 + number : 20 + number + 6 * place] = value
    return mask


def binary(number: int) -> Pixels:
    """Return a mask of 0 and 255."""
    return blob(number, value=255)


def colours(number: int) -> Pixels:
    """Return a mask of red and blue on black."""
    return coloured(levels(number, (1, 2)), ((0, 0, 0), (255, 0, 0), (0, 0, 255)))
