"""Two studies in one table."""

import json
from typing import Any

import pytest

from results.render import FORMATS, render
from results.side_by_side import side_by_side
from results.tables import HEADLINE, Table
from tests.results.test_tables import compared, record

FIRST = (record("none", 0.5, mean=0.5), record("encode", 0.5, mean=0.6), record("boxes", 0.5))
SECOND = (record("none", 0.5, mean=0.55), record("encode", 0.5, mean=0.58))


def beside(*second: dict[str, Any], comparable: bool = True) -> Table:
    other = [line | {"study": "t"} for line in second or SECOND]
    return side_by_side(compared(*FIRST), compared(*other), HEADLINE, comparable=comparable)


def test_shared_cells_stand_beside_each_other_with_their_difference() -> None:
    text = render(beside(), "md")
    assert "| pathway | labelled_images | s | t |" in text
    assert "| none | 16 | 0.500 (0.541 to 0.601) | 0.550 (0.541 to 0.601) +0.050 |" in text
    assert "| encode | 16 | 0.600 (0.582 to 0.642) | 0.580 (0.582 to 0.642) -0.020 |" in text


def test_a_difference_between_studies_has_no_p() -> None:
    assert {row["p"] for row in json.loads(render(beside(), "json"))} == {None}


def test_on_other_test_images_there_is_no_difference() -> None:
    laid = beside(comparable=False)
    assert "+0.050" not in render(laid, "md")
    assert "not comparable" in laid.caption


def test_cells_of_one_study_alone_are_counted() -> None:
    assert "Only in s: 1 cells." in render(beside(), "md")


def test_other_numbers_of_masks_are_other_cells() -> None:
    with pytest.raises(ValueError, match="s and t share no cell; allowed: studies with equal architecture"):
        beside(record("none", 1.0))


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_of_tables_shows_it(name: str) -> None:
    assert "0.55" in render(beside(), name)


def test_a_metric_that_one_of_them_lacks_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="metric is mean_iou; allowed: dice"):
        beside(record("none", 0.5, metric="dice"))
