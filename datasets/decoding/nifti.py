"""NIfTI volumes, read in one orientation and written in that of another file."""

import gzip
from pathlib import Path
from typing import Final

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from datasets.decoding.raster import UnsuitableError
from datasets.decoding.volume import StoredVolume, from_slices
from datasets.source import Pixels

SUFFIXES: Final = (".nii.gz", ".nii")
_LPS: Final = axcodes2ornt(("L", "P", "S"))  # type: ignore[no-untyped-call]
_GZIP: Final = b"\x1f\x8b"


def read_nifti(data: bytes) -> StoredVolume:
    """Return the voxels of a NIfTI file with axes to the left, the back and the head of the patient.

    Raises `UnsuitableError` for files with several volumes or colours, `ValueError` and others for damaged ones.
    """
    image = _open(data)
    if len(image.shape) > 3 and set(image.shape[3:]) == {1}:
        image = image.slicer[(..., *[0] * (len(image.shape) - 3))]
    if len(image.shape) not in (2, 3):
        shape = " x ".join(map(str, image.shape))
        raise UnsuitableError(
            f"has {len(image.shape)} dimensions ({shape}); allowed: 3, one volume; save each volume, or each channel "
            "for the source nnunet, as a file"
        )
    kind = image.get_data_dtype()  # type: ignore[no-untyped-call]
    if kind.fields is not None or np.issubdtype(kind, np.complexfloating):
        raise UnsuitableError("has several numbers a voxel; allowed: one; save each one as a file")
    voxels = np.asanyarray(image.dataobj)
    voxels = voxels[..., None] if voxels.ndim == 2 else voxels
    orientation = io_orientation(image.affine)  # type: ignore[no-untyped-call]
    if np.isnan(orientation).any() or not np.isfinite(image.affine).all():
        raise UnsuitableError("has an affine matrix without three directions; allowed: one a voxel axis; restore it")
    change = ornt_transform(orientation, _LPS)  # type: ignore[no-untyped-call]
    affine = image.affine @ inv_ornt_aff(change, voxels.shape)  # type: ignore[no-untyped-call]
    return StoredVolume(
        voxels=apply_orientation(voxels, change),  # type: ignore[no-untyped-call]
        spacing=tuple(float(length) for length in np.linalg.norm(affine[:3, :3], axis=0)),
        affine=tuple(affine.ravel().tolist()),
    )


def write_nifti(slices: Pixels, axis: int, like: bytes, path: Path) -> None:
    """Write masks (slices, height, width) as a NIfTI file with shape, affine and units of another one.

    Args:
        slices: Slices of the volume as `to_slices` returns them.
        axis: The axis that they are perpendicular to.
        like: Bytes of the NIfTI file that was sliced.
        path: File to write, compressed if it ends in `.gz`.
    """
    image = _open(like)
    orientation = io_orientation(image.affine)  # type: ignore[no-untyped-call]
    back = ornt_transform(_LPS, orientation)  # type: ignore[no-untyped-call]
    voxels = np.ascontiguousarray(apply_orientation(from_slices(slices, axis), back))  # type: ignore[no-untyped-call]
    header = image.header.copy()  # type: ignore[no-untyped-call]
    header.set_data_dtype(np.uint8)
    header.set_slope_inter(1, 0)
    header["cal_min"], header["cal_max"] = 0, 0
    nib.save(type(image)(voxels.reshape(image.shape), image.affine, header), path)


def _open(data: bytes) -> nib.Nifti1Image:
    """Return the image of nibabel."""
    data = gzip.decompress(data) if data[:2] == _GZIP else data
    kind = nib.Nifti2Image if data[4:8] == b"n+2\0" else nib.Nifti1Image
    try:
        image = kind.from_bytes(data)
    except (ImageFileError, HeaderDataError, WrapStructError) as error:
        raise ValueError(str(error)) from error
    return image
