"""True masks for evaluation: resized to one size, or as large as each image."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from datasets.cache.arrays import CachedArray, Layout, open_entry, size_of
from datasets.cache.ragged import RaggedArray, Shape, length_of
from datasets.loading.prepare import (
    BUDGET_BYTES,
    entry_folder,
    fill_targets,
    readable_rows,
    run_in_threads,
    target_entry,
)
from datasets.settings import NATIVE, EvaluatedSize, ImageSettings, Size
from datasets.source import Index, Pixels, Source
from datasets.targets import fit_masks


class TrueMasks:
    """Masks of a data set by row: class ids, or 0/1 for each class if classes overlap."""

    def __init__(self, by_row: Callable[[int], Pixels]) -> None:
        self._by_row = by_row

    def __getitem__(self, rows: Sequence[int]) -> Pixels:
        """Return (rows, height, width), or (rows, classes, height, width); the rows have masks of equal size."""
        return np.stack([self._by_row(row) for row in rows])


def truth(
    source: Source, index: Index, size: EvaluatedSize, cache: Path, *, budget_bytes: int = BUDGET_BYTES
) -> TrueMasks:
    """Open the masks of a data set for evaluation, decoding them first if they are not in `cache`.

    With any other size they are stretched by nearest-neighbour interpolation.
    """
    if size != NATIVE:
        image = _resized(size)
        resized = fill_targets(
            index, "mask", image, lambda row: fit_masks(source.masks(row), image),
            structure="", cache=cache, budget_bytes=budget_bytes,
        )  # fmt: skip
        return TrueMasks(resized.__getitem__)
    folder, layout = _native_entry(index, cache)
    shapes = _shapes(index)

    def fill(arrays: Mapping[str, CachedArray]) -> None:
        masks = RaggedArray(arrays["masks"], shapes)
        run_in_threads(readable_rows(index, "mask"), lambda row: masks.assign(row, source.masks(row)))

    masks = open_entry(folder, layout, fill, budget_bytes=budget_bytes)["masks"]
    return TrueMasks(RaggedArray(masks, shapes).__getitem__)


def truth_entry(index: Index, size: EvaluatedSize, cache: Path) -> dict[Path, int]:
    """Return the folder that `truth` opens or fills, with its size in bytes."""
    if size == NATIVE:
        folder, layout = _native_entry(index, cache)
    else:
        folder, layout = target_entry(index, "mask", _resized(size), "", cache)
    return {folder: size_of(layout)}


def _resized(size: Size) -> ImageSettings:
    return ImageSettings(size=size, fit="stretch")


def _native_entry(index: Index, cache: Path) -> tuple[Path, Layout]:
    meaning = {"size": NATIVE, "names": index.classes, "overlapping": index.overlapping}
    return entry_folder(index, "mask", cache, meaning), {"masks": ((length_of(_shapes(index)),), np.uint8)}


def _shapes(index: Index) -> list[Shape]:
    """Return the shape of each row's masks; rows without masks are empty."""
    readable = set(readable_rows(index, "mask"))
    planes = (len(index.classes),) if index.overlapping else ()
    return [(*planes, *(index.shape(row) if row in readable else (0, 0))) for row in range(len(index))]
