"""The table of a localisation stage."""

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from results import schema
from results.tables.published import ReportedValue, add_published
from results.tables.render import FORMATS, render
from results.tables.stage_scores import stage_table

VALUES = {("a", 0): (100.0, 9.0), ("a", 1): (200.0, 13.0), ("b", 0): (50.0, 6.0)}
"""Squared error and distance on test images by architecture and seed."""


def lines() -> Iterator[dict[str, Any]]:
    for (architecture, seed), values in VALUES.items():
        for metric, value in zip(("mse_pixels", "distance_pixels"), values, strict=True):
            for split, factor in (("test", 1.0), ("validation", 0.5)):
                lost = (architecture, seed, split) == ("a", 1, "validation")
                yield {
                    "study": "s", "architecture": architecture, "backbone": "own", "initial_weights": "random",
                    "pathway": "transferred", "stage": "locate", "seed": seed, "digest": f"{architecture}{seed}",
                    "split": split, "metric": metric, "aggregation": "", "class": "",
                    "value": None if lost else factor * value, "note": "not finished" if lost else "",
                }  # fmt: skip


SCORES = pa.Table.from_pylist(list(lines()), schema=schema.stage_scores())


def records(**options: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(render(stage_table(SCORES, "locate", **options), "json"))
    return rows


def test_each_cell_is_the_mean_over_the_runs_of_the_stage() -> None:
    means = {(row["architecture"], row["metric"], row["split"]): (row["mean"], row["n"]) for row in records()}
    assert means["a", "mse_pixels", "test"] == (150.0, 2)
    assert means["a", "distance_pixels", "test"] == (11.0, 2)
    assert means["b", "mse_pixels", "validation"] == (25.0, 1)


def test_runs_without_a_value_are_counted_in_a_note() -> None:
    (row,) = [row for row in records(metric="mse_pixels", split="validation") if row["architecture"] == "a"]
    assert (row["mean"], row["n"], row["note"]) == (50.0, 1, "not finished (1 of 2 runs)")
    assert "not finished (1 of 2 runs)" in render(stage_table(SCORES, "locate"), "md")


@pytest.mark.parametrize("format_", FORMATS)
def test_every_format_has_the_table(format_: str) -> None:
    assert "150" in render(stage_table(SCORES, "locate"), format_)


def test_a_published_value_is_only_beside_its_split() -> None:
    match = {"stage": "locate", "metric": "mse_pixels", "split": "test"}
    grid = add_published(stage_table(SCORES, "locate"), [ReportedValue(match=match, value=206.15, source="Hu et al.")])
    values = {(row["metric"], row["split"]): row["published"] for row in json.loads(render(grid, "json"))}
    assert values.pop(("mse_pixels", "test")) == 206.15
    assert set(values.values()) == {None}
    assert "150 [published 206.15]" in render(grid, "md")


@pytest.mark.parametrize(
    ("stage", "options", "problem"),
    [
        ("find", {}, "stage is find; allowed: locate"),
        ("locate", {"metric": "dice"}, "metric is dice; allowed: mse_pixels, distance_pixels"),
        ("locate", {"split": "train"}, "split is train; allowed: validation, test"),
        ("locate", {"rows": ["colour"]}, "rows is colour; allowed: architecture, backbone"),
    ],
)
def test_unknown_names_are_refused_with_the_allowed_ones(stage: str, options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        stage_table(SCORES, stage, **options)
