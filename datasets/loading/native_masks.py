"""Masks of a data set in their own resolution or scaled, cached once for training on patches and for evaluation."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from datasets.cache.arrays import CachedArray, Layout, open_entry
from datasets.cache.ragged import RaggedArray, Shape, length_of
from datasets.loading.prepare import entry_folder, readable_rows, run_in_threads
from datasets.settings import NATIVE, ImageSettings
from datasets.source import Index, Source
from datasets.targets import scaled_masks, scaled_shape


def native_masks(
    source: Source, index: Index, image: ImageSettings, *, cache: Path, budget_bytes: int, keep: Sequence[Path] = ()
) -> RaggedArray:
    """Open the masks of all rows, decoding them first if they are not in `cache`; rows without masks are empty.

    Args:
        source, index: The data set.
        image: Its `scale` or `spacing` is applied by nearest-neighbour interpolation.
        cache: Folder of the cache.
        budget_bytes: Size of the cache.
        keep: Entries that are not removed to make room.

    Returns:
        (height, width) of class ids, or (classes, height, width) of 0/1 if classes overlap, by row.
    """
    folder, layout = native_masks_entry(index, image, cache)
    shapes = _shapes(index, image)

    def fill(arrays: Mapping[str, CachedArray]) -> None:
        masks = RaggedArray(arrays["masks"], shapes)

        def fill_row(row: int) -> None:
            masks.assign(row, scaled_masks(source.masks(row), image, index.spacing(row)))

        run_in_threads(readable_rows(index, "mask"), fill_row)
        source.release()

    return RaggedArray(open_entry(folder, layout, fill, budget_bytes=budget_bytes, keep=keep)["masks"], shapes)


def native_masks_entry(index: Index, image: ImageSettings, cache: Path) -> tuple[Path, Layout]:
    """Return the folder of the masks and their layout."""
    meaning: dict[str, object] = {"size": NATIVE, "names": index.classes, "overlapping": index.overlapping}
    if image.scale != 1 or image.spacing is not None:
        meaning |= scale_meaning(image)
    return entry_folder(index, "mask", cache, meaning), {"masks": ((length_of(_shapes(index, image)),), np.uint8)}


def scale_meaning(image: ImageSettings) -> dict[str, object]:
    """Return the setting by which images and masks are scaled, for the names of entries."""
    return {"scale": image.scale} if image.spacing is None else {"spacing": image.spacing}


def _shapes(index: Index, image: ImageSettings) -> list[Shape]:
    readable = set(readable_rows(index, "mask"))
    planes = (len(index.classes),) if index.overlapping else ()
    return [
        (*planes, *scaled_shape(index.shape(row), image, index.spacing(row))) if row in readable else (*planes, 0, 0)
        for row in range(len(index))
    ]
