"""NIfTI volumes, read in one orientation and written in that of another file."""

import gzip
import logging
from collections.abc import Sequence
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
from datasets.settings import FileChannels
from datasets.source import Pixels

# nibabel logs repairs of headers, of which those that matter here are errors.
logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)
SUFFIXES: Final = (".nii.gz", ".nii")
HEADER_SIZES: Final = (348, 540)
"""Lengths of the headers of NIfTI-1 and NIfTI-2, which files begin with."""
_LPS: Final = axcodes2ornt(("L", "P", "S"))  # type: ignore[no-untyped-call]
_GZIP: Final = b"\x1f\x8b"


def read_nifti(data: bytes, channels: FileChannels | None = None) -> StoredVolume:
    """Return the voxels of a NIfTI file with axes to the left, the back and the head of the patient.

    Args:
        data: Bytes of the file.
        channels: The channels of an image of four dimensions (x, y, z, channel); None for three dimensions.

    Raises:
        UnsuitableError: The file has other dimensions, or colours.
        ValueError: The file is damaged, as for other errors of nibabel.
    """
    data = _decompressed(data)
    image = _open(data)
    if channels is not None:
        _check_channels(image.shape, channels.count)
    elif len(image.shape) > 3 and set(image.shape[3:]) == {1}:
        image = image.slicer[(..., *[0] * (len(image.shape) - 3))]
    if channels is None and len(image.shape) not in (2, 3):
        shape = " x ".join(map(str, image.shape))
        raise UnsuitableError(
            f"has {len(image.shape)} dimensions ({shape}); allowed: 3, one volume; save each volume, or each channel "
            "for the source nnunet, as a file"
        )
    kind = image.get_data_dtype()  # type: ignore[no-untyped-call]
    if kind.fields is not None or np.issubdtype(kind, np.complexfloating):
        raise UnsuitableError("has several numbers a voxel; allowed: one; save each one as a file")
    voxels = np.asanyarray(image.dataobj)
    if channels is not None:
        voxels = voxels[..., list(channels.selected)]
        voxels = voxels[..., 0] if len(channels.selected) == 1 else voxels
    voxels = voxels[..., None] if voxels.ndim == 2 else voxels
    _check_spacing(data, image)
    is_finite = np.isfinite(image.affine).all()
    orientation = io_orientation(image.affine) if is_finite else np.full((3, 2), np.nan)  # type: ignore[no-untyped-call]
    if np.isnan(orientation).any():
        raise UnsuitableError("has an affine matrix without three directions; allowed: one a voxel axis; restore it")
    change = ornt_transform(orientation, _LPS)  # type: ignore[no-untyped-call]
    affine = image.affine @ inv_ornt_aff(change, voxels.shape[:3])  # type: ignore[no-untyped-call]
    return StoredVolume(
        voxels=apply_orientation(voxels, change),  # type: ignore[no-untyped-call]
        spacing=tuple(float(length) for length in np.linalg.norm(affine[:3, :3], axis=0)),
        affine=tuple(affine.ravel().tolist()),
        has_channels=voxels.ndim > 3,
    )


def write_nifti(slices: Pixels, axis: int, like: bytes, path: Path) -> None:
    """Write masks (slices, height, width) as a NIfTI file with shape, affine and units of another one.

    The channels of an image of four dimensions have one mask of three.

    Args:
        slices: Slices of the volume as `to_slices` returns them.
        axis: The axis that they are perpendicular to.
        like: Bytes of the NIfTI file that was sliced.
        path: File to write, compressed if it ends in `.gz`.
    """
    image = _open(_decompressed(like))
    orientation = io_orientation(image.affine)  # type: ignore[no-untyped-call]
    back = ornt_transform(_LPS, orientation)  # type: ignore[no-untyped-call]
    voxels = np.ascontiguousarray(apply_orientation(from_slices(slices, axis), back))  # type: ignore[no-untyped-call]
    header = image.header.copy()  # type: ignore[no-untyped-call]
    header.set_data_dtype(np.uint8)
    header.set_slope_inter(1, 0)
    header["cal_min"], header["cal_max"] = 0, 0
    shape = image.shape if len(image.shape) < 3 or voxels.size == np.prod(image.shape) else image.shape[:3]
    nib.save(type(image)(voxels.reshape(shape), image.affine, header), path)


def _check_channels(shape: Sequence[int], count: int) -> None:
    """Raise `UnsuitableError` unless a shape is (x, y, z, channel) of this many channels."""
    if len(shape) != 4 or shape[3] != count:
        sides = " x ".join(map(str, shape))
        raise UnsuitableError(
            f"has {len(shape)} dimensions ({sides}); allowed: 4, of which the last are the {count} channels that the "
            "data set states; correct the file or the list of channels"
        )


def _check_spacing(data: bytes, image: nib.Nifti1Image) -> None:
    """Raise `UnsuitableError` if the affine follows from sides of voxels that are 0, which nibabel reads as 1."""
    header = type(image.header)(data[: image.header.sizeof_hdr], check=False)
    sides = np.asarray(header["pixdim"][1 : 1 + min(len(image.shape), 3)])
    if int(header["sform_code"]) == 0 and (sides == 0).any():
        raise UnsuitableError(
            f"states voxels of {' x '.join(f'{side:g}' for side in sides)} mm; allowed: above 0; correct its pixdim"
        )


def _decompressed(data: bytes) -> bytes:
    return gzip.decompress(data) if data[:2] == _GZIP else data


def _open(data: bytes) -> nib.Nifti1Image:
    """Return the image of nibabel from decompressed bytes."""
    if int.from_bytes(data[:4], "little") not in HEADER_SIZES and int.from_bytes(data[:4], "big") not in HEADER_SIZES:
        raise ValueError("it has no NIfTI header")
    kind = nib.Nifti2Image if data[4:8] == b"n+2\0" else nib.Nifti1Image
    try:
        with np.errstate(invalid="ignore"):  # of an affine that is not finite, which `read_nifti` refuses
            image = kind.from_bytes(data)
    except (ImageFileError, HeaderDataError, WrapStructError) as error:
        raise ValueError(str(error)) from error
    return image
