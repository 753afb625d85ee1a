"""Images and masks of a data set in their own resolution, cached like `datasets.loading.prepare`."""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from datasets.cache.arrays import CachedArray, Layout, open_entry, size_of
from datasets.cache.ragged import RaggedArray, Shape, length_of
from datasets.large import release, row_bands
from datasets.loading.native_masks import native_masks, native_masks_entry, scale_meaning
from datasets.loading.prepare import BUDGET_BYTES, entry_folder, readable_rows, run_in_threads
from datasets.settings import ImageSettings
from datasets.source import IGNORE, Index, Pixels, Source
from datasets.targets import Target, scaled_image, scaled_shape

FOREGROUND_POINTS: Final = 256
"""Number of foreground pixels of an image among which a patch is chosen, divided between the classes it shows."""


@dataclass(frozen=True, kw_only=True, eq=False)
class NativeImages:
    """Images and masks by row; rows that cannot be read are empty.

    Attributes:
        images: (height, width, channels) uint8, after scaling.
        masks: (height, width) of class ids, or (classes, height, width) of 0/1; None without masks.
        foreground: (points, 2) int32, rows and columns of random foreground pixels; None without masks.
    """

    images: RaggedArray
    masks: RaggedArray | None
    foreground: RaggedArray | None


def native_images(
    source: Source, index: Index, target: Target, image: ImageSettings, *, cache: Path, budget_bytes: int = BUDGET_BYTES
) -> NativeImages:
    """Open images and masks, decoding them first if they are not in `cache`. Raises `DataError`."""
    folder, layout = _images_entry(index, image, cache)
    shapes = _image_shapes(index, image)

    def fill_images(arrays: Mapping[str, CachedArray]) -> None:
        images = RaggedArray(arrays["images"], shapes)
        run_in_threads(
            readable_rows(index, "image"),
            lambda row: images.assign(row, scaled_image(source.image(row), image, index.spacing(row))),
        )
        source.release()

    images = RaggedArray(open_entry(folder, layout, fill_images, budget_bytes=budget_bytes)["images"], shapes)
    if target == "image":
        return NativeImages(images=images, masks=None, foreground=None)
    masks_folder, _ = native_masks_entry(index, image, cache)
    masks = native_masks(source, index, image, cache=cache, budget_bytes=budget_bytes, keep=(folder,))
    points_folder, points_layout = _points_entry(index, image, cache)

    def fill_points(arrays: Mapping[str, CachedArray]) -> None:
        def fill(row: int) -> None:
            points = foreground_points(masks[row], index.annotation_digests["masks"][row])
            arrays["points"][row, : len(points)], arrays["counts"][row] = points, len(points)

        run_in_threads(readable_rows(index, "mask"), fill)
        source.release()

    arrays = open_entry(
        points_folder, points_layout, fill_points, budget_bytes=budget_bytes, keep=(folder, masks_folder)
    )
    points = np.concatenate([arrays["points"][row, :count] for row, count in enumerate(arrays["counts"])])
    return NativeImages(
        images=images,
        masks=masks,
        foreground=RaggedArray(points.ravel(), [(int(count), 2) for count in arrays["counts"]]),
    )


def native_entries(index: Index, target: Target, image: ImageSettings, cache: Path) -> dict[Path, int]:
    """Return the folders that `native_images` opens or fills, with their sizes in bytes."""
    entries = [_images_entry(index, image, cache)]
    if target != "image":
        entries += [native_masks_entry(index, image, cache), _points_entry(index, image, cache)]
    return {folder: size_of(layout) for folder, layout in entries}


def foreground_points(masks: Pixels, key: str) -> CachedArray:
    """Return (points, 2) random foreground pixels as row and column, equally many of each class that occurs.

    Pixels of a small class are repeated. Equal keys give equal points.
    """
    planes = masks.reshape(-1, *masks.shape[-2:])
    classes = [(plane, number) for plane in planes for number in _numbers(plane)]
    random = np.random.default_rng(int.from_bytes(blake2b(key.encode(), digest_size=8).digest()))
    share = max(1, FOREGROUND_POINTS // max(len(classes), 1))
    chosen = [_points(plane, number, share, random) for plane, number in classes[:FOREGROUND_POINTS]]
    positions = np.concatenate([*chosen, np.empty(0, np.int64)])
    return np.stack(np.divmod(positions, masks.shape[-1]), axis=1).astype(np.int32)


def _numbers(plane: Pixels) -> list[int]:
    """Return the foreground ids that occur in a mask."""
    pixels = sum(np.bincount(plane[rows].ravel(), minlength=256) for rows in row_bands(*plane.shape))
    release(plane)
    return [number for number in np.flatnonzero(pixels).tolist() if number not in (0, IGNORE)]


def _points(plane: Pixels, number: int, share: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Return the positions of random pixels with an id, counted row by row."""
    bands = list(row_bands(*plane.shape))
    counts = [np.count_nonzero(plane[rows] == number) for rows in bands]
    order = random.integers(sum(counts), size=share)
    positions = np.empty(share, np.int64)
    for rows, first, stop in zip(bands, np.cumsum(counts) - counts, np.cumsum(counts), strict=True):
        here = (order >= first) & (order < stop)
        if here.any():
            found = np.flatnonzero(plane[rows] == number)
            positions[here] = found[order[here] - first] + rows.start * plane.shape[1]
    release(plane)
    return positions


def _images_entry(index: Index, image: ImageSettings, cache: Path) -> tuple[Path, Layout]:
    meaning = scale_meaning(image) | {"channels": image.channels, "prepare": image.prepare.model_dump()}
    layout = {"images": ((length_of(_image_shapes(index, image)),), np.uint8)}
    return entry_folder(index, "image", cache, {"native": meaning}), layout


def _points_entry(index: Index, image: ImageSettings, cache: Path) -> tuple[Path, Layout]:
    meaning = scale_meaning(image) | {"names": index.classes, "overlapping": index.overlapping}
    return entry_folder(index, "mask", cache, {"points": meaning}), {
        "points": ((len(index), FOREGROUND_POINTS, 2), np.int32),
        "counts": ((len(index),), np.int32),
    }


def _image_shapes(index: Index, image: ImageSettings) -> list[Shape]:
    readable = set(readable_rows(index, "image"))
    return [
        (*scaled_shape(index.shape(row), image, index.spacing(row)), image.channels)
        if row in readable
        else (0, 0, image.channels)
        for row in range(len(index))
    ]
