"""Differences of each test image between two cells."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from results.metrics.compute import ImageValues
from results.metrics.formulas import FloatArray
from results.statistics.cells import Cells, IntArray
from results.statistics.patient_level.sums import ScoredReplicate

Names = tuple[str, str]
CellImages = Mapping[tuple[int, int], Mapping[str, ImageValues]]
"""Image values of a cell by fold and seed, then by split."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageDifferences:
    """Differences on one split, averaged over the replicates that both cells have.

    `series` (series,) numbers the columns of `values` (images, series), NaN where undefined; `patients` (images,)
    numbers the patients from 0; `replicates` counts the pairs.
    """

    series: IntArray
    values: FloatArray
    patients: NDArray[np.int64]
    replicates: int


class ScoredImages:
    """Metrics of each test image by cell."""

    def __init__(self, cells: Cells, scored: Iterable[ScoredReplicate]) -> None:
        self._cells: dict[int, dict[tuple[int, int], Mapping[str, ImageValues]]] = defaultdict(dict)
        for replicate, images in scored:
            parts = {part.split: part for part in images}
            self._cells[cells.cell_of_replicate(replicate)][replicate.fold, replicate.seed] = parts
        self._series = cells.series_numbers

    def differences(self, cell: int, reference: int) -> Iterator[ImageDifferences]:
        """Yield the differences of two cells for each split."""
        values_of_cell, values_of_reference = self._cells.get(cell, {}), self._cells.get(reference, {})
        for split in dict.fromkeys(split for images in values_of_cell.values() for split in images):
            pairs = [
                (values[split], values_of_reference[replicate][split])
                for replicate, values in values_of_cell.items()
                if split in values and split in values_of_reference.get(replicate, {})
            ]
            if pairs:
                yield self._differences(split, pairs)

    def _differences(self, split: str, pairs: Sequence[tuple[ImageValues, ImageValues]]) -> ImageDifferences:
        shared = set.intersection(*(set(images.series) for pair in pairs for images in pair))
        series = [
            name for name in pairs[0][0].series if name in shared and (split, "case", *name) in self._series
        ]  # fmt: skip
        names: list[str] = []
        patient_of: dict[str, str] = {}
        parts = []
        for first, second in pairs:
            images = _shared_images(first, second)
            parts.append(_values(first, images, series) - _values(second, images, series))
            names += images
            patient_of |= zip(first.images, first.patients, strict=True)
        unique_images, image_index = np.unique(names, return_inverse=True)
        return ImageDifferences(
            series=np.array([self._series[split, "case", *name] for name in series], dtype=np.int64),
            values=_averaged(np.concatenate(parts), image_index, len(unique_images)),
            patients=np.unique([patient_of[image] for image in unique_images.tolist()], return_inverse=True)[1],
            replicates=len(pairs),
        )


def _averaged(values: FloatArray, image_index: NDArray[np.int64], images: int) -> FloatArray:
    """Return the mean of the defined values of each image."""
    defined = ~np.isnan(values)
    sums, counts = (np.zeros((images, values.shape[1])) for _ in range(2))
    np.add.at(sums, image_index, np.where(defined, values, 0.0))
    np.add.at(counts, image_index, defined)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _shared_images(first: ImageValues, second: ImageValues) -> tuple[str, ...]:
    if first.images == second.images:
        return first.images
    in_second = set(second.images)
    return tuple(image for image in first.images if image in in_second)


def _values(part: ImageValues, images: tuple[str, ...], series: Sequence[Names]) -> FloatArray:
    values = part.values
    if part.images != images:
        order = {image: row for row, image in enumerate(part.images)}
        values = values[[order[image] for image in images]]
    if list(part.series) != series:
        column = {name: index for index, name in enumerate(part.series)}
        values = values[:, [column[name] for name in series]]
    return values
