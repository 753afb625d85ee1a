"""True masks for evaluation: resized to one size, or as large as each image."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets.cache.arrays import CachedArray, Layout, open_entry, size_of
from datasets.loading.prepare import (
    BUDGET_BYTES,
    entry_folder,
    fill_targets,
    readable_rows,
    run_in_threads,
    target_entry,
)
from datasets.settings import NATIVE, EvaluatedSize, ImageSettings
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

    With a side they are stretched to (side, side) by nearest-neighbour interpolation.
    """
    if size != NATIVE:
        image = _resized(size)
        resized = fill_targets(
            index, "mask", image, lambda row: fit_masks(source.masks(row), image),
            structure="", cache=cache, budget_bytes=budget_bytes,
        )  # fmt: skip
        return TrueMasks(resized.__getitem__)
    folder, layout = _native_entry(index, cache)
    offsets = _offsets(index)

    def fill(arrays: Mapping[str, CachedArray]) -> None:
        def read(row: int) -> None:
            arrays["masks"][offsets[row] : offsets[row + 1]] = source.masks(row).ravel()

        run_in_threads(readable_rows(index, "mask"), read)

    masks = open_entry(folder, layout, fill, budget_bytes=budget_bytes)["masks"]
    return TrueMasks(lambda row: masks[offsets[row] : offsets[row + 1]].reshape(_shape(index, row)))


def truth_entry(index: Index, size: EvaluatedSize, cache: Path) -> dict[Path, int]:
    """Return the folder that `truth` opens or fills, with its size in bytes."""
    if size == NATIVE:
        folder, layout = _native_entry(index, cache)
    else:
        folder, layout = target_entry(index, "mask", _resized(size), "", cache)
    return {folder: size_of(layout)}


def _resized(side: int) -> ImageSettings:
    return ImageSettings(size=side, fit="stretch")


def _native_entry(index: Index, cache: Path) -> tuple[Path, Layout]:
    meaning = {"size": NATIVE, "names": index.classes, "overlapping": index.overlapping}
    length = int(_offsets(index)[-1])
    return entry_folder(index, "mask", cache, meaning), {"masks": ((length,), np.uint8)}


def _offsets(index: Index) -> NDArray[np.int64]:
    """Return the start of each row's masks in the array of all, and its length at the end."""
    readable = set(readable_rows(index, "mask"))
    lengths = [int(np.prod(_shape(index, row))) if row in readable else 0 for row in range(len(index))]
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def _shape(index: Index, row: int) -> tuple[int, ...]:
    height, width = index.shape(row)
    return (len(index.classes), height, width) if index.overlapping else (height, width)
