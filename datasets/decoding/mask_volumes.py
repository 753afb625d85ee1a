"""Masks of volumes as files that fit the file of the image."""

from pathlib import Path

import numpy as np

from datasets.decoding.decode import VOLUME_SUFFIXES, suffix_of
from datasets.decoding.volume import from_slices
from datasets.source import Pixels

STACK = ".tif"


def mask_suffix(image: Path) -> str:
    """Return the suffix of the masks of a volume: that of a NIfTI file, `.tif` for pages and frames."""
    suffix = suffix_of(image.name)
    return suffix if suffix in VOLUME_SUFFIXES else STACK


def write_mask_volume(slices: Pixels, axis: int, image: Path, path: Path) -> None:
    """Write masks (slices, height, width) with the axes of the image: a NIfTI file with its affine, or a stack.

    Args:
        slices: The masks of the slices.
        axis: The axis that slices are perpendicular to; see `datasets.decoding.volume`.
        image: The file of the image, whose suffix the path has.
        path: The file to write.
    """
    if suffix_of(image.name) in VOLUME_SUFFIXES:
        from datasets.decoding.nifti import write_nifti

        write_nifti(slices, axis, image.read_bytes(), path)
        return
    from PIL import Image

    pages = from_slices(slices, axis).transpose(2, 1, 0)
    first, *others = [Image.fromarray(np.ascontiguousarray(page)) for page in pages]
    first.save(path, save_all=True, append_images=others, compression="tiff_adobe_deflate")
