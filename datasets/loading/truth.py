"""True masks for evaluation: resized to one size, or as large as each image."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from datasets.cache.arrays import size_of
from datasets.large import is_large, release
from datasets.loading.native_masks import native_masks, native_masks_entry
from datasets.loading.prepare import BUDGET_BYTES, fill_targets, target_entry
from datasets.settings import NATIVE, EvaluatedSize, ImageSettings, Size
from datasets.source import Index, Pixels, Source
from datasets.targets import fit_masks

_ORIGINAL = ImageSettings(fit="patch")
"""Masks that are not scaled."""


class TrueMasks:
    """Masks of a data set by row, as `Source.masks`: class ids, or a plane for each class if classes overlap."""

    def __init__(self, by_row: Callable[[int], Pixels]) -> None:
        self._by_row = by_row

    def __getitem__(self, rows: Sequence[int]) -> Pixels:
        """Return (rows, height, width), or (rows, classes, height, width); the rows have masks of equal size."""
        return self.lines(rows, slice(None))

    def lines(self, rows: Sequence[int], lines: slice) -> Pixels:
        """Return some lines of pixels, (rows, lines, width) or (rows, classes, lines, width)."""
        masks = [self._by_row(row) for row in rows]
        part = np.stack([mask[..., lines, :] for mask in masks])
        if any(is_large(*mask.shape[-2:]) for mask in masks):
            release(masks[0])
        return part


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
    return TrueMasks(native_masks(source, index, _ORIGINAL, cache=cache, budget_bytes=budget_bytes).__getitem__)


def truth_entry(index: Index, size: EvaluatedSize, cache: Path) -> dict[Path, int]:
    """Return the folder that `truth` opens or fills, with its size in bytes."""
    if size == NATIVE:
        folder, layout = native_masks_entry(index, _ORIGINAL, cache)
    else:
        folder, layout = target_entry(index, "mask", _resized(size), "", cache)
    return {folder: size_of(layout)}


def _resized(size: Size) -> ImageSettings:
    return ImageSettings(size=size, fit="stretch")
