"""Arms at equal hours of annotation, as tables and in sentences."""

import json
from typing import Any

import pyarrow as pa
import pytest

from results import schema
from results.report.hours import hours_blocks
from results.report.page import Grid
from results.statistics.design import PATIENTS, TRAINING
from results.tables.budgets import budget_sentences, budget_table, headline_budgets
from results.tables.render import render
from tests.results.tables.test_layout import compared, record

FACTORS = {"study": "s", "architecture": "unet", "backbone": "vgg16", "initial_weights": "random"}
SERIES = {"metric": "mean_iou", "class_": "macro", "aggregation": "dataset", "split": "test"}


def row(pathway: str, mean: float | None, hours: float = 10, **changes: object) -> dict[str, Any]:
    numbers = {"mean": mean, "ci_low": 0.5, "ci_high": 0.7, "labelled_images": 40, "hours_min": 2.0, "hours_max": 12.0}
    claim = {"unit": "fold and seed", "generalises_to": TRAINING, "direction": 1, "metric_unit": "", "note": ""}
    state = {"measured": True, "best": False, "provisional": False}
    return {**FACTORS, **schema.HEADLINE, "pathway": pathway, "hours": hours, **numbers, **claim, **state, **changes}


def budgets(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema.budgets())


UNMEASURED = row("boxes", None, measured=False, labelled_images=None, ci_low=None, ci_high=None, generalises_to="",
                 note="not measured with this many hours", hours_min=11.0)  # fmt: skip
THREE = [
    row("none", 0.55, p_to_best=0.01, difference_to_best=-0.05), row("encode", 0.6, best=True),
    row("points", 0.59, p_to_best=0.4, difference_to_best=-0.01), UNMEASURED,
]  # fmt: skip


def test_the_summary_names_the_best_arm_those_close_to_it_and_those_not_measured() -> None:
    assert budget_sentences(budgets(*THREE).to_pylist()) == [
        "With 10 hours of annotation, encode (about 40 masks) reached the best mean IoU of 0.600 (95 % interval 0.500 "
        "to 0.700). Not significantly different from it (p adjusted by Holm over all pairs of arms and all budgets): "
        "points. Not measured with this many hours: boxes (11.0 to 12.0 hours)."
    ]


def test_if_all_others_are_worse_the_summary_states_it() -> None:
    (line,) = budget_sentences([*budgets(*THREE[:2]).to_pylist()])
    assert "All other arms with this many hours are significantly worse" in line


def test_arms_that_could_not_be_tested_are_named() -> None:
    (line,) = budget_sentences(budgets(row("none", 0.5), row("encode", 0.6, best=True)).to_pylist())
    assert line.endswith("Not tested against it: none.")


def test_an_incomplete_study_names_no_best_arm() -> None:
    partial = [row("none", 0.5, provisional=True), row("encode", 0.6, provisional=True)]
    assert budget_sentences(budgets(*partial).to_pylist()) == [
        "With 10 hours of annotation: no best arm is named, because replicates are missing."
    ]


def test_an_arm_without_others_is_not_called_best() -> None:
    (line,) = budget_sentences(budgets(row("encode", 0.6), UNMEASURED).to_pylist())
    assert line.startswith("With 10 hours of annotation, encode (about 40 masks) reached a mean IoU of 0.600 (95 % ")
    assert "best" not in line


def test_failed_arms_and_trained_networks_are_named_as_such() -> None:
    failed = row("none", None, note="replicates failed: not compared")
    networks = row("encode", 0.6, best=True, generalises_to=PATIENTS)
    (line,) = budget_sentences(budgets(failed, networks, row("points", 0.5, p_to_best=0.01)).to_pylist())
    assert "the trained networks of encode (about 40 masks) reached the best" in line
    assert "Not compared, because replicates failed: none." in line


def test_the_table_marks_the_best_and_the_close_arms_and_explains_missing_results() -> None:
    text = render(budget_table(budgets(*THREE), **SERIES), "md")
    assert "at equal hours of annotation" in text
    assert "| encode | **0.600** (0.500 to 0.700) |" in text
    assert "| points | 0.590† (0.500 to 0.700) |" in text
    assert "| boxes | not measured |" in text
    assert "p adjusted by Holm over all pairs of arms and all budgets is 0.05 or more" in text
    assert "| pathway | 10 hours |" in text


def test_machine_readable_formats_have_the_hours_and_the_range_of_each_arm() -> None:
    records = json.loads(render(budget_table(budgets(*THREE), **SERIES), "json"))
    assert [(record["hours"], record["hours_max"], record["measured"]) for record in records][-1] == (10, 12.0, False)
    assert render(budget_table(budgets(*THREE), **SERIES), "csv").count("\n") == 5


@pytest.mark.parametrize(("change", "message"), [
    ({"metric": "dcie"}, "metric is dcie; allowed: mean_iou"),
    ({"rows": ["fold"]}, "rows is fold; allowed: architecture"),
])  # fmt: skip
def test_unknown_names_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        budget_table(budgets(*THREE), **(SERIES | change))


def test_the_report_lists_arms_by_budget() -> None:
    headline = headline_budgets(budgets(*THREE, row("none", 0.9, metric="dice")))
    *_, grid = hours_blocks(compared(record("none", 1.0) | {"annotation_hours": 4.0}), headline)
    assert isinstance(grid, Grid)
    assert [cell.text for cell in grid.rows[0]] == [
        "10", "none", "40", "0.550", "0.500 to 0.700", "-0.050", "0.01", "new training sets", ""
    ]  # fmt: skip
