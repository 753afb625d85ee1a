import subprocess
import sys

import pytest

from results import schema
from results.metrics.formulas import PER_IMAGE


def test_importing_the_schema_loads_no_heavy_library() -> None:
    code = "import sys, results.schema; print(sorted({'pyarrow', 'pandas', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_further_factors_are_after_the_pathway() -> None:
    for table in (schema.results, schema.comparisons, schema.paired_tests):
        names = table(["segment.loss"]).names
        assert names.index("segment.loss") == names.index("pathway") + 1
        assert schema.factor_columns(names) == (*schema.FACTORS, "segment.loss")


CELL = [
    *("study", "architecture", "backbone", "initial_weights", "pathway"),
    *("labelled_fraction", "labelled_images"),
]
SERIES = ["split", "aggregation", "class", "metric"]


def test_results_have_the_published_columns_in_order() -> None:
    assert schema.results().names == [
        *CELL,
        *("updates", "fold", "seed"),
        *SERIES,
        *("value", "images", "digest", "scoring"),
    ]


def test_comparisons_have_the_published_columns_in_order() -> None:
    assert schema.comparisons().names == [
        *CELL,
        *SERIES,
        *("mean", "sd_seeds", "sd_folds", "ci_low", "ci_high", "n"),
        *("baseline", "difference", "p", "p_adjusted", "effect_size", "test", "unit", "generalises_to"),
        *("p_better", "p_equivalent", "p_worse", "rope", "direction", "provisional"),
        *("labels_equivalent", "labels_equivalent_low", "labels_equivalent_high", "labels_equivalent_side"),
        *("labels_saved", "note", "difference_to_best", "p_to_best", "undefined", "metric_unit"),
        *("annotation_hours", "hours_equivalent", "hours_equivalent_low", "hours_equivalent_high"),
        *("hours_equivalent_side", "p_hours", "hours_saved"),
    ]


def test_budgets_have_the_published_columns_in_order() -> None:
    assert schema.budgets().names == [
        *CELL,
        *("hours", "hours_min", "hours_max", "measured"),
        *SERIES,
        *("mean", "ci_low", "ci_high", "best", "difference_to_best", "p_to_best"),
        *("unit", "generalises_to", "direction", "metric_unit", "provisional", "note"),
    ]


def test_forecasts_have_the_published_columns_in_order() -> None:
    assert schema.forecasts().names == [
        *CELL,
        *("multiple", "amounts", "n"),
        *SERIES,
        *("mean", "pi_low", "pi_high"),
        *("weight_power_law", "weight_exponential", "weight_gaussian_process", "note"),
    ]


@pytest.mark.parametrize(("metric", "sign"), [("dice", 1), ("ece", -1), ("ece_foreground", -1), ("confidence", 0)])
def test_the_direction_of_a_metric_is_the_sign_of_an_improvement(metric: str, sign: int) -> None:
    assert schema.direction(metric) == sign


def test_all_metrics_except_pixel_counts_and_distances_are_between_0_and_1() -> None:
    assert set(schema.METRICS) - schema.UNIT_INTERVAL == {"false_positive_pixels", "hd95", "assd"}


def test_every_metric_has_a_printed_name() -> None:
    assert set(schema.METRICS) <= schema.METRIC_NAMES.keys()


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        ("mean_iou", "mean IoU"),
        ("val/dice", "validation Dice"),
        ("val/loss", "validation loss"),
        ("new_one", "new_one"),
    ],
)
def test_a_metric_is_printed_by_its_name(metric: str, name: str) -> None:
    assert schema.metric_name(metric) == name


def test_a_distance_has_a_unit() -> None:
    assert schema.metric_title("hd95", "mm") == "95th percentile Hausdorff distance in mm"
    assert schema.unit_of([{"metric_unit": "pixels"}] * 2) == "pixels"
    assert schema.unit_of([{"metric_unit": "pixels"}, {"metric_unit": "mm"}]) == ""
    assert schema.unit_of([{}, {"metric_unit": None}]) == ""  # tables of earlier versions


def test_titles_are_capitalised() -> None:
    assert schema.metric_title("mean_iou") == "Mean IoU"
    assert schema.metric_title("auc") == "AUC"
    assert schema.factor_title("initial_weights") == "Initial weights"


def test_metrics_without_a_pooled_value_are_shown_per_case() -> None:
    assert {name for name in schema.METRICS if schema.default_aggregation(name) == "case"} == schema.PER_CASE_ONLY
    assert {*PER_IMAGE, *schema.SHAPE_METRICS} == schema.PER_CASE_ONLY
