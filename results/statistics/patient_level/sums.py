"""Sums over each patient's test images by cell, for tests over the patients of a fixed test set."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from results.metrics.compute import ImageValues, dataset_metrics
from results.metrics.formulas import Counts, FloatArray
from results.schema import ReplicateRecord
from results.statistics.cells import Cells, IntArray


class ScoredReplicate(NamedTuple):
    """A replicate, and the metrics and counts of each of its test images."""

    replicate: ReplicateRecord
    images: Sequence[ImageValues]


@dataclass(frozen=True, kw_only=True, eq=False)
class PatientSums:
    """Sums over the images of each patient in one cell.

    `values` and `defined` (patients, case series) are sums over images of metrics, averaged over replicates, and how
    many images define them; `pixels` (patients, replicates, classes, 4) are tp, fp, fn, tn.
    """

    values: FloatArray
    defined: FloatArray
    pixels: FloatArray


@dataclass(frozen=True, kw_only=True, eq=False)
class FixedSplit:
    """One split of test images that all replicates of all cells share.

    `case_series` and `pooled_series` number the series of the columns of `PatientSums.values` and of
    `pooled_metrics`; `shown` and `averaged` (classes,) are the classes in the truth and in the macro mean.
    """

    case_series: IntArray
    pooled_series: IntArray
    pooled_names: Sequence[tuple[str, str]]
    classes: Sequence[str]
    shown: NDArray[np.bool_]
    averaged: NDArray[np.bool_]
    patients: int
    cells: Mapping[int, PatientSums]

    def pooled_metrics(self, pixels: FloatArray) -> FloatArray:
        """Return metrics of counts (..., replicates, classes, 4), averaged over replicates: (..., series)."""
        tp, fp, fn, tn = np.moveaxis(pixels, -1, 0)
        no_histogram = np.zeros((*tp.shape, 0))  # score histograms do not fit in memory for every permutation
        counts = Counts(tp=tp, fp=fp, fn=fn, tn=tn, positives=no_histogram, negatives=no_histogram)
        metrics = dataset_metrics(counts, self.classes, shown=self.shown, averaged=self.averaged)
        columns = [metrics[name].mean(axis=-1) for name in self.pooled_names]
        return np.stack(columns, axis=-1) if columns else np.zeros((*tp.shape[:-2], 0))

    def case_metrics(self, values: FloatArray, defined: FloatArray) -> FloatArray:
        """Return means over images from sums over patients."""
        return np.where(defined > 0, values / np.maximum(defined, 1e-300), np.nan)


def fixed_splits(cells: Cells, scored: Iterable[ScoredReplicate]) -> list[FixedSplit]:
    """Return the sums of all complete cells, for each split of test images."""
    by_split: dict[str, dict[int, list[ImageValues]]] = {}
    for replicate, parts in scored:
        cell = cells.cell_of_replicate(replicate)
        for part in parts if cells.complete[cell] else ():
            by_split.setdefault(part.split, {}).setdefault(cell, []).append(part)
    return [_split(split, parts, cells.series_numbers) for split, parts in by_split.items()]


def _split(split: str, parts: Mapping[int, Sequence[ImageValues]], series: Mapping[tuple[str, ...], int]) -> FixedSplit:
    first = next(iter(parts.values()))[0]
    names, patients = np.unique(first.patients, return_inverse=True)
    case = [(column, name) for column, name in enumerate(first.series) if (split, "case", *name) in series]
    shown = np.asarray((first.counts[..., 0] + first.counts[..., 2] > 0).any(axis=0))
    averaged = np.isin(first.classes, first.averaged)
    no_histogram = np.zeros((len(first.classes), 0))
    ones = dict.fromkeys(("tp", "fp", "fn", "tn"), np.ones(len(first.classes)))
    counts = Counts(**ones, positives=no_histogram, negatives=no_histogram)
    metrics = dataset_metrics(counts, first.classes, shown=shown, averaged=averaged)
    # Imported results have per-case values without counts: nothing can be pooled.
    names_of_metrics = metrics if len(first.classes) else ()
    pooled = [name for name in names_of_metrics if name[1] != "auc" and (split, "dataset", *name) in series]
    return FixedSplit(
        case_series=np.array([series[split, "case", *name] for _, name in case], dtype=np.int64),
        pooled_series=np.array([series[split, "dataset", *name] for name in pooled], dtype=np.int64),
        pooled_names=pooled,
        classes=first.classes,
        shown=shown,
        averaged=averaged,
        patients=len(names),
        cells={
            cell: _sums(replicates, patients, [column for column, _ in case])
            for cell, replicates in parts.items()
            if all(_shape(replicate) == _shape(first) for replicate in replicates)
        },
    )


def _shape(images: ImageValues) -> tuple[object, ...]:
    return images.images, images.series, images.classes


def _sums(replicates: Sequence[ImageValues], patients: IntArray, columns: Sequence[int]) -> PatientSums:
    values = np.stack([replicate.values[:, columns] for replicate in replicates])
    defined = ~np.isnan(values)
    count = defined.sum(axis=0)
    means = np.where(count > 0, np.where(defined, values, 0.0).sum(axis=0) / np.maximum(count, 1), 0.0)
    pixels = np.stack([replicate.counts for replicate in replicates], axis=1).astype(np.float64)
    member = (np.arange(patients.max(initial=-1) + 1)[:, None] == patients).astype(np.float64)
    return PatientSums(
        values=member @ means,
        defined=member @ (count > 0).astype(np.float64),
        pixels=np.tensordot(member, pixels, axes=1),
    )
