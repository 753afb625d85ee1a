"""Two studies in one table."""

import json
from typing import Any

import pytest

from results.schema import HEADLINE
from results.tables.layout import Table
from results.tables.render import FORMATS, render
from results.tables.side_by_side import side_by_side
from tests.results.tables.test_layout import compared, record

FIRST = (record("none", 0.5, mean=0.5), record("encode", 0.5, mean=0.6), record("boxes", 0.5))
SECOND = (record("none", 0.5, mean=0.55), record("encode", 0.5, mean=0.58))


def compare_side_by_side(*second: dict[str, Any], comparable: bool = True) -> Table:
    other = [line | {"study": "t"} for line in second or SECOND]
    return side_by_side(compared(*FIRST), compared(*other), HEADLINE, comparable=comparable)


def test_shared_cells_are_side_by_side_with_their_difference() -> None:
    text = render(compare_side_by_side(), "md")
    assert "| pathway | labelled_images | s | t |" in text
    assert "| none | 16 | 0.500 (0.541 to 0.601) | 0.550 (0.541 to 0.601) +0.050 |" in text
    assert "| encode | 16 | 0.600 (0.582 to 0.642) | 0.580 (0.582 to 0.642) -0.020 |" in text


def test_a_difference_between_studies_has_no_p() -> None:
    assert {row["p"] for row in json.loads(render(compare_side_by_side(), "json"))} == {None}


def test_the_baseline_and_best_of_each_study_are_not_shown() -> None:
    claims = {
        "p_better": 0.0,
        "p_equivalent": 0.99,
        "p_worse": 0.01,
        "p_to_best": 0.4,
        "labels_equivalent_side": "above",
    }
    laid = compare_side_by_side(record("none", 0.5), record("encode", 0.5, **claims))
    text = render(laid, "md")
    assert not any(mark in text for mark in ("baseline", "≈", "†", "["))
    records = json.loads(render(laid, "json"))
    assert {row["labels_equivalent_side"] for row in records} == {""}


def test_only_intervals_generalise_to_new_patients() -> None:
    text = render(compare_side_by_side(), "md")
    assert "Intervals hold for newly trained models on new patients." in text
    assert "Tests" not in text


def test_cells_of_an_incomplete_study_are_provisional() -> None:
    text = render(compare_side_by_side(record("none", 0.5, provisional=True), record("encode", 0.5)), "md")
    assert "0.571 (0.541 to 0.601) +0.071 provisional |" in text
    assert "Provisional: 1 of 4 cells" in text


def test_with_failed_replicates_there_is_no_difference() -> None:
    text = render(
        compare_side_by_side(record("none", 0.5, note="2 of 5 replicates failed"), record("encode", 0.5)), "md"
    )
    assert "0.571 (0.541 to 0.601) not compared |" in text


def test_comparisons_of_an_older_version_are_refused_with_the_name_of_their_study() -> None:
    older = compared(*(line | {"study": "t"} for line in SECOND)).drop_columns(["generalises_to"])
    with pytest.raises(ValueError, match="the comparisons of t were written by an older version"):
        side_by_side(compared(*FIRST), older, HEADLINE, comparable=True)


def test_with_other_test_images_there_is_no_difference() -> None:
    laid = compare_side_by_side(comparable=False)
    assert "+0.050" not in render(laid, "md")
    assert "not comparable" in laid.caption


def test_cells_of_only_one_study_are_counted() -> None:
    assert "Cells only in s: 1." in render(compare_side_by_side(), "md")


def test_cells_with_different_numbers_of_labelled_images_are_not_shared() -> None:
    with pytest.raises(ValueError, match="s and t share no cell; allowed: studies with equal architecture"):
        compare_side_by_side(record("none", 1.0))


@pytest.mark.parametrize("name", FORMATS)
def test_every_table_format_is_supported(name: str) -> None:
    assert "0.55" in render(compare_side_by_side(), name)


def test_a_metric_missing_in_one_study_is_refused_with_the_common_ones() -> None:
    with pytest.raises(ValueError, match="metric is mean_iou; allowed: dice"):
        compare_side_by_side(record("none", 0.5, metric="dice"))
