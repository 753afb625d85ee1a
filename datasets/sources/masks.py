"""The masks of an image, files or runs, as one array and as one digest."""

from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b

import numpy as np

from datasets.errors import DataError
from datasets.manifest import Manifest
from datasets.sample import Pixels
from datasets.sources.published import Case, MaskFile, MaskRuns
from datasets.sources.runs import draw
from datasets.sources.tables import digest

Decode = Callable[[str], Pixels]
"""Decodes the file at a path of the data set."""


def exclusive(decode: Decode, case: Case, known: Sequence[str] | None, chosen: Sequence[str] | None) -> Pixels:
    """Return (height, width) ids; with chosen classes these become 1, 2, ... and all others background."""
    (path,) = (mask.path for mask in case.masks if isinstance(mask, MaskFile))
    stored = decode(path)
    if chosen is None:
        return stored
    renumbered = np.zeros(256, np.uint8)
    for number, name in enumerate(chosen, start=1):
        renumbered[stored_id(name, known)] = number
    return renumbered[stored]


def stored_id(name: str, known: Sequence[str] | None) -> int:
    """Return the id a class has in the files; without a class list its name tells: class_3 is 3."""
    return known.index(name) + 1 if known is not None else int(name.removeprefix("class_"))


def overlapping(decode: Decode, case: Case, size: tuple[int, int], classes: Sequence[str]) -> Pixels:
    """Return (classes, height, width) of 0/1, `size` being (width, height); several masks of one class are united."""
    width, height = size
    united = np.zeros((len(classes), height, width), np.uint8)
    for mask in case.masks:
        if mask.name not in classes:
            continue
        whole = united[classes.index(mask.name)]
        if isinstance(mask, MaskFile):
            _unite(whole, decode(mask.path), mask, case.id)
        else:
            np.maximum(whole, draw(mask.runs, (width, height), f"{case.id}: mask of {mask.name}"), out=whole)
    return united


def masks_digest(case: Case, files: Manifest, ids: Mapping[str, int | None]) -> str:
    """Hash what the chosen classes' masks hold; `ids` by class, None where each class has masks of its own."""
    if not case.masks or not ids:
        return ""
    used = [_content(mask, files) for mask in case.masks if mask.name in ("", *ids)]
    return digest(list(ids.items()), sorted((parts for parts in used if parts), key=str))


def has_foreground(mask: MaskFile | MaskRuns, files: Manifest) -> bool:
    """Whether any pixel is foreground, as far as the mask can be read."""
    if isinstance(mask, MaskRuns):
        return bool(mask.runs)
    at = files.positions.get(mask.path)
    return at is not None and int(files.values[at] or "0", 16) > 1


def _content(mask: MaskFile | MaskRuns, files: Manifest) -> tuple[object, ...] | None:
    if isinstance(mask, MaskRuns):
        return mask.name, None, blake2b(mask.runs, digest_size=16).hexdigest()
    at = files.positions.get(mask.path)
    return (mask.name, mask.place, files.content[at]) if at is not None else None


def _unite(whole: Pixels, part: Pixels, mask: MaskFile, image: str) -> None:
    x, y = mask.place[:2] if mask.place else (0, 0)
    target = whole[y : y + part.shape[0], x : x + part.shape[1]]
    if target.shape != part.shape:
        raise DataError(
            f"{image}: {mask.path} at ({x}, {y}) does not fit into {whole.shape[1]} x {whole.shape[0]} pixels; "
            "allowed: inside the image; correct mask or table"
        )
    np.maximum(target, part, out=target)
