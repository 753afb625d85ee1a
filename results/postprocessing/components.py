"""Connected components of a mask with the component of each pixel, in bands of rows or slices."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from datasets.large import BAND_PIXELS, row_bands
from results.metrics.contours import Mask
from results.metrics.lesions import Labelling, is_large_mask, neighbours

Numbers = NDArray[np.integer]


class MaskComponents:
    """The components of a mask, numbered from 1: of 8 neighbours in an image, of 26 in a volume.

    The labels of a large image are not kept, those of other masks are.

    Args:
        mask: (height, width), or (slices, height, width) of a volume.
    """

    def __init__(self, mask: Mask) -> None:
        from scipy.ndimage import label

        self._mask = mask
        self._labels: Numbers | None = None
        self._of_label = np.zeros(0, np.int64)
        self.sizes: NDArray[np.int64] = np.zeros(1, np.int64)
        """Number of pixels of each component; the first number, of the background, is 0."""
        if is_large_mask(mask):
            labelling = Labelling(mask)
            for rows in row_bands(*mask.shape):
                labelling.band(rows)
            components = labelling.components()
            self._of_label, self.sizes = components.of_label, components.sizes.copy()
        else:
            self._labels, count = label(mask, neighbours(mask))
            self.sizes = np.zeros(count + 1, np.int64)
            for _, numbers in self.bands():
                self.sizes += np.bincount(numbers.ravel(), minlength=count + 1)
        self.sizes[0] = 0

    @property
    def count(self) -> int:
        """Return the number of components."""
        return len(self.sizes) - 1

    def bands(self) -> Iterator[tuple[slice, Numbers]]:
        """Yield rows of an image, or slices of a volume, with the component of each of their pixels."""
        if self._labels is None:
            labelling = Labelling(self._mask)
            for rows in row_bands(*self._mask.shape):
                yield rows, self._of_label[labelling.band(rows)]
            return
        step = max(1, BAND_PIXELS // max(1, self._labels[:1].size))
        for start in range(0, len(self._labels), step):
            part = slice(start, min(start + step, len(self._labels)))
            yield part, self._labels[part]
