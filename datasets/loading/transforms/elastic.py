"""Smooth random displacement of the pixels of an image."""

import math
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

ELASTIC_SIGMA: Final = 0.08
"""Standard deviation of the smoothing filter, as a fraction of the shorter side."""
CELLS: Final = 48
"""Number of grid cells along the shorter side: about 4 per standard deviation of the filter."""
MARGIN: Final = 1
"""Cells around the image that interpolation needs."""
NOISE_DEVIATION: Final = 1 / math.sqrt(12)
"""Standard deviation of uniform noise in 0..1."""


class DisplacementField:
    """Displacements of the pixels of an image of `shape` (height, width), at most about `reach` pixels.

    Uniform noise on a coarse grid is smoothed by a Gaussian filter (Simard et al. 2003) and enlarged by linear
    interpolation. Both components have mean 0 and a standard deviation of a third of `reach` at every pixel, also at
    the border; the correlation of two pixels at a distance r is exp(-r^2 / (4 sigma^2)), with sigma = `ELASTIC_SIGMA`
    times the shorter side.
    """

    def __init__(self, shape: tuple[int, int], reach: float) -> None:
        self._shape, side = shape, min(shape)
        self._step = max(1, round(side / CELLS))
        sigma = ELASTIC_SIGMA * side / self._step
        self._radius = math.ceil(3 * sigma)
        kernel = cv2.getGaussianKernel(2 * self._radius + 1, sigma, cv2.CV_32F)
        # Of the smoothed noise; the filter is applied along both axes.
        deviation = NOISE_DEVIATION * float((kernel**2).sum())
        self._kernel = kernel * math.sqrt(reach / 3 / deviation)
        rows, columns = (math.ceil(length / self._step) + 2 * MARGIN for length in shape)
        self._rows, self._columns = self._centres(rows)[:, None], self._centres(columns)

    def __call__(self, random: np.random.Generator, matrix: NDArray[np.float64]) -> tuple[NDArray[np.float32], ...]:
        """Draw displacements of all pixels; return an affine map of the displaced positions.

        Args:
            random: Generator of the noise.
            matrix: (2, 3), applied to (x, y, 1).

        Returns:
            x and y, (height, width) each.
        """
        grid = len(self._rows), len(self._columns)
        radius = self._radius
        noise = random.random((2, *(cells + 2 * radius for cells in grid)), dtype=np.float32) - np.float32(0.5)
        smooth_x, smooth_y = (
            cv2.sepFilter2D(plane, -1, self._kernel, self._kernel)[radius:-radius, radius:-radius] for plane in noise
        )
        x, y = self._columns + smooth_x, self._rows + smooth_y
        return tuple(self._enlarged(of_x * x + of_y * y + start) for of_x, of_y, start in matrix.astype(np.float32))

    def _centres(self, cells: int) -> NDArray[np.float32]:
        """Return the centres of cells along an axis, in pixels of the image."""
        return ((np.arange(cells) - MARGIN + 0.5) * self._step - 0.5).astype(np.float32)

    def _enlarged(self, grid: NDArray[np.float32]) -> NDArray[np.float32]:
        """Interpolate values at the centres of cells at all pixels; exact for the affine part of a map."""
        rows, columns = grid.shape
        size = (columns * self._step, rows * self._step)
        enlarged = cv2.resize(grid, size, interpolation=cv2.INTER_LINEAR) if self._step > 1 else grid
        first, (height, width) = MARGIN * self._step, self._shape
        return enlarged[first : first + height, first : first + width].astype(np.float32, copy=False)
