"""Volumes as written by scanners and microscopes: CT in NIfTI files of any orientation, stacks of pages, frames."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from numpy.typing import NDArray
from PIL import Image

AIR, FAT, ORGAN, LESION = -1000, -80, 60, 140
"""Intensities in Hounsfield units."""
SHAPE, SPACING = (40, 32, 8), (1.5, 1.5, 5.0)


def ct_volume(seed: int, shape: Sequence[int] = SHAPE) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Return intensities and ids (x, y, z): a body, an organ (1) in its middle slices and a lesion (2) in the organ."""
    random = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, length) for length in shape], indexing="ij")
    shift = random.uniform(-0.1, 0.1, 2)
    body = (x / 0.9) ** 2 + (y / 0.8) ** 2 < 1
    organ = ((x - shift[0]) / 0.55) ** 2 + ((y - shift[1]) / 0.5) ** 2 + (z / 0.7) ** 2 < 1
    lesion = ((x - shift[0] - 0.2) / 0.25) ** 2 + ((y - shift[1]) / 0.25) ** 2 + (z / 0.4) ** 2 < 1
    values = np.full(shape, AIR, np.float64)
    values[body], values[organ], values[lesion & organ] = FAT, ORGAN, LESION
    values += random.normal(0, 15, shape)
    return np.rint(values).astype(np.int16), organ.astype(np.uint8) + (lesion & organ)


def write_nifti(
    path: Path,
    voxels: NDArray[Any],
    *,
    spacing: Sequence[float] = SPACING,
    origin: Sequence[float] = (0.0, 0.0, 0.0),
    orientation: str = "LPS",
) -> Path:
    """Write voxels with axes to left, posterior and superior, stored in another orientation."""
    affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])  # right, anterior and superior in NIfTI
    affine[:3, 3] = origin
    image = nib.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units("mm")
    change = ornt_transform(io_orientation(affine), axcodes2ornt(tuple(orientation)))
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image.as_reoriented(change), path)
    return path


def write_stack(path: Path, pages: NDArray[Any], **options: object) -> Path:
    """Write (pages, height, width[, 3]) as a TIFF file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [Image.fromarray(page) for page in pages]
    images[0].save(path, save_all=True, append_images=images[1:], **options)  # type: ignore[arg-type]
    return path


def write_ct_folder(root: Path, volumes: int = 4, *, shape: Sequence[int] = SHAPE, orientation: str = "RAS") -> Path:
    """Write `images/`, `masks/` and `classes.txt` of CT volumes."""
    for number in range(volumes):
        values, ids = ct_volume(number, shape)
        write_nifti(root / "images" / f"ct{number}.nii.gz", values, orientation=orientation)
        write_nifti(root / "masks" / f"ct{number}.nii.gz", ids, orientation=orientation)
    (root / "classes.txt").write_text("organ\nlesion\n")
    return root
