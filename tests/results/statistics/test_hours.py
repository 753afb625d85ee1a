"""Hours of annotation that a baseline needs for the result of a cell."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from results.statistics.compare import compare
from results.statistics.design import Design, PlannedCell
from tests.support.compared import SIZES, Value, design, digest, key, results

HOURS_OF_MASK = 8 / 60
FRACTIONS = (0.25, 0.5, 1.0)
Rows = dict[tuple[str, float], dict[str, Any]]


def with_hours(extra: Mapping[str, float], plain: Design | None = None) -> Design:
    """Return a design in which a mask costs 8 minutes and the pretraining of a pathway costs the given hours."""
    cells = [
        PlannedCell(
            arm=key(pathway), level=fraction, labelled_fraction=fraction, labelled_images=SIZES[fraction],
            annotation_hours=SIZES[fraction] * HOURS_OF_MASK + hours,
        )
        for pathway, hours in extra.items()
        for fraction in FRACTIONS
    ]  # fmt: skip
    return replace(plain or design(), cells=cells)


def rising(advantage: float = 0.0, noise: float = 0.01) -> Value:
    """Return scores that increase by 0.1 with every doubling of the masks; `encode` is better by `advantage`."""

    def value(pathway: str, fraction: float, fold: int, seed: int) -> float:
        random = np.random.default_rng([len(pathway), int(100 * fraction), fold, seed])
        difference = advantage * (pathway == "encode")
        return float(0.6 + 0.1 * np.log2(fraction) + difference + random.normal(0, noise))

    return value


def rows(value: Value, extra: Mapping[str, float], plain: Design | None = None) -> Rows:
    table = compare(results(value), with_hours(extra, plain)).comparisons
    return {(row["pathway"], row["labelled_fraction"]): row for row in table.to_pylist()}


def test_hours_are_those_of_the_masks_that_the_baseline_needs() -> None:
    row = rows(rising(0.1), {"none": 0, "encode": 0.5})["encode", 0.25]
    assert row["annotation_hours"] == pytest.approx(8 * HOURS_OF_MASK + 0.5)
    for end in ("", "_low", "_high"):
        assert row[f"hours_equivalent{end}"] == pytest.approx(row[f"labels_equivalent{end}"] * HOURS_OF_MASK)
    assert row["hours_equivalent_side"] == "within"
    assert row["hours_saved"] == pytest.approx(row["hours_equivalent"] - row["annotation_hours"])
    assert row["hours_saved"] == pytest.approx((row["labels_saved"]) * HOURS_OF_MASK - 0.5)


def test_a_pretrained_baseline_has_its_own_hours() -> None:
    row = rows(rising(0.1), {"none": 2, "encode": 0.5})["encode", 0.25]
    assert row["hours_equivalent"] == pytest.approx(row["labels_equivalent"] * HOURS_OF_MASK + 2)


def test_p_is_that_of_the_difference_to_the_baseline_at_equal_hours() -> None:
    value = rising(0.05, noise=0.05)
    pairs = [(fold, seed) for fold in range(5) for seed in range(2)]
    weight = np.log(12 / 8) / np.log(16 / 8)  # the arm costs as much as 12 masks
    differences = np.array([
        value("encode", 0.25, *pair) - (1 - weight) * value("none", 0.25, *pair) - weight * value("none", 0.5, *pair)
        for pair in pairs
    ])  # fmt: skip
    t = differences.mean() / (differences.std(ddof=1) * np.sqrt(1 / 10 + 1 / 4))
    assert p_alone(value, 0.25, 4 * HOURS_OF_MASK) == pytest.approx(2 * stats.t.sf(abs(t), 9))


def p_alone(value: Value, fraction: float, extra: float) -> float:
    """Return p at equal hours with `encode` at one fraction only, so that nothing is adjusted."""
    table = results(value)
    in_comparison = [row["pathway"] == "none" or row["labelled_fraction"] == fraction for row in table.to_pylist()]
    complete_design = with_hours({"none": 0, "encode": extra})
    cells = [cell for cell in complete_design.cells if cell.arm == key("none") or cell.level == fraction]
    comparisons = compare(table.filter(in_comparison), replace(complete_design, cells=cells)).comparisons.to_pylist()
    (p,) = [row["p_hours"] for row in comparisons if row["pathway"] == "encode"]
    return float(p)


def test_p_at_equal_hours_is_adjusted_by_holm_over_the_family() -> None:
    value = rising(0.05, noise=0.05)
    comparisons = rows(value, {"none": 0, "encode": 1})
    expected = multipletests([p_alone(value, fraction, 1) for fraction in FRACTIONS], method="holm")[1]
    assert [comparisons["encode", fraction]["p_hours"] for fraction in FRACTIONS] == pytest.approx(list(expected))


def test_an_arm_whose_pretraining_costs_more_than_its_masks_saves_masks_and_costs_hours() -> None:
    row = rows(rising(0.1), {"none": 0, "encode": 3})["encode", 0.25]
    assert row["labels_saved"] > 0 > row["hours_saved"]
    assert row["p_hours"] < 0.05


def test_nothing_is_saved_if_the_interval_contains_the_hours_of_the_arm() -> None:
    row = rows(rising(0.1), {"none": 0, "encode": 8 * HOURS_OF_MASK})["encode", 0.25]
    assert row["labels_saved"] > 0
    assert row["hours_equivalent_low"] < row["annotation_hours"] < row["hours_equivalent_high"]
    assert row["hours_saved"] is None
    assert row["p_hours"] > 0.05


def test_nothing_is_saved_without_a_significant_difference_at_equal_labels() -> None:
    comparisons = rows(rising(0.0), {"none": 0, "encode": 3})
    assert all(row["hours_saved"] is None for row in comparisons.values())
    assert comparisons["encode", 1.0]["p_adjusted"] > 0.05


@pytest.mark.parametrize(("advantage", "side", "end"), [(0.5, "above", "low"), (-0.5, "below", "high")])
def test_outside_of_the_measured_range_only_one_limit_is_known(advantage: float, side: str, end: str) -> None:
    row = rows(rising(advantage), {"none": 0, "encode": 1})["encode", 0.5]
    limit = {"low": 32, "high": 8}[end] * HOURS_OF_MASK
    other = {"low": "high", "high": "low"}[end]
    assert (row["hours_equivalent"], row["hours_saved"], row["hours_equivalent_side"]) == (None, None, side)
    assert row[f"hours_equivalent_{end}"] == pytest.approx(limit)
    assert np.isinf(row[f"hours_equivalent_{other}"])


@pytest.mark.parametrize("hours_of_baseline", [None, 1.0])
def test_without_the_hours_of_the_baseline_no_hours_are_reported(hours_of_baseline: float | None) -> None:
    cells = [
        replace(cell, annotation_hours=hours_of_baseline if cell.arm == key("none") else 1.0)
        for cell in with_hours({"none": 0, "encode": 0}).cells
    ]
    table = compare(results(rising(0.1)), replace(design(), cells=cells)).comparisons.to_pylist()
    names = ("hours_equivalent", "hours_equivalent_low", "hours_equivalent_high", "p_hours", "hours_saved")
    assert {row[name] for row in table for name in names} == {None}
    assert {row["hours_equivalent_side"] for row in table} == {""}
    assert any(row["labels_equivalent"] is not None for row in table)


def test_one_shared_pretraining_run_supports_no_statement_on_hours() -> None:
    ancestors = {
        digest("encode", fraction, fold, seed): ("run",)
        for fraction in FRACTIONS for fold in range(5) for seed in range(2)
    }  # fmt: skip
    comparisons = rows(rising(0.1), {"none": 0, "encode": 1}, replace(design(), ancestors=ancestors))
    assert {(row["p_hours"], row["hours_saved"]) for row in comparisons.values()} == {(None, None)}
