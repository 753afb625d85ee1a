"""Columns of every table between the store and the report; importing this loads no heavy library."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pyarrow as pa

ComparisonRecord = Mapping[str, Any]
"""A row of the comparisons table by column."""
FACTORS = ("architecture", "backbone", "initial_weights", "pathway")
SERIES = ("split", "aggregation", "class", "metric")
"""Columns that identify a value within a replicate."""
HEADLINE = {"split": "test", "aggregation": "dataset", "class": "macro", "metric": "mean_iou"}
"""The series that the report's answer is based on."""
Level = Literal["labelled_fraction", "labelled_images"]
"""The column of labelled data that a study sets, equal in all replicates of a cell."""
SIZES = ("labelled_fraction", "labelled_images")
EVALUATION = b"evaluation"
"""Key of the metadata of a table of scores: JSON with the evaluated `size`, `tta`, the names of test-time
augmentation, and `postprocess`, the rule of `results.postprocessing.rules` of each class."""
POSTPROCESSED = "_postprocessed"
"""End of the names of splits with the scores of post-processed masks."""
SIGNIFICANT = 0.05
"""Adjusted p below which a difference is marked."""
CONFIDENCE_BINS = 20
SHAPE_METRICS = ("hd95", "assd", "nsd", "cl_dice", "lesion_precision", "lesion_recall", "lesion_f1")
"""Metrics of contours, centre lines and lesions."""
DISTANCES = frozenset({"hd95", "assd"})
"""Metrics in mm where the target data state the size of pixels, else in pixels of the image."""
HIGHER_IS_BETTER = frozenset({
    "mean_iou", "dice", "dice_empty_is_one", "precision", "recall", "f1", "accuracy", "auc", *SHAPE_METRICS,
}).difference(DISTANCES)  # fmt: skip
LOWER_IS_BETTER = frozenset({"ece", "ece_foreground", "classwise_ece", "false_positive_pixels"}) | DISTANCES
PER_CASE_ONLY = frozenset({"dice_empty_is_one", *SHAPE_METRICS})
"""Metrics without the aggregation `dataset`."""
NON_NEGATIVE = frozenset({"false_positive_pixels"}) | DISTANCES
UNIT_INTERVAL = (HIGHER_IS_BETTER | LOWER_IS_BETTER | {"confidence", "threshold"}) - NON_NEGATIVE
"""Metrics within 0..1."""
DEFAULT_ROPE = 0.01
"""Half width of the region of practical equivalence of metrics within 0..1."""
METRIC_NAMES = {
    "mean_iou": "mean IoU",
    "dice": "Dice",
    "dice_empty_is_one": "Dice with empty masks",
    "hd95": "95th percentile Hausdorff distance",
    "assd": "average symmetric surface distance",
    "nsd": "normalised surface Dice",
    "cl_dice": "centre line Dice",
    "lesion_precision": "lesion-wise precision",
    "lesion_recall": "lesion-wise recall",
    "lesion_f1": "lesion-wise F1 score",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1 score",
    "accuracy": "accuracy",
    "auc": "AUC",
    "ece": "expected calibration error",
    "ece_foreground": "expected calibration error (foreground)",
    "classwise_ece": "classwise expected calibration error",
    "false_positive_pixels": "false positive pixels",
    "confidence": "mean confidence",
    "threshold": "probability threshold",
    "distance": "distance",
    "distance_pixels": "distance in pixels",
    "mse_pixels": "mean squared error in pixels",
    "loss": "loss",
    "parameters": "number of parameters",
    "seconds": "training time (s)",
}
"""Printed names of metrics and validation scores in figures, headings and sentences."""
STAGE_METRICS = ("mse_pixels", "distance_pixels", "distance", "mean_iou")
"""Scores of localisation stages (`models.tasks.localisation`); mean_iou only of boxes."""
STAGE_SPLITS = ("validation", "test")
METRICS = tuple(sorted(HIGHER_IS_BETTER | LOWER_IS_BETTER | {"confidence", "threshold"}))


@dataclass(frozen=True, kw_only=True)
class ReplicateRecord:
    """One fold and seed of a cell, and the target stage that holds its scores.

    Args:
        factors: The four of `FACTORS` and any further ones, in column order.
        digest: Of the target stage.
        scoring: Identifies one of several evaluations of the stage.
    """

    factors: Mapping[str, str]
    labelled_fraction: float
    labelled_images: int
    updates: int
    fold: int
    seed: int
    digest: str
    scoring: str = ""


