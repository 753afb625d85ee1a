"""Cases of a split: images, and volumes as the sum of their slices."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from results.metrics.formulas import Confidence, Counts, FloatArray

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, kw_only=True, eq=False)
class Cases:
    """The cases of a split in ascending order of their names.

    Attributes:
        names: Ids of images and names of volumes.
        patients: The patient of each case.
        of_image: (images,) position of the case of each image; images are in ascending order of their ids.
        first: (cases,) position of the first image of each case.
    """

    names: tuple[str, ...]
    patients: tuple[str, ...]
    of_image: NDArray[np.int64]
    first: NDArray[np.int64]

    @classmethod
    def of(cls, images: "pa.Table") -> Self:
        """Return the cases of a table with the columns of `results.schema.images`, of one split, sorted by image."""
        ids, patients = (images[column].to_pylist() for column in ("image", "patient"))
        volumes = images["volume"].to_pylist() if "volume" in images.column_names else [None] * len(ids)
        case_names = [volume or image for image, volume in zip(ids, volumes, strict=True)]
        names, first, of_image = np.unique(np.array(case_names, object), return_index=True, return_inverse=True)
        return cls(
            names=tuple(names.tolist()), patients=tuple(patients[row] for row in first), of_image=of_image, first=first
        )

    def __len__(self) -> int:
        """Return the number of cases."""
        return len(self.names)

    def counts(self, of_images: Counts) -> Counts:
        """Return the counts (cases, classes) of counts (images, classes)."""
        return Counts(**{name: self._summed(part) for name, part in vars(of_images).items() if part is not None})

    def bins(self, of_images: Confidence) -> Confidence:
        """Return the calibration bins (cases, bins) of those of images."""
        return Confidence(**{name: self._summed(part) for name, part in vars(of_images).items()})

    def _summed(self, values: FloatArray) -> FloatArray:
        if np.array_equal(self.of_image, np.arange(len(self))):  # images, in the order of the cases
            return values
        total = np.zeros((len(self), *values.shape[1:]))
        np.add.at(total, self.of_image, values)
        return total
