"""The surface of a volume mask as triangles, by marching cubes."""

from dataclasses import dataclass

import numpy as np

from results.metrics.contours import Mask, Spacing, segment_distances
from results.metrics.formulas import FloatArray

CANDIDATES = 16
"""Triangles with the nearest centres among which the nearest point is searched.

With voxels seven times as long as wide, more candidates change the mean distance by less than a thousandth.
"""
CHUNK = 8192
"""Points whose distances are computed together, which bounds the memory."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Surface:
    """Triangles of a surface: `corners` (triangles, 3, 3) along the axes of the mask, in the unit of the spacing."""

    corners: FloatArray

    @property
    def midpoints(self) -> FloatArray:
        """Return the centres of gravity, (triangles, 3)."""
        return np.asarray(self.corners.mean(axis=1))

    @property
    def sizes(self) -> FloatArray:
        """Return the areas, (triangles,)."""
        first, second, third = self.corners.swapaxes(0, 1)
        return np.asarray(np.linalg.norm(np.cross(second - first, third - first), axis=1) / 2)

    def distances(self, points: FloatArray) -> FloatArray:
        """Return the distance of each point (n, 3) to the nearest point of the surface."""
        from scipy.spatial import cKDTree

        midpoints, count = self.midpoints, min(CANDIDATES, len(self.corners))
        tree = cKDTree(midpoints)
        radii = np.linalg.norm(self.corners - midpoints[:, None], axis=2).max(axis=1)
        nearest = np.empty(len(points))
        for start in range(0, len(points), CHUNK):
            chunk = points[start : start + CHUNK]
            to_midpoints, candidates = (
                np.asarray(part).reshape(len(chunk), count) for part in tree.query(chunk, k=count)
            )
            distances = triangle_distances(chunk, self.corners[candidates[:, 0]])
            may_be_nearer = to_midpoints - radii[candidates] < distances[:, None]
            may_be_nearer[:, 0] = False
            rows, columns = np.nonzero(may_be_nearer)
            others = triangle_distances(chunk[rows], self.corners[candidates[rows, columns]])
            np.minimum.at(distances, rows, others)
            nearest[start : start + CHUNK] = distances
        return nearest


def surface(mask: Mask, spacing: Spacing) -> Surface:
    """Return the marching-cubes surface (Lewiner et al. 2003) of a mask (slices, height, width) that is not empty."""
    from skimage.measure import marching_cubes

    padded = np.pad(mask, 1).astype(np.float32)
    vertices, faces, _, _ = marching_cubes(  # type: ignore[no-untyped-call]
        padded, level=0.5, spacing=spacing, allow_degenerate=False
    )
    return Surface(corners=np.asarray(vertices, np.float64)[faces])


def triangle_distances(points: FloatArray, corners: FloatArray) -> FloatArray:
    """Return the distances (...) of points (..., 3) to triangles (..., 3 corners, 3).

    The nearest point is the foot of the perpendicular if it is inside of the triangle, else on one of the sides.
    """
    first, second, third = (corners[..., number, :] for number in range(3))
    sides = [(first, second), (second, third), (third, first)]
    to_sides = np.min([segment_distances(points, start, end) for start, end in sides], axis=0)
    normal = np.cross(second - first, third - first)
    inside = np.all(
        [(np.cross(end - start, points - start) * normal).sum(axis=-1) >= 0 for start, end in sides], axis=0
    )
    length = np.linalg.norm(normal, axis=-1)
    to_plane = np.abs(((points - first) * normal).sum(axis=-1)) / np.where(length > 0, length, 1.0)
    return np.asarray(np.where(inside & (length > 0), to_plane, to_sides))
