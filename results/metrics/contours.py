"""The contour of a mask as line segments, by marching squares; large masks are read by bands of rows."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from datasets.large import release, row_bands
from results.metrics.formulas import FloatArray

if TYPE_CHECKING:
    from scipy.spatial import cKDTree

Mask = NDArray[np.bool_]
"""(height, width), or (slices, height, width) of a volume."""
Spacing = tuple[float, ...]
"""Size of a pixel along each axis of a mask."""
CANDIDATES = 8
"""Segments with the nearest midpoints among which the nearest point is searched."""
MAX_CELLS = 2**21
"""Cells crossed by a contour of a large mask; longer ones are measured on fewer pixels."""
POINTS = 2**18
"""Points whose distances are computed at a time."""


def on_fewer_pixels(truth: Mask, predicted: Mask, *, limit: int = MAX_CELLS) -> tuple[Mask, Mask, int]:
    """Return masks of every n-th row and column whose contours are short enough, and n, a power of 2.

    Neither mask becomes empty.
    """
    step = 1
    while max(sum(len(cells) for cells, _ in _crossed_cells(mask)) for mask in (truth, predicted)) > limit:
        fewer = truth[::2, ::2], predicted[::2, ::2]
        if not all(mask.any() for mask in fewer):
            break
        truth, predicted = (np.ascontiguousarray(mask) for mask in fewer)
        step *= 2
    return truth, predicted, step


@dataclass(frozen=True, kw_only=True, eq=False)
class Contour:
    """Segments of a contour: `starts` and `ends` (segments, 2) as row and column, in the unit of the spacing."""

    starts: FloatArray
    ends: FloatArray

    @property
    def midpoints(self) -> FloatArray:
        """Return the midpoints, (segments, 2)."""
        return (self.starts + self.ends) / 2

    @property
    def sizes(self) -> FloatArray:
        """Return the lengths, (segments,)."""
        return np.asarray(np.linalg.norm(self.ends - self.starts, axis=1))

    def distances(self, points: FloatArray) -> FloatArray:
        """Return the distance of each point (n, 2) to the nearest point of the contour."""
        from scipy.spatial import cKDTree

        tree, starts = cKDTree(self.midpoints), range(0, len(points), POINTS)
        return np.concatenate([self._nearest(points[start : start + POINTS], tree) for start in starts])

    def _nearest(self, points: FloatArray, tree: "cKDTree[None]") -> FloatArray:
        """Return the distance of each point to the nearest point of the segments whose midpoints are nearest."""
        count = min(CANDIDATES, len(self.starts))
        _, nearest = tree.query(points, k=count)
        nearest = np.asarray(nearest).reshape(len(points), count)
        distances = segment_distances(points[:, None], self.starts[nearest], self.ends[nearest])
        return np.asarray(distances.min(axis=1))


def segment_distances(points: FloatArray, starts: FloatArray, ends: FloatArray) -> FloatArray:
    """Return the distances (...) of points (..., axes) to segments from `starts` to `ends`, (..., axes) each."""
    sides, offsets = ends - starts, points - starts
    squares = (sides**2).sum(axis=-1)
    along = np.clip((offsets * sides).sum(axis=-1) / np.where(squares > 0, squares, 1.0), 0.0, 1.0)
    return np.asarray(np.linalg.norm(offsets - along[..., None] * sides, axis=-1))


def contour(mask: Mask, spacing: Spacing = (1.0, 1.0)) -> Contour:
    """Return the marching-squares contour of a mask; diagonal neighbours of the foreground are connected."""
    cells, corners = (np.concatenate(parts) for parts in zip(*_crossed_cells(mask), strict=True))
    table, counts = _segments_by_case()
    ends = [table[cells, number] + corners for number in range(2)]
    has_second = counts[cells] > 1
    segments = np.concatenate([ends[0], ends[1][has_second]]) * np.asarray(spacing)
    return Contour(starts=segments[:, 0], ends=segments[:, 1])


def _crossed_cells(mask: Mask) -> Iterator[tuple[NDArray[np.uint8], FloatArray]]:
    """Yield the cases (cells,) and the corners (cells, 1, 2) of cells between four pixels that differ."""
    height, width = mask.shape
    for part in row_bands(height + 1, width + 1):
        first, last = max(part.start - 1, 0), min(part.stop, height)
        padded = np.zeros((part.stop - part.start + 1, width + 2), np.uint8)
        padded[first - part.start + 1 : last - part.start + 1, 1:-1] = mask[first:last]
        cases = padded[:-1, :-1] | padded[:-1, 1:] << 1 | padded[1:, 1:] << 2 | padded[1:, :-1] << 3
        rows, columns = np.nonzero((cases != 0) & (cases != 15))
        yield cases[rows, columns], np.stack([rows + part.start, columns], axis=1)[:, None].astype(np.float64)
        release(mask)


@cache
def _segments_by_case() -> tuple[FloatArray, NDArray[np.int64]]:
    """Return the segments of each of the 16 cases (16, 2, 2 ends, 2) in a cell of side 1, and their numbers (16,)."""
    top, right, bottom, left = (0.0, 0.5), (0.5, 1.0), (1.0, 0.5), (0.5, 0.0)
    by_case = {
        1: [(left, top)], 2: [(top, right)], 3: [(left, right)], 4: [(right, bottom)],
        5: [(top, right), (bottom, left)], 6: [(top, bottom)], 7: [(left, bottom)], 8: [(bottom, left)],
        9: [(bottom, top)], 10: [(left, top), (right, bottom)], 11: [(bottom, right)], 12: [(right, left)],
        13: [(right, top)], 14: [(top, left)],
    }  # fmt: skip
    table, counts = np.zeros((16, 2, 2, 2)), np.zeros(16, dtype=np.int64)
    for case, segments in by_case.items():
        table[case, : len(segments)], counts[case] = segments, len(segments)
    return table, counts