def direction(metric: str) -> int:
    """Return 1 if higher is better, -1 if lower is better, 0 if neither (or for an unknown metric)."""
    return int(metric in HIGHER_IS_BETTER) - int(metric in LOWER_IS_BETTER)


def default_aggregation(metric: str) -> str:
    """Return `dataset`, or `case` for metrics without a pooled value."""
    return "case" if metric in PER_CASE_ONLY else "dataset"


def metric_name(metric: str, unit: str = "") -> str:
    """Return the printed name of a metric, or of a validation score such as `val/dice`; unknown ones are unchanged.

    `unit` is that of a distance; see `unit_of`.
    """
    part, _, name = metric.rpartition("/")
    printed = f"{'validation ' if part == 'val' else ''}{METRIC_NAMES[name]}" if name in METRIC_NAMES else metric
    return with_unit(printed, unit)


def metric_title(metric: str, unit: str = "") -> str:
    """Return the printed name of a metric, capitalised, for axes and headings."""
    return _capitalised(metric_name(metric, unit))


def with_unit(name: str, unit: str) -> str:
    """Return the name of a metric with its unit, if it has one."""
    return f"{name} in {unit}" if unit else name


def unit_of(records: Sequence[ComparisonRecord]) -> str:
    """Return the unit of the metric of comparisons, "" if it has none, or if these have several or do not state it."""
    units = {record.get("metric_unit") or "" for record in records}
    return units.pop() if len(units) == 1 else ""


def factor_title(factor: str) -> str:
    """Return the printed name of a factor column, capitalised."""
    return _capitalised(factor.replace("_", " "))


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


def direction_of(record: ComparisonRecord) -> int:
    """Return the direction of the metric of a comparison; tables of version 0.2.0 and earlier do not contain it."""
    known = record.get("direction")
    return direction(record["metric"]) if known is None else int(known)


def factor_columns(columns: Sequence[str]) -> tuple[str, ...]:
    """Return the factors of a results, comparisons or tests table from its column names."""
    return tuple(columns[columns.index("study") + 1 : columns.index("labelled_fraction")])


def scores() -> "pa.Schema":
    """One row per image x class x split of a target stage, in pixels at the evaluated size.

    `positives` and `negatives` count truth-positive and truth-negative pixels by predicted score, in the bins of
    `models.score_bins` (earlier versions: in 200 equal bins). `threshold` is the probability threshold of a class
    with `class_threshold`, else null. `score_sums` are the sums of the scores in 20 equal bins over 0..1. Exclusive
    classes include the background. Tables of earlier versions have neither `score_sums` nor rows of the background.
    The columns of `results.metrics.surface.ShapeValues` are null for the background and without `metrics.tolerance`;
    those of a volume are in the rows of its first slice and null in the others.
    """
    import pyarrow as pa

    histogram = pa.list_(pa.int32())
    return _schema(
        {"image": pa.string(), "class": pa.string(), "split": pa.string()}
        | dict.fromkeys(("tp", "fp", "fn", "tn"), pa.int64())
        | dict.fromkeys(("positives", "negatives"), histogram)
        | {"threshold": pa.float64(), "score_sums": pa.list_(pa.float64())}
        | dict.fromkeys(("hd95", "assd", "nsd", "cl_dice"), pa.float64())
        | dict.fromkeys(("lesion_tp", "lesion_fp", "lesion_fn"), pa.int64())
    )


def images() -> "pa.Schema":
    """One row per image x split of a target stage: 20 confidence bins over 0..1, confusion of classes.

    `confidence_*` count all pixels (where classes overlap: all pixel-class pairs), `foreground_*` those that are
    foreground in the truth or in the prediction at the stage's threshold. `foreground_*` are null in tables derived
    at another threshold without the network, and missing in those of earlier versions. `confusion` is row-major
    truth x predicted with the background first, null where classes overlap. `volume` is the name of the volume that an
    image is a slice of, null for single images and missing in tables of earlier versions.
    """
    import pyarrow as pa

    return _schema(
        dict.fromkeys(("image", "patient", "split"), pa.string())
        | {
            "confidence_count": pa.list_(pa.int64()),
            "confidence_sum": pa.list_(pa.float64()),
            "confidence_correct": pa.list_(pa.int64()),
            "foreground_count": pa.list_(pa.int64()),
            "foreground_sum": pa.list_(pa.float64()),
            "foreground_correct": pa.list_(pa.int64()),
            "confusion": pa.list_(pa.int64()),
            "volume": pa.string(),
        }
    )


