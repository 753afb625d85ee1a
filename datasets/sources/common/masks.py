"""Masks of an image (files or run lengths) as an array and as a digest."""

from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b

import numpy as np

from datasets.cache.manifest import Manifest
from datasets.errors import DataError
from datasets.large import by_bands, is_large, release, row_bands, temporary_array
from datasets.source import IGNORE, Pixels
from datasets.sources.common.published import MaskFile, MaskRuns, PublishedCase
from datasets.sources.common.rows import values_of
from datasets.sources.common.runs import draw
from datasets.sources.common.tables import digest

Decode = Callable[[str], Pixels]
"""Function that decodes the file at a path of the data set."""


def exclusive(decode: Decode, case: PublishedCase, ids: Sequence[int], ignored: Sequence[int] = ()) -> Pixels:
    """Return (height, width) with `ids` renumbered to 1, 2, ... and ignored ids to `IGNORE`.

    All other ids become background.
    """
    (path,) = (mask.path for mask in case.masks if isinstance(mask, MaskFile))
    renumbered = np.zeros(256, np.uint8)
    renumbered[list(ids)] = np.arange(1, len(ids) + 1)
    renumbered[list(ignored)] = IGNORE
    return by_bands(lambda part: renumbered[part], decode(path))


def regions(decode: Decode, case: PublishedCase, ids: Sequence[Sequence[int]]) -> Pixels:
    """Return (classes, height, width) of 0/1 from a mask of ids, of which each class has some."""
    (path,) = (mask.path for mask in case.masks if isinstance(mask, MaskFile))
    decoded = decode(path)
    shape = (len(ids), *decoded.shape)
    masks: Pixels = (temporary_array if is_large(*decoded.shape) else np.zeros)(shape, np.uint8)
    for mask, class_ids in zip(masks, ids, strict=True):
        for rows in row_bands(*decoded.shape):
            mask[rows] = np.isin(decoded[rows], class_ids)
            release(masks)
            release(decoded)
    return masks


def overlapping(decode: Decode, case: PublishedCase, size: tuple[int, int], classes: Sequence[str]) -> Pixels:
    """Return (classes, height, width) of 0/1, `size` is (width, height); masks of the same class are merged."""
    width, height = size
    united = (temporary_array if is_large(height, width) else np.zeros)((len(classes), height, width), np.uint8)
    for mask in case.masks:
        if mask.name not in classes:
            continue
        union = united[classes.index(mask.name)]
        if isinstance(mask, MaskFile):
            _unite(union, decode(mask.path), mask, case.id)
        else:
            _add(union, draw(mask.runs, (width, height), f"{case.id}: mask of {mask.name}"))
    return united


def masks_digest(
    case: PublishedCase, files: Manifest, ids: Mapping[str, int | Sequence[int] | None], ignored: Sequence[int] = ()
) -> str:
    """Hash the masks of the selected classes.

    `ids` by class: one, those of a region, or None if each class has separate masks.
    """
    if not case.masks or not ids:
        return ""
    used = [_content(mask, files) for mask in case.masks if mask.name in ("", *ids)]
    extra = [ignored] if ignored else []
    return digest(list(ids.items()), sorted((parts for parts in used if parts), key=str), *extra)


def values_in(mask: MaskFile | MaskRuns, files: Manifest, number: int | None = None) -> int:
    """Return the bit set of values in a mask, 0 if it cannot be read; run lengths have values 0 and 1.

    `number` is that of a slice, None for all of them.
    """
    if isinstance(mask, MaskRuns):
        return 2 if mask.runs else 1
    return values_of(mask.path, number, files)


def _content(mask: MaskFile | MaskRuns, files: Manifest) -> tuple[object, ...] | None:
    if isinstance(mask, MaskRuns):
        return mask.name, None, blake2b(mask.runs, digest_size=16).hexdigest()
    position = files.positions.get(mask.path)
    return (mask.name, mask.place, files.content[position]) if position is not None else None


def _unite(union: Pixels, part: Pixels, mask: MaskFile, image: str) -> None:
    x, y = mask.place[:2] if mask.place else (0, 0)
    target = union[y : y + part.shape[0], x : x + part.shape[1]]
    if target.shape != part.shape:
        raise DataError(
            f"{image}: {mask.path} at ({x}, {y}) does not fit into {union.shape[1]} x {union.shape[0]} pixels; "
            "allowed: inside the image; correct mask or table"
        )
    _add(target, part)


def _add(union: Pixels, part: Pixels) -> None:
    """Set the foreground of a part of the same shape in a mask."""
    for rows in row_bands(*part.shape):
        np.maximum(union[rows], part[rows], out=union[rows])
        release(union)
        release(part)
