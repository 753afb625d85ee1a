"""Comparisons in words: labels saved."""

import math
from typing import Any

import pytest

from results.report.grids import labels_saved
from results.report.page import Items
from results.statistics import design
from results.tables.layout import table
from results.tables.render import render
from results.tables.sentences import label_equivalence_sentences
from tests.results.tables.test_layout import compared, record

BASELINE = {"baseline": "pathway=none"}
CURVE = [record("none", share) | BASELINE for share in (0.25, 0.5, 1.0)]
"""The baseline with 8, 16 and 32 masks."""


def two_step(share: float = 0.25, **changes: object) -> dict[str, Any]:
    labels = {"labels_equivalent": 20.6, "labels_equivalent_low": 12.4, "labels_equivalent_high": 30.1}
    side = {"labels_equivalent_side": "within", "labels_saved": 20.6 - 32 * share}
    return record("two_step", share) | BASELINE | {"note": ""} | labels | side | changes


def outside_of_range(side: str, low: float, high: float, **changes: object) -> dict[str, Any]:
    ends = {"labels_equivalent_low": low, "labels_equivalent_high": high, "labels_equivalent_side": side}
    return two_step(**{"labels_equivalent": None, "labels_saved": None} | ends | changes)


def sentences(*records: dict[str, Any]) -> list[str]:
    return label_equivalence_sentences(compared(*CURVE, *records).to_pylist())


def test_the_masks_of_the_baseline_are_stated_with_their_interval_and_the_masks_saved() -> None:
    assert sentences(two_step()) == [
        "With 8 masks, two_step reached the result for which the baseline (pathway=none) needs about 21 "
        "masks (95 % interval 12 to 30): about 13 saved."
    ]


def test_an_arm_that_needs_more_masks_than_the_baseline_saves_none() -> None:
    (line,) = sentences(two_step(1.0, difference=-0.1))
    assert line.startswith("With 32 masks, two_step reached the result for which the baseline (pathway=none) needs")
    assert line.endswith("about 21 masks (95 % interval 12 to 30): about 11 more than the baseline.")


@pytest.mark.parametrize("p", [0.59, 0.05, None])
@pytest.mark.parametrize("side", ["within", "above", "below"])
def test_without_a_significant_difference_nothing_is_stated(p: float | None, side: str) -> None:
    assert sentences(two_step(p_adjusted=p, labels_equivalent_side=side)) == []


def test_nothing_is_stated_for_a_provisional_cell() -> None:
    assert sentences(two_step(provisional=True)) == []


def test_limits_outside_the_measured_range_are_stated_in_words() -> None:
    (line,) = sentences(two_step(labels_equivalent_low=-math.inf, labels_equivalent_high=math.inf))
    assert "needs about 21 masks (95 % interval fewer than 8 to more than 32)" in line


def test_numbers_are_rounded_according_to_the_width_of_their_interval() -> None:
    curve = [line | {"labelled_images": 100 * line["labelled_images"]} for line in CURVE]
    wide = {"labels_equivalent": 2063.0, "labels_equivalent_low": 1243.0, "labels_equivalent_high": 3011.0}
    (line,) = label_equivalence_sentences(compared(*curve, two_step(labelled_images=800, **wide)).to_pylist())
    assert "needs about 2100 masks (95 % interval 1200 to 3000): about 1300 saved." in line


def test_a_number_of_masks_is_not_rounded_to_zero() -> None:
    curve = [line | {"labelled_images": images} for line, images in zip(CURVE, (5, 20, 80), strict=True)]
    wide = {"labels_equivalent": 8.4, "labels_equivalent_low": -math.inf, "labels_equivalent_high": 46.0}
    (line,) = label_equivalence_sentences(compared(*curve, two_step(labelled_images=4, **wide)).to_pylist())
    assert "needs about 10 masks (95 % interval fewer than 5 to 50): about 4 saved." in line


def test_an_arm_above_the_measured_range_is_compared_with_the_largest_number_of_masks() -> None:
    assert sentences(outside_of_range("above", 20.2, math.inf)) == [
        "With 8 masks, two_step reached a better result than the baseline (pathway=none) with 32, the most masks "
        "measured; the 95 % interval of the masks that the baseline needs is 20 to more than 32."
    ]


def test_an_arm_below_the_measured_range_is_compared_with_the_smallest_number_of_masks() -> None:
    assert sentences(outside_of_range("below", -math.inf, 11.8)) == [
        "With 8 masks, two_step reached a worse result than the baseline (pathway=none) with 8, the fewest masks "
        "measured; the 95 % interval of the masks that the baseline needs is fewer than 8 to 12."
    ]


@pytest.mark.parametrize(
    ("side", "low", "high", "interval"),
    [
        ("above", math.exp(math.log(32)), math.inf, "more than 32"),
        ("below", -math.inf, math.exp(math.log(8)), "fewer than 8"),
    ],
)
def test_an_interval_fully_outside_the_measured_range_has_one_limit(
    side: str, low: float, high: float, interval: str
) -> None:
    (line,) = sentences(outside_of_range(side, low, high))
    assert line.endswith(f" the baseline needs is {interval}.")


def test_over_patients_the_sentence_is_about_the_trained_networks() -> None:
    (line,) = sentences(two_step(generalises_to=design.PATIENTS + design.AT_SETTINGS))
    assert line.startswith("With 8 masks, the trained networks of two_step reached the result")


def test_the_smallest_significant_number_of_masks_is_stated_and_not_the_largest_saving() -> None:
    (line,) = sentences(two_step(0.5, labels_equivalent=32.0), two_step(0.25, p_adjusted=0.2), two_step(1.0))
    assert line.startswith("With 16 masks")


def test_arms_are_named_by_all_factors_that_vary() -> None:
    lines = sentences(two_step(), two_step(backbone="resnet18"))
    assert lines[1].startswith("With 8 masks, resnet18 / two_step reached")


@pytest.mark.parametrize("changes", [{"baseline": ""}, {"labels_equivalent_side": ""}, {"baseline": "pathway=other"}])
def test_nothing_is_stated_without_the_curve_of_the_baseline(changes: dict[str, str]) -> None:
    assert sentences(two_step(**changes)) == []
    assert label_equivalence_sentences([]) == []


def test_sentences_are_only_below_the_table_of_mean_iou() -> None:
    recall = [line | {"metric": "recall"} for line in (*CURVE, two_step())]
    both = compared(*CURVE, two_step(), *recall)
    assert "With 8 masks" in render(table(both), "md")
    assert "With 8 masks" not in render(table(both, metric="recall"), "md")


@pytest.mark.parametrize(
    "cell", [two_step(), outside_of_range("above", 20.2, math.inf), outside_of_range("below", -math.inf, 11.8)]
)
def test_the_report_and_the_table_have_the_same_sentence(cell: dict[str, Any]) -> None:
    both = compared(*CURVE, cell)
    (block, *_) = labels_saved(both)
    assert isinstance(block, Items)
    assert tuple(block.items) == table(both).notes
