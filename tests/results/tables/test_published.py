"""Published values beside a study's own."""

import json
from typing import Any

import pytest

from results.tables.layout import Table, default_table, table
from results.tables.published import ReportedValue, add_published
from results.tables.render import render
from tests.results.tables.test_layout import CELLS, SMALL, compared, dice

HEADLINE = {"metric": "mean_iou", "class": "macro", "aggregation": "dataset"}


def reported(match: dict[str, Any], value: float) -> ReportedValue:
    return ReportedValue(match=match, value=value, source="A paper")


def table_with(*published: ReportedValue) -> Table:
    return add_published(table(SMALL), published)


def test_a_published_value_is_only_in_the_cells_that_it_matches() -> None:
    text = render(
        table_with(reported(match=HEADLINE | {"pathway": "none", "labelled_fraction": 1.0}, value=0.65)), "md"
    )

    assert text.count("[published 0.650]") == 1
    assert "baseline [published 0.650] |" in text


def test_in_the_default_table_a_value_is_beside_its_own_metric_and_aggregation() -> None:
    grid = default_table(compared(*CELLS, *map(dice, CELLS)))
    dice_of_cases = {"metric": "dice", "class": "macro", "aggregation": "case", "pathway": "encode"}
    text = render(add_published(grid, [reported(match=dice_of_cases | {"labelled_fraction": 0.5}, value=0.7)]), "csv")

    with_value = [line for line in text.splitlines() if line.endswith(",0.7,A paper")]
    assert [",dice," in line for line in with_value] == [True]


def test_the_publication_is_named_below_the_table_and_beside_each_value() -> None:
    table_ = table_with(reported(match=HEADLINE | {"pathway": "none"}, value=0.65))

    assert "Published: A paper." in render(table_, "md")
    assert {row["published_by"] for row in json.loads(render(table_, "json"))} == {"A paper", ""}


def test_unspecified_factors_of_a_match_may_have_any_value() -> None:
    assert (
        render(table_with(reported(match=HEADLINE | {"architecture": "unet"}, value=0.5)), "md").count("[published")
        == 3
    )


def test_the_most_specific_match_is_used() -> None:
    general = reported(match=HEADLINE, value=0.1)
    special = reported(match=HEADLINE | {"pathway": "encode"}, value=0.2)
    records = json.loads(render(table_with(general, special), "json"))

    assert {row["pathway"]: row["published"] for row in records} == {"none": 0.1, "encode": 0.2}


@pytest.mark.parametrize("match", [{"metric": "dice"}, {"class": "heart"}, {"backbone": "resnet50"}, {"loss": "dice"}])
def test_other_metrics_classes_and_arms_have_no_published_value(match: dict[str, str]) -> None:
    assert "published" not in json.loads(render(table_with(reported(match=HEADLINE | match, value=0.1)), "json"))[0]
