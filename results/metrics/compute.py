"""Compute the results table from the stored counts of each replicate."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from results import schema
from results.metrics.background import BACKGROUND, with_background
from results.metrics.cases import Cases
from results.metrics.count_arrays import confidence_bins, pixel_counts, rows_of_split, shape_metrics
from results.metrics.formulas import OVERALL, PER_IMAGE, Confidence, Counts, FloatArray, per_class_formulas, ratio

if TYPE_CHECKING:
    import pyarrow as pa

Flags = NDArray[np.bool_]
ScoringKey = tuple[str, str]
"""Digest of a target stage and its `scoring`."""
TEST = "test"
"""Prefix of the names of splits with test images."""


@dataclass(frozen=True, kw_only=True)
class MetricSettings:
    """Settings of the metrics.

    Args:
        classes: Scored classes; None for all except the background.
        background: Whether the background is scored as well.
        min_images: Number of images whose truth must contain a class for it to enter the macro mean of a replicate.
    """

    classes: tuple[str, ...] | None = None
    background: bool = False
    min_images: int = 1


class MetricRow(NamedTuple):
    """One metric value of a replicate, None where undefined; `images` counts the cases behind it.

    A case is an image, or a volume with all of its slices.
    """

    split: str
    aggregation: str
    class_: str
    metric: str
    value: float | None
    images: int


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageValues:
    """Metrics of each image of a split: `values` (images, series), NaN where undefined. A volume is one image.

    `images` and `patients` name the rows, images in ascending order; `series` are (class, metric). `counts`
    (images, classes, 4) are tp, fp, fn, tn in pixels; `averaged` names the classes in the pooled macro mean.
    """

    split: str
    images: tuple[str, ...]
    patients: tuple[str, ...]
    series: tuple[tuple[str, str], ...]
    values: FloatArray
    classes: tuple[str, ...]
    averaged: tuple[str, ...]
    counts: NDArray[np.int64]


class StageMetrics(NamedTuple):
    """All metric values of a target stage, and those of each of its test images."""

    rows: list[MetricRow]
    images: list[ImageValues]


def collect(
    study: str,
    replicates: Iterable[schema.ReplicateRecord],
    load: Callable[[schema.ReplicateRecord], "tuple[pa.Table, pa.Table]"],
    settings: MetricSettings,
    *,
    further: Sequence[str] = (),
) -> "pa.Table":
    """Return the results table, with the columns of `further` factors.

    `load` returns the scores and images of a stage; called once per digest and scoring.
    """
    replicates = list(replicates)
    return results_table(study, replicates, measure_all(replicates, load, settings), further=further)


def measure_all(
    replicates: Iterable[schema.ReplicateRecord],
    load: Callable[[schema.ReplicateRecord], "tuple[pa.Table, pa.Table]"],
    settings: MetricSettings,
    known: Mapping[ScoringKey, StageMetrics] = MappingProxyType({}),
) -> Mapping[ScoringKey, StageMetrics]:
    """Measure each target stage once, also if several replicates share it; `known` stages are not measured again."""
    stages = {(replicate.digest, replicate.scoring): replicate for replicate in replicates}
    return {
        key: known[key] if key in known else measure(*load(replicate), settings) for key, replicate in stages.items()
    }


def results_table(
    study: str,
    replicates: Iterable[schema.ReplicateRecord],
    measured: Mapping[ScoringKey, StageMetrics],
    *,
    further: Sequence[str] = (),
) -> "pa.Table":
    """Return one row per replicate and metric value."""
    import pyarrow as pa

    names = [*schema.FACTORS, *further]
    records = [
        (study, *_key_columns(replicate, names), *row, replicate.digest, replicate.scoring)
        for replicate in replicates
        for row in measured[replicate.digest, replicate.scoring].rows
    ]
    columns = schema.results(further)
    values = zip(*records, strict=True) if records else [()] * len(columns)
    arrays = [pa.array(column, field.type) for column, field in zip(values, columns, strict=True)]
    return pa.Table.from_arrays(arrays, schema=columns)


def replicate_rows(scores: "pa.Table", images: "pa.Table", settings: MetricSettings) -> list[MetricRow]:
    """Return every metric of one target stage, per split, aggregation and class; see `measure`."""
    return measure(scores, images, settings).rows


def measure(scores: "pa.Table", images: "pa.Table", settings: MetricSettings) -> StageMetrics:
    """Return every metric of one target stage, per split, aggregation and class.

    `dataset` sums counts over images first, `case` averages the images' metrics; an image counts for a class where its
    truth has it. The slices of a volume are summed first, so that a volume is one image. `macro` averages the classes
    that occur, `weighted` by their truth pixels. Metrics of `PER_IMAGE` are per case only; every image counts for every
    class that is annotated in it. `confidence`, `ece` and `ece_foreground` are over all classes and have class `macro`.
    """
    if settings.background and BACKGROUND not in scores["class"].to_pylist():
        scores = with_background(scores, images)
    names = _classes(scores, settings)
    rows: list[MetricRow] = []
    by_image: list[ImageValues] = []
    for split in scores["split"].unique().to_pylist():
        scores_of_split, images_of_split = rows_of_split(scores, split), rows_of_split(images, split).sort_by("image")
        cases = Cases.of(images_of_split)
        counts = cases.counts(pixel_counts(scores_of_split, names))
        bins = {prefix: cases.bins(of_images) for prefix, of_images in confidence_bins(images_of_split).items()}
        shapes = {name: of_images[cases.first] for name, of_images in shape_metrics(scores_of_split, names).items()}
        values = _case_values(counts, bins, names) | _shape_values(shapes, counts.truth > 0, names)
        values_of_split = chain(
            _dataset_rows(counts, names, settings.min_images),
            _overall_rows(bins),
            (("case", *series, *_mean(column)) for series, column in values.items()),
            _threshold_rows(scores_of_split, names, len(cases)),
        )
        rows += [
            MetricRow(split, aggregation, class_, metric, None if math.isnan(value) else value, n)
            for aggregation, class_, metric, value, n in values_of_split
        ]
        if split.startswith(TEST):
            by_image.append(_image_values(split, cases, values, counts, names, settings.min_images))
    return StageMetrics(rows, by_image)


def _image_values(
    split: str,
    cases: Cases,
    values: Mapping[tuple[str, str], FloatArray],
    counts: Counts,
    names: list[str],
    min_images: int,
) -> ImageValues:
    averaged = _averaged_classes(counts, min_images)
    return ImageValues(
        split=split,
        images=cases.names,
        patients=cases.patients,
        series=tuple(values),
        values=np.stack([*values.values()], axis=1),
        classes=tuple(names),
        averaged=tuple(name for name, used in zip(names, averaged, strict=True) if used),
        counts=np.stack([counts.tp, counts.fp, counts.fn, counts.tn], axis=-1).astype(np.int64),
    )


def _key_columns(replicate: schema.ReplicateRecord, names: Sequence[str]) -> tuple[object, ...]:
    factors = [replicate.factors[name] for name in names]
    sizes = replicate.labelled_fraction, replicate.labelled_images
    return *factors, *sizes, replicate.updates, replicate.fold, replicate.seed


RowOfSplit = tuple[str, str, str, float, int]


def dataset_metrics(
    counts: Counts, names: Sequence[str], *, shown: Flags, averaged: Flags
) -> dict[tuple[str, str], FloatArray]:
    """Return every metric of counts summed over images, (..., classes), by class and metric, each (...).

    Args:
        counts: Summed counts; metrics of empty score histograms are NaN.
        names: The classes.
        shown: (classes,), which classes occur in the truth; the others are undefined.
        averaged: (classes,), which classes enter `macro` and `weighted`.
    """
    metrics: dict[tuple[str, str], FloatArray] = {}
    for metric, formula in per_class_formulas(counts).items():
        values = formula(counts)
        per_class = np.where(shown, values, np.nan)
        metrics |= {(name, metric): per_class[..., index] for index, name in enumerate(names)}
        metrics["macro", metric] = _macro(values, averaged)
        metrics["weighted", metric] = _weighted(values, averaged, counts.truth)
    return metrics


def _averaged_classes(counts: Counts, min_images: int) -> Flags:
    """Return which classes enter the pooled macro mean: those in the truth of enough images."""
    shown_by = (counts.truth > 0).sum(axis=0)
    return np.asarray((shown_by > 0) & (shown_by >= min_images))


def _dataset_rows(counts: Counts, names: list[str], min_images: int) -> Iterator[RowOfSplit]:
    images, shown = len(counts.truth), np.asarray((counts.truth > 0).any(axis=0))
    annotated = dict(zip(names, (counts.pixels > 0).sum(axis=0).tolist(), strict=True))
    summed = counts.summed()
    averaged = _averaged_classes(counts, min_images)
    for series, value in dataset_metrics(summed, names, shown=shown, averaged=averaged).items():
        yield "dataset", *series, float(value[0]), annotated.get(series[0], images)
    for index in np.flatnonzero(~shown):
        pixels = float(summed.fp[0, index]) if annotated[names[index]] else math.nan
        yield "dataset", names[index], "false_positive_pixels", pixels, annotated[names[index]]


def _case_values(counts: Counts, bins: Mapping[str, Confidence], names: list[str]) -> dict[tuple[str, str], FloatArray]:
    """Return each metric of each image by class and metric."""
    shown = counts.truth > 0
    metrics: dict[tuple[str, str], FloatArray] = {}
    for metric, formula in per_class_formulas(counts).items():
        values = formula(counts)
        per_class = np.where(shown, values, np.nan)
        metrics |= {(name, metric): per_class[:, index] for index, name in enumerate(names)}
        metrics["macro", metric] = _macro(values, shown)
        metrics["weighted", metric] = _weighted(values, shown, counts.truth)
    for metric, formula in PER_IMAGE.items():
        values = formula(counts)
        metrics |= {(name, metric): values[:, index] for index, name in enumerate(names)}
        metrics["macro", metric] = _macro(values, counts.pixels > 0)
    return metrics | {("macro", metric): formula(bins[prefix]) for metric, (prefix, formula) in OVERALL.items()}


def _shape_values(
    shapes: Mapping[str, FloatArray], shown: Flags, names: list[str]
) -> dict[tuple[str, str], FloatArray]:
    """Return the metrics of shapes of each image by class and metric; none if they were not computed."""
    metrics: dict[tuple[str, str], FloatArray] = {}
    for metric, values in shapes.items():
        per_class = np.where(shown, values, np.nan)
        metrics |= {(name, metric): per_class[:, index] for index, name in enumerate(names)}
        # Which classes are measured depends on the truth alone; where they are present, this metric is defined.
        measured = ~np.isnan(shapes["nsd"])
        scored = shown & measured & np.array([name != BACKGROUND for name in names])
        metrics["macro", metric] = _macro(values, scored)
    return metrics


def _overall_rows(bins: Mapping[str, Confidence]) -> Iterator[RowOfSplit]:
    for metric, (prefix, formula) in OVERALL.items():
        confidence = bins[prefix]
        yield "dataset", "macro", metric, float(formula(confidence.summed())[0]), len(confidence.count)


def _threshold_rows(scores: "pa.Table", names: list[str], images: int) -> Iterator[RowOfSplit]:
    """Yield the thresholds of classes with `class_threshold`."""
    thresholds = dict(zip(*(scores[key].to_pylist() for key in ("class", "threshold")), strict=True))
    for name in names:
        if thresholds.get(name) is not None:
            yield "dataset", name, "threshold", thresholds[name], images


def _macro(values: FloatArray, averaged: Flags) -> FloatArray:
    return _weighted(values, averaged, np.ones_like(values))


def _weighted(values: FloatArray, averaged: Flags, weights: FloatArray) -> FloatArray:
    # An undefined class makes the mean undefined: without it, arms would average over different classes.
    weights = np.where(averaged, weights, 0.0)
    total = weights.sum(axis=-1)
    weighed = np.where(averaged, values * weights, 0.0).sum(axis=-1)
    return ratio(weighed, total)


def _mean(values: FloatArray) -> tuple[float, int]:
    defined = values[~np.isnan(values)]
    return (float(defined.mean()) if len(defined) else float("nan")), len(defined)


def _classes(scores: "pa.Table", settings: MetricSettings) -> list[str]:
    stored = scores["class"].unique().to_pylist()
    if settings.classes is None:
        return [name for name in stored if settings.background or name != BACKGROUND]
    if missing := [name for name in settings.classes if name not in stored]:
        raise ValueError(
            f"metrics.classes names {', '.join(missing)}; allowed: {', '.join(stored)}; name scored classes"
        )
    extra = [BACKGROUND] if settings.background and BACKGROUND in stored else []
    return list(dict.fromkeys([*extra, *settings.classes]))