def stored_stage_scores() -> "pa.Schema":
    """One row per split and metric of a localisation stage. `fingerprint` identifies the test images."""
    import pyarrow as pa

    return _schema(
        {"split": pa.string(), "metric": pa.string(), "value": pa.float64(), "images": pa.int64()}
        | {"fingerprint": pa.string()}
    )


def stage_scores(further: Sequence[str] = ()) -> "pa.Schema":
    """One row per run of a localisation stage x split x metric; `note` says why a value is null.

    Factors have the values of all arms that share the run. The columns of labelled data, class and aggregation are
    empty. `fold` is null for data other than the target's.
    """
    import pyarrow as pa

    return _schema(
        _cell(further)
        | {"stage": pa.string(), "seed": pa.int64(), "fold": pa.int64(), "digest": pa.string()}
        | dict.fromkeys(SERIES, pa.string())
        | {"value": pa.float64(), "images": pa.int64(), "note": pa.string()}
    )


def results(further: Sequence[str] = ()) -> "pa.Schema":
    """One row per replicate x split x aggregation x class x metric; `images` counts the images behind the value.

    A volume counts as one image.

    `digest` and `scoring` identify the target stage and its evaluation.
    """
    import pyarrow as pa

    return _schema(
        _cell(further)
        | dict.fromkeys(("updates", "fold", "seed"), pa.int64())
        | dict.fromkeys(SERIES, pa.string())
        | {"value": pa.float64(), "images": pa.int64(), "digest": pa.string(), "scoring": pa.string()}
    )


def comparisons(further: Sequence[str] = ()) -> "pa.Schema":
    """One row per cell x baseline x split x aggregation x class x metric.

    - `n` counts replicates (folds x seeds) behind `mean`; `baseline` names the family, "" without one.
    - `generalises_to` is the claim of p (without p, of the interval), `unit` what varied: `results.statistics.design`.
    - `effect_size` is the difference over its standard deviation (d_z).
    - `p_better`, `p_equivalent`, `p_worse`: probabilities that the difference, in the direction of the metric, is
      above, within or below the region of practical equivalence -`rope`..`rope`.
    - `direction` is 1 where a higher value of the metric is better, -1 where a lower one is, 0 where neither is.
    - `provisional`: the cell or its baseline lacks replicates, so there is no test.
    - `labels_equivalent` is how many labelled images the baseline needs for the same mean; `labels_equivalent_side` is
      "below", "within" or "above" its measured range, "" where it cannot be tested; ends outside are -inf or inf.
      `labels_saved` is given only where `p_adjusted` is below 0.05.
    - `annotation_hours`: mean hours of annotation that the replicates of the cell read, null if their cost is unknown.
    - `hours_equivalent` and its ends and side are `labels_equivalent` in hours of annotation of the baseline. `p_hours`
      is of the difference to the baseline at equal hours, adjusted like `p_adjusted`. `hours_saved` is given only where
      both are below 0.05 and the interval excludes the hours of the cell.
    - `difference_to_best` and `p_to_best` (Holm over all pairs of the column) are against the cell with the best mean
      at the same labelled data, null in that cell itself.
    - `undefined` says which replicates or images the mean leaves out, and why; "" where all values are defined.
    - `metric_unit` is "mm" or "pixels" for distances, "" for other metrics and for imported results.
    """
    import pyarrow as pa

    number = pa.float64()
    return _schema(
        _cell(further)
        | dict.fromkeys(SERIES, pa.string())
        | dict.fromkeys(("mean", "sd_seeds", "sd_folds", "ci_low", "ci_high"), number)
        | {"n": pa.int64(), "baseline": pa.string()}
        | dict.fromkeys(("difference", "p", "p_adjusted", "effect_size"), number)
        | {"test": pa.string(), "unit": pa.string(), "generalises_to": pa.string()}
        | dict.fromkeys(("p_better", "p_equivalent", "p_worse", "rope"), number)
        | {"direction": pa.int64()}
        | {"provisional": pa.bool_()}
        | dict.fromkeys(("labels_equivalent", "labels_equivalent_low", "labels_equivalent_high"), number)
        | {"labels_equivalent_side": pa.string(), "labels_saved": number, "note": pa.string()}
        | dict.fromkeys(("difference_to_best", "p_to_best"), number)
        | {"undefined": pa.string(), "metric_unit": pa.string()}
        | dict.fromkeys(("annotation_hours", "hours_equivalent", "hours_equivalent_low"), number)
        | {"hours_equivalent_high": number, "hours_equivalent_side": pa.string()}
        | dict.fromkeys(("p_hours", "hours_saved"), number)
    )


