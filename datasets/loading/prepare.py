"""Decoded and fitted images and targets of a whole data set, keyed by content and shared by studies."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from datasets.cache.arrays import PREPARED, Array, Layout, open_entry, size_of
from datasets.settings import ImageSettings
from datasets.source import Index, Pixels, Source
from datasets.splits.assignment import fingerprint
from datasets.targets import (
    Fit,
    Target,
    box_masks,
    box_target,
    centre_target,
    chosen_structure,
    fit_image,
    fit_masks,
    names,
    offer_of,
    target_layout,
)
from datasets.versions import VERSIONS

BUDGET_BYTES: Final = 64 * 2**30
THREADS: Final = min(8, os.cpu_count() or 1)
CHUNK: Final = 1024
"""Rows handed to the threads at a time."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """Read-only arrays over all rows of an index; rows that cannot be read are 0, or NaN.

    `images` (N, S, S, channels) uint8. `targets` (N, ...) as `targets.target_layout` says, None where the target
    is the image. `shapes` (N, 2) int32: height and width of the originals, for `targets.Fit`.
    """

    images: Pixels
    targets: Array | None
    shapes: NDArray[np.int32]


def prepared(
    source: Source,
    index: Index,
    target: Target,
    image: ImageSettings,
    *,
    structure: str | None,
    cache: Path,
    budget_bytes: int = BUDGET_BYTES,
) -> Prepared:
    """Open the images and targets of a data set, decoded first where `cache` lacks them.

    Raises `DataError` for an unknown structure, a file that cannot be decoded, or too small a disk.
    """
    structure = chosen_structure(index, target, structure)
    folder, layout = _picture_entry(index, image, cache)
    pictures = open_entry(
        folder,
        layout,
        lambda arrays: _fill_pictures(source, index, image, arrays),
        budget_bytes=budget_bytes,
    )
    images, shapes = pictures["images"], pictures["shapes"]
    if target == "image":
        return Prepared(images=images, targets=None, shapes=shapes)
    targets = _targets(
        index,
        target,
        image,
        _reader(source, index, target, image, structure=structure, shapes=shapes),
        structure=structure,
        cache=cache,
        budget_bytes=budget_bytes,
        keep=(folder,),
    )
    return Prepared(images=images, targets=targets, shapes=shapes)


def truth(source: Source, index: Index, size: int, cache: Path, *, budget_bytes: int = BUDGET_BYTES) -> Pixels:
    """Open the masks of a data set for evaluation: nearest from the original, stretched to (size, size).

    (N, S, S) of class ids, or (N, K, S, S) of 0/1 where classes overlap.
    """
    image = _image_of_truth(size)

    def read(row: int) -> Pixels:
        return fit_masks(source.masks(row), image)

    return _targets(index, "mask", image, read, structure="", cache=cache, budget_bytes=budget_bytes)


def prepared_entries(
    index: Index, target: Target, image: ImageSettings, *, structure: str | None, cache: Path
) -> dict[Path, int]:
    """Return the folders that `prepared` opens or fills, and the bytes of each."""
    entries = [_picture_entry(index, image, cache)]
    if target != "image":
        entries.append(_target_entry(index, target, image, chosen_structure(index, target, structure), cache))
    return {folder: size_of(layout) for folder, layout in entries}


def truth_entry(index: Index, size: int, cache: Path) -> dict[Path, int]:
    """Return the folder that `truth` opens or fills, and its bytes."""
    folder, layout = _target_entry(index, "mask", _image_of_truth(size), "", cache)
    return {folder: size_of(layout)}


def _image_of_truth(size: int) -> ImageSettings:
    return ImageSettings(size=size, fit="stretch")


def _targets(
    index: Index,
    target: Target,
    image: ImageSettings,
    read: Callable[[int], Array],
    *,
    structure: str,
    cache: Path,
    budget_bytes: int,
    keep: Sequence[Path] = (),
) -> Array:
    folder, layout = _target_entry(index, target, image, structure, cache)
    rows = _readable(index, target)

    def fill(arrays: Mapping[str, Array]) -> None:
        targets = arrays["targets"]
        if np.issubdtype(targets.dtype, np.floating):
            targets[:] = np.nan
        _each(rows, lambda row: targets.__setitem__(row, read(row)))

    return open_entry(folder, layout, fill, budget_bytes=budget_bytes, keep=keep)["targets"]


def _target_entry(
    index: Index, target: Target, image: ImageSettings, structure: str, cache: Path
) -> tuple[Path, Layout]:
    shape, kind = target_layout(index, target, image.size)
    meaning = {
        "size": image.size,
        "fit": image.fit,
        "structure": structure,
        "names": names(index, target),
        "overlapping": index.overlapping,
    }
    return _entry(index, target, cache, meaning), {"targets": ((len(index), *shape), kind)}


def _reader(
    source: Source, index: Index, target: Target, image: ImageSettings, *, structure: str, shapes: Array
) -> Callable[[int], Array]:
    """Return what makes one row's target."""

    def fit(row: int) -> Fit:
        height, width = (int(length) for length in shapes[row])
        return Fit(height=height, width=width, size=image.size, fit=image.fit)

    if target == "labels":
        return source.labels
    if target == "mask":
        return lambda row: fit_masks(source.masks(row), image)
    if target == "centre":
        return lambda row: centre_target(source.centres(row), structure, fit(row))
    if target == "box":
        return lambda row: box_target(source.boxes(row), structure, fit(row))
    return lambda row: box_masks(source.boxes(row), index.structures, fit(row))


def _picture_entry(index: Index, image: ImageSettings, cache: Path) -> tuple[Path, Layout]:
    return _entry(index, "image", cache, image.model_dump()), {
        "images": ((len(index), image.size, image.size, image.channels), np.uint8),
        "shapes": ((len(index), 2), np.int32),
    }


def _fill_pictures(source: Source, index: Index, image: ImageSettings, arrays: Mapping[str, Array]) -> None:
    def work(row: int) -> None:
        arrays["images"][row], arrays["shapes"][row] = source.fitted(row, image) or _decoded(source, row, image)

    _each(_readable(index, "image"), work)
    source.forget_fitted(image)


def _decoded(source: Source, row: int, image: ImageSettings) -> tuple[Pixels, tuple[int, int]]:
    pixels = source.image(row)
    return fit_image(pixels, image), (pixels.shape[0], pixels.shape[1])


def _readable(index: Index, target: Target) -> list[int]:
    offer = offer_of(target)
    held = index.ids if offer is None else index.offers[offer]
    return [row for row, fault in enumerate(index.faults) if held[row] and not fault]


def _each(rows: Sequence[int], work: Callable[[int], None]) -> None:
    """Work on rows in threads; the first error is raised."""
    with ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, len(rows), CHUNK):
            list(pool.map(work, rows[start : start + CHUNK]))


def _entry(index: Index, target: Target, cache: Path, meaning: Mapping[str, object]) -> Path:
    """Return the folder named by everything the arrays depend on."""
    offer = offer_of(target)
    rows = "\0".join([f"{row} {index.ids[row]}" for row in _readable(index, target)])
    parts = {
        "version": VERSIONS["preparation"],
        "target": target,
        "meaning": meaning,
        "content": fingerprint(index, range(len(index)), [offer] if offer else []),
        "rows": blake2b(rows.encode(), digest_size=16).hexdigest(),
    }
    key = blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()
    return cache / PREPARED / key
