"""Comparison of the sizes and positions of files that belong together: image, masks, channels."""

import numpy as np

from datasets.cache.manifest import Manifest
from datasets.decoding.volume import Geometry

POSITION_TOLERANCE = 0.1
"""Distance up to which voxels count as at the same position, as a share of the smallest voxel side."""


def position_fault(path: str, reference: str, files: Manifest) -> str:
    """Return how a file lies elsewhere than the image file it belongs to, "" if it does not.

    Height and width are not compared.
    """
    position, reference_position = files.positions[path], files.positions[reference]
    geometry, expected = files.geometry(position), files.geometry(reference_position)
    if geometry.slices != expected.slices:
        return (
            f"{path} has {_slices(geometry)}; allowed: {_slices(expected)}, as its image {reference} has; restore the "
            "mask or the image"
        )
    if not geometry.slices:
        return ""
    if bool(geometry.affine) != bool(expected.affine):
        return (
            f"{path} states {'a' if geometry.affine else 'no'} position in space, unlike its image {reference}; "
            "allowed: both in one format; convert it"
        )
    if geometry.affine:
        shape = (geometry.slices, files.height[reference_position], files.width[reference_position])
        distance = _largest_distance(geometry, expected, shape)
        if distance > POSITION_TOLERANCE * min(expected.spacing):
            return (
                f"{path} lies up to {distance:.3g} mm from the voxels of its image {reference} (another affine "
                "matrix); allowed: the same position; resample it onto the image, or copy the header if only that is "
                "wrong"
            )
    if geometry.axis != expected.axis:
        return (
            f"{path} would be sliced along axis {geometry.axis} and its image {reference} along {expected.axis}; "
            "allowed: one axis; set `axis`"
        )
    return ""


def _slices(geometry: Geometry) -> str:
    return f"{geometry.slices} slice{'s' * (geometry.slices > 1)}" if geometry.slices else "one page"


def _largest_distance(geometry: Geometry, expected: Geometry, shape: tuple[int, int, int]) -> float:
    """Return the largest distance of a voxel of two volumes in mm, bounded by that of a cube around both."""
    side = max(shape) - 1
    corners = np.array(np.meshgrid(*[[0, side]] * 3)).reshape(3, -1)
    homogeneous = np.vstack([corners, np.ones(corners.shape[1])])
    change = np.reshape(geometry.affine, (4, 4)) - np.reshape(expected.affine, (4, 4))
    return float(np.linalg.norm((change @ homogeneous)[:3], axis=0).max())