def budgets(further: Sequence[str] = ()) -> "pa.Schema":
    """One row per arm x budget of `compare.hours` x split x aggregation x class x metric.

    - `hours` is the budget of annotation; `hours_min` and `hours_max` are the range in which the arm was measured.
    - `measured`: the budget is within this range. Else the row has no numbers.
    - `mean`, `ci_low`, `ci_high`: interpolated in log(hours) between the cells of the arm, within each replicate.
      `labelled_images` and `labelled_fraction` are the labelled data that the arm has at this budget.
    - `best` is the arm with the best mean of a budget. `difference_to_best` and `p_to_best` are against it; p is
      adjusted by Holm over all pairs of arms and all budgets of a series.
    - `provisional`: the study lacks replicates, so that there is no best arm and no p.
    """
    import pyarrow as pa

    number = pa.float64()
    return _schema(
        _cell(further)
        | {"hours": number, "hours_min": number, "hours_max": number, "measured": pa.bool_()}
        | dict.fromkeys(SERIES, pa.string())
        | dict.fromkeys(("mean", "ci_low", "ci_high"), number)
        | {"best": pa.bool_(), "difference_to_best": number, "p_to_best": number}
        | {"unit": pa.string(), "generalises_to": pa.string(), "direction": pa.int64()}
        | {"metric_unit": pa.string(), "provisional": pa.bool_(), "note": pa.string()}
    )


def forecasts(further: Sequence[str] = ()) -> "pa.Schema":
    """One row per arm x multiple of its largest amount of labels x series; of mean IoU and Dice, class macro.

    - `labelled_images` and `labelled_fraction` are those of the forecast, `multiple` times the largest measured ones.
    - `mean` is the expected score, `pi_low` and `pi_high` the ends of the 90 % prediction interval of the mean that
      the same number `n` of replicates would measure. Null where `note` says why there is no forecast.
    - `amounts` counts the measured amounts of labels; `weight_*` are the posterior probabilities of the families of
      curves (`results.statistics.forecast.families`).
    """
    import pyarrow as pa

    number = pa.float64()
    return _schema(
        _cell(further)
        | {"multiple": pa.int64(), "amounts": pa.int64(), "n": pa.int64()}
        | dict.fromkeys(SERIES, pa.string())
        | dict.fromkeys(("mean", "pi_low", "pi_high"), number)
        | dict.fromkeys(("weight_power_law", "weight_exponential", "weight_gaussian_process"), number)
        | {"note": pa.string()}
    )


def paired_tests(further: Sequence[str] = ()) -> "pa.Schema":
    """One row per paired test or interval of a difference with a baseline.

    `unit` is what was paired, `pairs` how many; `generalises_to` is the claim of the result: "new training sets",
    "these models, new patients" or "this one pretraining run". `tests` is how many the Holm adjustment was over: all
    arms and sizes of one baseline, series, `test` and `unit`. `effect_size` is d_z, `hedges_g` the same without its
    bias in small samples, `rank_biserial` -1..1; `ci_low` and `ci_high` are the ends of the difference's interval.
    """
    import pyarrow as pa

    number = pa.float64()
    return _schema(
        _cell(further)
        | dict.fromkeys((*SERIES, "baseline", "test", "unit", "generalises_to"), pa.string())
        | {"pairs": pa.int64(), "difference": number, "sd_difference": number, "statistic": number}
        | {"degrees_of_freedom": pa.int64(), "p": number, "p_adjusted": number, "tests": pa.int64()}
        | dict.fromkeys(("effect_size", "hedges_g", "rank_biserial", "ci_low", "ci_high"), number)
        | {"note": pa.string()}
    )


def _cell(further: Sequence[str]) -> "dict[str, pa.DataType]":
    import pyarrow as pa

    names = dict.fromkeys(("study", *FACTORS, *further), pa.string())
    return names | {"labelled_fraction": pa.float64(), "labelled_images": pa.int64()}


def _schema(columns: "Mapping[str, pa.DataType]") -> "pa.Schema":
    import pyarrow as pa

    return pa.schema(list(columns.items()))
