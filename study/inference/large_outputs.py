"""Output files of `study predict` for a large image, written part by part: tiled TIFF, a smaller overlay, arrays."""

import math
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import numpy as np
from numpy.lib.format import header_data_from_array_1_0, write_array_header_1_0
from numpy.typing import NDArray

from datasets.large import AnyArray, release, temporary_array
from datasets.resampling import resized
from datasets.source import Pixels
from study.inference.inputs import InputImage
from study.inference.outputs import ARRAYS, OVERLAY, TIFF, PredictionWriter, draw_outlines, save_png
from study.training.prediction.bands import Band

TILE: Final = 512
"""Side of the tiles of TIFF files in pixels."""
MAX_OVERLAY_SIDE: Final = 4096
"""Longest side of the overlay of a large image in pixels."""
BYTES: Final = 2**26
"""Size of the parts in which arrays are written."""


def write_large(
    writer: PredictionWriter, image: InputImage, pixels: Pixels, bands: Iterable[Band], size: tuple[int, int]
) -> NDArray[np.bool_]:
    """Write the files of one large image and return its memory-mapped masks (classes, H, W).

    Args:
        writer: What is written.
        image: The image.
        pixels: (H, W) or (H, W, 3).
        bands: The probabilities of its rows.
        size: H and W.
    """
    image.output.parent.mkdir(parents=True, exist_ok=True)
    kept: AnyArray | None = None
    if writer.probabilities:
        kept = temporary_array((len(writer.channels), *size), writer.probabilities.value)
        bands = _copied(bands, kept)
    masks = writer.masks(bands, size)
    for planes, suffix in _mask_files(writer, masks):
        _save_tiff(planes, image.output_file(suffix), scale=1 if writer.outputs.exclusive else 255)
    if writer.overlay:
        step = math.ceil(max(size) / MAX_OVERLAY_SIDE)
        small = masks[:, ::step, ::step]
        save_png(draw_outlines(resized(pixels, *small.shape[1:], shrinks=True), small), image.output_file(OVERLAY))
    if kept is not None:
        _save_arrays(image.output_file(ARRAYS), {"probabilities": kept, "names": np.array(writer.channels)})
    return masks


def _copied(bands: Iterable[Band], target: AnyArray) -> Iterator[Band]:
    """Yield the same bands, after their probabilities are copied."""
    for band in bands:
        target[:, band.top : band.top + band.probabilities.shape[1]] = band.probabilities.numpy()
        release(target)
        yield band


def _mask_files(writer: PredictionWriter, masks: NDArray[np.bool_]) -> Iterator[tuple[NDArray[np.bool_], str]]:
    """Yield the masks in each file, and its suffix."""
    suffixes = writer.mask_suffixes(TIFF)
    if writer.outputs.exclusive:
        yield masks, suffixes[0]
    else:
        yield from ((masks[number : number + 1], suffix) for number, suffix in enumerate(suffixes))


def _save_tiff(masks: NDArray[np.bool_], path: Path, *, scale: int) -> None:
    """Write masks (classes, H, W) that exclude each other as ids 1, 2, ..., times `scale`, in compressed tiles."""
    from tifffile import imwrite

    def tiles() -> Iterator[Pixels]:
        ids = (scale * np.arange(1, len(masks) + 1)).astype(np.uint8)
        for top in range(0, masks.shape[1], TILE):
            strip = (masks[:, top : top + TILE] * ids[:, None, None]).sum(axis=0, dtype=np.uint8)
            release(masks)
            for left in range(0, masks.shape[2], TILE):
                part = strip[:, left : left + TILE]
                yield np.pad(part, [(0, TILE - length) for length in part.shape])

    imwrite(
        path, tiles(), shape=masks.shape[1:], dtype=np.uint8, tile=(TILE, TILE), compression="deflate",
        photometric="minisblack",
    )  # fmt: skip


def _save_arrays(path: Path, arrays: dict[str, AnyArray]) -> None:
    """Write arrays as `np.savez_compressed` does, memory-mapped ones part by part."""
    with zipfile.ZipFile(path, "w", compression=zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                write_array_header_1_0(file, header_data_from_array_1_0(array))
                values = array.reshape(-1)
                step = max(1, BYTES // array.itemsize)
                for start in range(0, values.size, step):
                    file.write(values[start : start + step].tobytes())
                    release(array)
