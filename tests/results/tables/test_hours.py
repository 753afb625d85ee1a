"""Hours of annotation saved, in sentences."""

from typing import Any

import pytest

from results.report.hours import hours_blocks
from results.report.page import Grid, Items
from results.tables.hours import hours_sentences, hours_text
from results.tables.layout import table
from results.tables.render import render
from tests.results.tables.test_layout import compared, record

BASELINE = {"baseline": "pathway=none"}
CURVE = [record("none", share) | BASELINE | {"annotation_hours": 4 * share} for share in (0.25, 0.5, 1.0)]
"""The baseline with 8, 16 and 32 masks in 1, 2 and 4 hours."""


def two_step(**changes: object) -> dict[str, Any]:
    labels = {"labels_equivalent": 20.0, "labels_equivalent_low": 14.0, "labels_equivalent_high": 28.0}
    hours = {"hours_equivalent": 2.5, "hours_equivalent_low": 1.75, "hours_equivalent_high": 3.5}
    side = {"labels_equivalent_side": "within", "hours_equivalent_side": "within", "labels_saved": 12.0}
    defaults = {"annotation_hours": 1.2, "p_hours": 0.01, "note": ""}
    return record("two_step", 0.25) | BASELINE | labels | hours | side | defaults | changes


def sentences(**changes: object) -> list[str]:
    return hours_sentences(compared(*CURVE, two_step(**changes)).to_pylist())


def test_hours_saved_are_stated_with_the_interval_of_what_the_baseline_needs() -> None:
    assert sentences() == [
        "With 8 masks, two_step needed 1.2 hours of annotation; the baseline (pathway=none) needs about 2.5 for the "
        "same result (95 % interval 1.8 to 3.5): about 1.3 hours saved."
    ]


def test_an_arm_with_costly_labels_saves_masks_and_costs_hours() -> None:
    assert sentences(annotation_hours=5.0) == [
        "With 8 masks, two_step needed 5.0 hours of annotation; the baseline (pathway=none) needs about 2.5 for the "
        "same result (95 % interval 1.8 to 3.5): about 2.5 hours more, although it saves masks."
    ]


@pytest.mark.parametrize("changes", [
    {"p_adjusted": 0.2}, {"p_adjusted": None}, {"p_hours": 0.06}, {"p_hours": None}, {"annotation_hours": 2.0},
    {"annotation_hours": None}, {"provisional": True},
])  # fmt: skip
def test_nothing_is_stated_unless_masks_and_hours_differ_significantly(changes: dict[str, object]) -> None:
    assert sentences(**changes) == []


def test_outside_of_the_measured_range_no_number_of_saved_hours_is_stated() -> None:
    above = {"hours_equivalent": None, "hours_equivalent_low": 4.0, "hours_equivalent_high": float("inf"),
             "hours_equivalent_side": "above", "labels_saved": None}  # fmt: skip
    assert sentences(**above) == [
        "With 8 masks, two_step needed 1.2 hours of annotation; the baseline (pathway=none) did not reach its result "
        "with 4.0 (95 % interval more than 4.0)."
    ]
    below = {"hours_equivalent": None, "hours_equivalent_low": float("-inf"), "hours_equivalent_high": 1.0,
             "hours_equivalent_side": "below", "labels_saved": None, "difference": -0.2}  # fmt: skip
    assert sentences(**below) == [
        "With 8 masks, two_step needed 1.2 hours of annotation; the baseline (pathway=none) reached a better result "
        "with 1.0 (95 % interval fewer than 1.0)."
    ]


def test_the_table_of_the_headline_ends_with_the_hours_saved() -> None:
    assert "about 1.3 hours saved." in render(table(compared(*CURVE, two_step())), "md")


def test_machine_readable_formats_have_the_hours_only_if_known() -> None:
    assert '"hours_saved"' in render(table(compared(*CURVE, two_step())), "json")
    assert '"hours_saved"' not in render(table(compared(record("none", 1.0))), "json")


@pytest.mark.parametrize(
    ("hours", "text"), [(0.0, "0.0"), (0.033, "0.033"), (1.26, "1.3"), (99.96, "100.0"), (640, "640")]
)
def test_hours_are_rounded(hours: float, text: str) -> None:
    assert hours_text(hours) == text


def test_the_report_has_hours_only_if_known() -> None:
    items, grid = hours_blocks(compared(*CURVE, two_step()), [])
    assert isinstance(items, Items)
    assert isinstance(grid, Grid)
    last = [cell.text for cell in grid.rows[-1]]
    assert last == ["two_step", "8", "1.2", "0.500", "2.5", "1.8 to 3.5", "", "0.01", "pathway=none"]
    assert list(hours_blocks(compared(record("none", 1.0)), [])) == []
