"""The masks of an image, files or runs, as one array and as one digest."""

from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b

import numpy as np

from datasets.cache.manifest import Manifest
from datasets.errors import DataError
from datasets.source import IGNORE, Pixels
from datasets.sources.common.published import Case, MaskFile, MaskRuns
from datasets.sources.common.runs import draw
from datasets.sources.common.tables import digest

Decode = Callable[[str], Pixels]
"""Decodes the file at a path of the data set."""


def exclusive(decode: Decode, case: Case, ids: Sequence[int], ignored: Sequence[int] = ()) -> Pixels:
    """Return (height, width) of 1, 2, ... where a file has these ids in turn, `IGNORE` where it has ignored ones.

    All others are background.
    """
    (path,) = (mask.path for mask in case.masks if isinstance(mask, MaskFile))
    renumbered = np.zeros(256, np.uint8)
    renumbered[list(ids)] = np.arange(1, len(ids) + 1)
    renumbered[list(ignored)] = IGNORE
    return renumbered[decode(path)]


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


def masks_digest(case: Case, files: Manifest, ids: Mapping[str, int | None], ignored: Sequence[int] = ()) -> str:
    """Hash what the chosen classes' masks hold; `ids` by class, None where each class has masks of its own."""
    if not case.masks or not ids:
        return ""
    used = [_content(mask, files) for mask in case.masks if mask.name in ("", *ids)]
    extra = [ignored] if ignored else []
    return digest(list(ids.items()), sorted((parts for parts in used if parts), key=str), *extra)


def values_in(mask: MaskFile | MaskRuns, files: Manifest) -> int:
    """Return the numbers that a mask holds as bits, as far as it can be read; of runs 0 and 1."""
    if isinstance(mask, MaskRuns):
        return 2 if mask.runs else 1
    at = files.positions.get(mask.path)
    return int(files.values[at] or "0", 16) if at is not None else 0


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
