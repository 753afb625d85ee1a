"""Volumes as slices: axes and orientation, spacing, and scaling of intensities to 8 bits.

The voxels of a volume have the axes (x, y, z[, channel]). In a NIfTI file, after reorientation, x points to the left of
the patient, y to the back and z to the head; in a stack of pages or frames x is the column, y the row and z the page.

| axis | slices | upper edge | left edge |
| --- | --- | --- | --- |
| 2 | axial, or pages | front | right of the patient |
| 1 | coronal | head, or last page | right of the patient |
| 0 | sagittal | head, or last page | front |
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from datasets.decoding.raster import UnsuitableError
from datasets.settings import VolumeSettings
from datasets.source import Pixels

Voxels = NDArray[Any]
"""(x, y, z), (x, y, z, 3) RGB, or (x, y, z, channels)."""
PERCENTILES: Final = (0.5, 99.5)
"""Percentiles of a volume shown as black and white without `VolumeSettings.window`."""
SPACING_TOLERANCE: Final = 0.01
"""Relative difference up to which two spacings count as equal."""
LAST_AXIS: Final = 2


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Position of an image or volume in space.

    Attributes:
        slices: Number of slices of a volume, 0 for a single image.
        axis: The axis that the slices of a volume are perpendicular to.
        spacing: Size of a pixel (height, width) or of a voxel (distance of slices, height, width) in mm, () if unknown.
        affine: The 16 numbers of the matrix from voxels (x, y, z) to mm, () if there is none.
        frame_order: Numbers of the stored frames in the order of their positions, () if they are stored in order.
    """

    slices: int = 0
    axis: int = LAST_AXIS
    spacing: tuple[float, ...] = ()
    affine: tuple[float, ...] = ()
    frame_order: tuple[int, ...] = ()


SINGLE: Final = Geometry()
"""A single image of unknown spacing."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredVolume:
    """The voxels of a file as stored, with their spacing along (x, y, z) in mm, and the patient.

    `frame_order` and `remark` are those of `Geometry` and `datasets.decoding.decode.Decoded`.
    """

    voxels: Voxels
    spacing: tuple[float, ...] = ()
    affine: tuple[float, ...] = ()
    patient: str = ""
    valid: NDArray[np.bool_] | None = None
    """Voxels with a value, of the shape of `voxels`; None if all have one."""
    inverted: bool = False
    """Whether low values are bright."""
    has_channels: bool = False
    """Whether the last axis are channels of separate ranges."""
    frame_order: tuple[int, ...] = ()
    remark: str = ""

    def geometry(self, settings: VolumeSettings) -> Geometry:
        """Return the geometry of the slices."""
        axis = slice_axis(self.voxels.shape, self.spacing, settings.axis)
        if self.frame_order and axis != LAST_AXIS:
            raise UnsuitableError(
                f"has frames that are not stored in the order of their positions, which slices along axis {axis} would "
                "mix; allowed: slices that are frames; set `axis: 2`, or save the frames in order"
            )
        return Geometry(
            slices=self.voxels.shape[axis], axis=axis, spacing=slice_spacing(self.spacing, axis), affine=self.affine,
            frame_order=self.frame_order,
        )  # fmt: skip

    def image(self, settings: VolumeSettings) -> Pixels:
        """Return (slices, height, width[, channels]) of 8 bits."""
        axis = self.geometry(settings).axis
        valid = None if self.valid is None else to_slices(self.valid, axis)
        slices = to_slices(self.voxels, axis)
        if self.has_channels:
            channels = [to_8_bits(slices[..., number], settings.window) for number in range(slices.shape[-1])]
            return np.stack(channels, axis=-1)
        pixels = to_8_bits(slices, settings.window, valid)
        if self.inverted:
            pixels = 255 - pixels
            if valid is not None:
                pixels[~valid] = 0
        return pixels


def slice_axis(shape: Sequence[int], spacing: Sequence[float], axis: int | None) -> int:
    """Return the axis that slices are perpendicular to.

    Without a choice it is the last one (pages) if the spacing is unknown; else an axis of length 1, or the one with the
    largest spacing, the last one of several.
    """
    if axis is not None:
        return axis
    if not spacing:
        return LAST_AXIS
    flat = [number for number in range(3) if shape[number] == 1]
    if flat:
        return flat[-1]
    largest = max(spacing) * (1 - SPACING_TOLERANCE)
    return max(number for number in range(3) if spacing[number] >= largest)


def slice_spacing(spacing: Sequence[float], axis: int) -> tuple[float, ...]:
    """Return the spacing (distance of slices, height, width) of slices from that along (x, y, z), () from ()."""
    return tuple(spacing[number] for number in _order(axis)) if spacing else ()


def to_slices(voxels: Voxels, axis: int) -> Voxels:
    """Return a view (slices, height, width[, ...]) of voxels (x, y, z[, ...]); see the table above."""
    order = _order(axis)
    view = voxels.transpose(*order, *range(3, voxels.ndim))
    return view if axis == LAST_AXIS else view[:, ::-1]


def from_slices(slices: Voxels, axis: int) -> Voxels:
    """Return a view of the voxels (x, y, z[, ...]) of slices; the inverse of `to_slices`."""
    view = slices if axis == LAST_AXIS else slices[:, ::-1]
    return view.transpose(*np.argsort(_order(axis)), *range(3, slices.ndim))


def _order(axis: int) -> tuple[int, int, int]:
    """Return the axes of voxels that slices, rows and columns are along."""
    return {2: (2, 1, 0), 1: (1, 2, 0), 0: (0, 2, 1)}[axis]


def to_8_bits(values: Voxels, window: tuple[float, float] | None, valid: NDArray[np.bool_] | None = None) -> Pixels:
    """Scale values linearly from a window to 0..255; values that are not valid or not finite become 0.

    Without a window, 8 bits stay as they are, and others are scaled from `PERCENTILES` of the volume.
    """
    if window is None and values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    is_float = np.issubdtype(values.dtype, np.floating)
    if is_float:
        finite = np.isfinite(values)
        valid = finite if valid is None else finite & valid
    low, high = window or _range(values if valid is None else values[valid])
    pixels = np.empty(values.shape, np.uint8)
    for number, plane in enumerate(values):  # a plane at a time: floats need several times the memory
        scaled = (plane.astype(np.float64) - low) * (255 / (high - low)) if high > low else np.zeros(plane.shape)
        if valid is not None:
            scaled = np.where(valid[number], scaled, 0)
        pixels[number] = np.rint(np.clip(scaled, 0, 255))
    return pixels


def _range(values: Voxels) -> tuple[float, float]:
    """Return the percentiles of the values, or their range if these are equal."""
    if not values.size:
        return 0.0, 0.0
    low, high = (float(value) for value in np.percentile(values, PERCENTILES, method="inverted_cdf"))
    return (low, high) if low < high else (float(values.min()), float(values.max()))
