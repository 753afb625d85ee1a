"""Masks of an image (files or run lengths) as an array and as a digest."""

from collections.abc import Callable, Collection, Mapping, Sequence
from hashlib import blake2b

import numpy as np

from datasets.cache.manifest import Manifest
from datasets.decoding.mask_coding import MaskCoding
from datasets.errors import DataError
from datasets.large import by_bands, is_large, release, row_bands, temporary_array
from datasets.source import IGNORE, Pixels
from datasets.sources.common.published import MaskFile, MaskRuns, PublishedCase
from datasets.sources.common.rows import values_of
from datasets.sources.common.runs import draw
from datasets.sources.common.tables import digest

Decode = Callable[[str], Pixels]
"""Function that decodes the file at a path of the data set."""


def exclusive(
    decode: Decode, masks: Sequence[MaskFile | MaskRuns], ids: Sequence[Sequence[int]], ignored: Sequence[int] = ()
) -> Pixels:
    """Return (height, width) with the ids of each class renumbered to 1, 2, ... and ignored ids to `IGNORE`.

    All other ids become background. `masks` is the only mask of the image.
    """
    (path,) = (mask.path for mask in masks if isinstance(mask, MaskFile))
    renumbered = np.zeros(256, np.uint8)
    for number, class_ids in enumerate(ids, 1):
        renumbered[list(class_ids)] = number
    renumbered[list(ignored)] = IGNORE
    return by_bands(lambda part: renumbered[part], decode(path))


def regions(decode: Decode, case: PublishedCase, ids: Sequence[Sequence[int]], ignored: Sequence[int] = ()) -> Pixels:
    """Return (classes, height, width) of 0/1 from a mask of ids, of which each class has some.

    Pixels of ignored ids are `IGNORE` in all classes.
    """
    (path,) = (mask.path for mask in case.masks if isinstance(mask, MaskFile))
    decoded = decode(path)
    shape = (len(ids), *decoded.shape)
    masks: Pixels = (temporary_array if is_large(*decoded.shape) else np.zeros)(shape, np.uint8)
    for mask, class_ids in zip(masks, ids, strict=True):
        for rows in row_bands(*decoded.shape):
            mask[rows] = np.isin(decoded[rows], class_ids)
            if ignored:
                mask[rows][np.isin(decoded[rows], ignored)] = IGNORE
            release(masks)
            release(decoded)
    return masks


def overlapping(
    decode: Decode, case: PublishedCase, size: tuple[int, int], classes: Sequence[str], ignored: Sequence[int] = ()
) -> Pixels:
    """Return (classes, height, width) of 0/1, `size` is (width, height); masks of the same class are merged.

    Classes that are not annotated are `IGNORE`, as are pixels outside of the masks of partly annotated classes. With
    ignored values a mask holds these for unlabelled pixels, 0 outside and any other value inside.
    """
    width, height = size
    united = (temporary_array if is_large(height, width) else np.zeros)((len(classes), height, width), np.uint8)
    for mask in case.masks:
        if mask.name not in classes:
            continue
        union = united[classes.index(mask.name)]
        if isinstance(mask, MaskFile):
            part = decode(mask.path)
            _unite(union, by_bands(_planes_of(ignored), part) if ignored else part, mask, case.id)
        else:
            _add(union, draw(mask.runs, (width, height), f"{case.id}: mask of {mask.name}"))
    for name, plane in zip(classes, united, strict=True):
        if name in case.not_annotated or name in case.partly_annotated:
            _set_unknown(plane)
    return united


def overlapping_scribbles(
    decode: Decode, case: PublishedCase, classes: Sequence[str], outside: Sequence[int]
) -> Pixels:
    """Return (classes, height, width) of 0/1 at scribbles and `IGNORE` elsewhere, where files hold `outside`."""
    decoded = {mask.name: by_bands(_planes_of(outside), decode(mask.path)) for mask in case.scribbles}
    shape = next(iter(decoded.values())).shape
    return np.stack([decoded[name] if name in decoded else np.full(shape, IGNORE, np.uint8) for name in classes])


def _planes_of(ignored: Sequence[int]) -> Callable[[Pixels], Pixels]:
    """Return the function from stored values to 0, 1 and `IGNORE`."""
    values = np.ones(256, np.uint8)
    values[0], values[list(ignored)] = 0, IGNORE
    return lambda part: values[part]


def _set_unknown(plane: Pixels) -> None:
    """Set all pixels without foreground to `IGNORE`."""
    for rows in row_bands(*plane.shape):
        plane[rows][plane[rows] == 0] = IGNORE
        release(plane)


def masks_digest(
    case: PublishedCase,
    files: Manifest,
    ids: Mapping[str, int | Sequence[int] | None],
    ignored: Sequence[int] = (),
    coding: MaskCoding | None = None,
) -> str:
    """Hash the masks of the selected classes.

    `ids` by class: one, those of a region, or None if each class has separate masks.
    """
    if not ids or not is_masked(case, files, [*ids], ignored):
        return ""
    extra: list[object] = [ignored] if ignored else []
    if coding is not None:
        extra.append(["coding", coding.threshold, coding.ids])
    for key, names in (("not annotated", case.not_annotated), ("partly annotated", case.partly_annotated)):
        if names.intersection(ids):
            extra.append([key, *sorted(names.intersection(ids))])
    return digest(list(ids.items()), _contents(case.masks, files, ids), *extra)


def scribbles_digest(
    case: PublishedCase, files: Manifest, ids: Mapping[str, Sequence[int] | None], outside: Sequence[int]
) -> str:
    """Hash the scribbles of the selected classes; `ids` by class, None if each class has separate scribbles."""
    used = _contents(case.scribbles, files, ids)
    return digest(list(ids.items()), used, outside) if used else ""


def _contents(
    masks: Sequence[MaskFile | MaskRuns], files: Manifest, classes: Collection[str]
) -> list[tuple[object, ...]]:
    """Return the sorted contents of the masks of some classes."""
    used = [_content(mask, files) for mask in masks if mask.name in ("", *classes)]
    return sorted((parts for parts in used if parts), key=str)


def is_masked(case: PublishedCase, files: Manifest | None, classes: Sequence[str], ignored: Sequence[int]) -> bool:
    """Return whether an image or volume has masks, and these annotate a pixel of one of the classes.

    `files` may be None if no id is ignored.
    """
    if not case.masks or (case.not_annotated and case.not_annotated.issuperset(classes)):
        return False
    return not ignored or files is None or not classes or bool(annotated_classes(case, files, classes, ignored))


def annotated_classes(
    case: PublishedCase, files: Manifest, classes: Sequence[str], ignored: Sequence[int], number: int | None = None
) -> frozenset[str]:
    """Return the overlapping classes that are annotated in some pixels of an image, or of a slice with a `number`."""
    ignored_bits = sum(1 << value for value in ignored)
    unlabelled = {
        mask.name for mask in case.masks if (bits := values_in(mask, files, number)) and not bits & ~ignored_bits
    }
    if "" in unlabelled:  # a mask of ids, which holds no other ones
        return frozenset()
    labelled = {mask.name for mask in case.masks} - unlabelled
    return frozenset(
        name for name in classes if name not in case.not_annotated and (name not in unlabelled or name in labelled)
    )


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
