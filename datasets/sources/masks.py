"""Mask files as one array a row."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from datasets.decode import read
from datasets.errors import DataError
from datasets.sample import Pixels
from datasets.sources.published import Case, MaskFile


def exclusive(root: Path, case: Case, known: Sequence[str] | None, chosen: Sequence[str] | None) -> Pixels:
    """Return (height, width) ids; with chosen classes these become 1, 2, ... and all others background."""
    stored = read(root / case.masks[0].path, "ids")
    if chosen is None:
        return stored
    renumbered = np.zeros(256, np.uint8)
    for number, name in enumerate(chosen, start=1):
        renumbered[stored_id(name, known)] = number
    return renumbered[stored]


def stored_id(name: str, known: Sequence[str] | None) -> int:
    """Return the id a class has in the files; without a class list its name tells: class_3 is 3."""
    return known.index(name) + 1 if known is not None else int(name.removeprefix("class_"))


def overlapping(root: Path, case: Case, classes: Sequence[str]) -> Pixels:
    """Return (classes, height, width) of 0/1; several files of one class are united."""
    parts = [(mask, read(root / mask.path, "foreground")) for mask in case.masks if mask.name in classes]
    width, height = case.size or _size(root, case)
    united = np.zeros((len(classes), height, width), np.uint8)
    for mask, pixels in parts:
        _unite(united[classes.index(mask.name)], pixels, mask, case.id)
    return united


def _size(root: Path, case: Case) -> tuple[int, int]:
    height, width = read(root / case.masks[0].path, "foreground").shape
    return width, height


def _unite(whole: Pixels, part: Pixels, mask: MaskFile, image: str) -> None:
    x, y = mask.place[:2] if mask.place else (0, 0)
    target = whole[y : y + part.shape[0], x : x + part.shape[1]]
    if target.shape != part.shape:
        raise DataError(
            f"{image}: {mask.path} at ({x}, {y}) does not fit into {whole.shape[1]} x {whole.shape[0]} pixels; "
            "allowed: inside the image; correct mask or table"
        )
    np.maximum(target, part, out=target)
