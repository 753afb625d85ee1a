"""Decoded and resized images and targets of a data set, cached by content and shared between studies."""

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

from datasets.cache.arrays import PREPARED, CachedArray, Layout, open_entry, size_of
from datasets.settings import ImageSettings
from datasets.source import Index, Pixels, Source
from datasets.splits.assignment import fingerprint
from datasets.targets import (
    Fit,
    Target,
    TargetArray,
    annotation_kind_of,
    box_masks,
    box_target,
    centre_target,
    chosen_structure,
    fit_image,
    fit_masks,
    names,
    target_layout,
)
from datasets.versions import VERSIONS

BUDGET_BYTES: Final = 64 * 2**30
THREADS: Final = min(8, os.cpu_count() or 1)
CHUNK: Final = 1024
"""Rows submitted to the thread pool at a time."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """Read-only arrays over all rows of an index; rows that cannot be read are 0 or NaN.

    `images` (N, height, width, channels) uint8. `targets` (N, ...) as given by `targets.target_layout`, None if the
    target is the image. `shapes` (N, 2) int32: height and width of the originals, for `targets.Fit`.
    """

    images: Pixels
    targets: CachedArray | None
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
    """Open the images and targets of a data set, decoding them first if they are not in `cache`.

    Raises `DataError` for an unknown structure, a file that cannot be decoded, or too little disk space.
    """
    structure = chosen_structure(index, target, structure)
    folder, layout = _image_entry(index, image, cache)
    image_arrays = open_entry(
        folder,
        layout,
        lambda arrays: _fill_images(source, index, image, arrays),
        budget_bytes=budget_bytes,
    )
    images, shapes = image_arrays["images"], image_arrays["shapes"]
    if target == "image":
        return Prepared(images=images, targets=None, shapes=shapes)
    targets = fill_targets(
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


def prepared_entries(
    index: Index, target: Target, image: ImageSettings, *, structure: str | None, cache: Path
) -> dict[Path, int]:
    """Return the folders that `prepared` opens or fills, with their sizes in bytes."""
    entries = [_image_entry(index, image, cache)]
    if target != "image":
        entries.append(target_entry(index, target, image, chosen_structure(index, target, structure), cache))
    return {folder: size_of(layout) for folder, layout in entries}


def fill_targets(
    index: Index,
    target: Target,
    image: ImageSettings,
    read: Callable[[int], TargetArray],
    *,
    structure: str,
    cache: Path,
    budget_bytes: int,
    keep: Sequence[Path] = (),
) -> CachedArray:
    """Open the targets of all rows; if they are not in `cache`, `read` returns that of a row."""
    folder, layout = target_entry(index, target, image, structure, cache)
    rows = readable_rows(index, target)

    def fill(arrays: Mapping[str, CachedArray]) -> None:
        targets = arrays["targets"]
        if np.issubdtype(targets.dtype, np.floating):
            targets[:] = np.nan
        run_in_threads(rows, lambda row: targets.__setitem__(row, read(row)))

    return open_entry(folder, layout, fill, budget_bytes=budget_bytes, keep=keep)["targets"]


def target_entry(
    index: Index, target: Target, image: ImageSettings, structure: str, cache: Path
) -> tuple[Path, Layout]:
    """Return the folder of a target's array, and its layout."""
    shape, dtype = target_layout(index, target, image.shape)
    meaning = {
        "size": image.size,
        "fit": image.fit,
        "structure": structure,
        "names": names(index, target),
        "overlapping": index.overlapping,
    }
    return entry_folder(index, target, cache, meaning), {"targets": ((len(index), *shape), dtype)}


def _reader(
    source: Source, index: Index, target: Target, image: ImageSettings, *, structure: str, shapes: CachedArray
) -> Callable[[int], TargetArray]:
    """Return a function that makes the target of a row."""

    def fit(row: int) -> Fit:
        height, width = (int(length) for length in shapes[row])
        return Fit.of(image, height, width)

    if target == "labels":
        return source.labels
    if target == "mask":
        return lambda row: fit_masks(source.masks(row), image)
    if target == "centre":
        return lambda row: centre_target(source.centres(row), structure, fit(row))
    if target == "box":
        return lambda row: box_target(source.boxes(row), structure, fit(row))
    return lambda row: box_masks(source.boxes(row), index.structures, fit(row))


def _image_entry(index: Index, image: ImageSettings, cache: Path) -> tuple[Path, Layout]:
    return entry_folder(index, "image", cache, image.model_dump()), {
        "images": ((len(index), *image.shape, image.channels), np.uint8),
        "shapes": ((len(index), 2), np.int32),
    }


def _fill_images(source: Source, index: Index, image: ImageSettings, arrays: Mapping[str, CachedArray]) -> None:
    def fill_row(row: int) -> None:
        arrays["images"][row], arrays["shapes"][row] = source.fitted(row, image) or _decode_and_fit(source, row, image)

    run_in_threads(readable_rows(index, "image"), fill_row)
    source.release()
    source.forget_fitted(image)


def _decode_and_fit(source: Source, row: int, image: ImageSettings) -> tuple[Pixels, tuple[int, int]]:
    pixels = source.image(row)
    return fit_image(pixels, image), (pixels.shape[0], pixels.shape[1])


def readable_rows(index: Index, target: Target) -> list[int]:
    """Return the rows that have the annotation of a target and no fault."""
    annotation_kind = annotation_kind_of(target)
    annotation_ids = index.ids if annotation_kind is None else index.annotation_digests[annotation_kind]
    return [row for row, fault in enumerate(index.faults) if annotation_ids[row] and not fault]


def run_in_threads(rows: Sequence[int], function: Callable[[int], None]) -> None:
    """Call a function for each row in a thread pool; raise the first error."""
    with ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, len(rows), CHUNK):
            list(pool.map(function, rows[start : start + CHUNK]))


def entry_folder(index: Index, target: Target, cache: Path, meaning: Mapping[str, object]) -> Path:
    """Return the folder, named by a hash of everything the arrays depend on."""
    annotation_kind = annotation_kind_of(target)
    rows = "\0".join([f"{row} {index.ids[row]}" for row in readable_rows(index, target)])
    parts = {
        "version": VERSIONS["preparation"],
        "target": target,
        "meaning": meaning,
        "content": fingerprint(index, range(len(index)), [annotation_kind] if annotation_kind else []),
        "rows": blake2b(rows.encode(), digest_size=16).hexdigest(),
    }
    key = blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()
    return cache / PREPARED / key
