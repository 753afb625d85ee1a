"""Forecasts of learning curves in the report and in figures."""

from pathlib import Path
from typing import Any

import pyarrow as pa

from results import schema
from results.figures import curves, learning_curve, svg
from results.report.forecasts import forecast_blocks, forecasts_of
from results.report.page import Collapsible, Grid, Text
from tests.results.report.test_answers import record, table

FACTORS = {"study": "s", "architecture": "unet", "backbone": "r", "initial_weights": "w"}


def forecast_row(pathway: str, multiple: int, mean: float | None, **changes: object) -> dict[str, Any]:
    interval = {"pi_low": None, "pi_high": None} if mean is None else {"pi_low": mean - 0.02, "pi_high": mean + 0.03}
    weights = {"weight_power_law": 0.7, "weight_exponential": 0.2, "weight_gaussian_process": 0.1}
    size = {"labelled_fraction": float(multiple), "labelled_images": 32 * multiple, "multiple": multiple}
    counts = {"amounts": 4, "n": 10, "note": ""}
    return FACTORS | schema.HEADLINE | {"pathway": pathway, "mean": mean} | interval | weights | size | counts | changes


def forecasts(*rows: dict[str, Any]) -> list[dict[str, Any]]:
    return forecasts_of(pa.Table.from_pylist(list(rows), schema.forecasts()), "mean_iou")


BOTH = forecasts(
    forecast_row("none", 2, 0.5), forecast_row("none", 4, 0.52),
    forecast_row("two_step", 2, 0.7), forecast_row("two_step", 4, 0.72),
    forecast_row("none", 2, 0.9, metric="dice"),
)  # fmt: skip
BEST = table(record("two_step", 32)).to_pylist()[0]


def test_one_sentence_states_the_expected_result_of_the_best_arm() -> None:
    sentence, grid = forecast_blocks(BOTH, BEST)
    assert isinstance(sentence, Text)
    assert sentence.text == (
        "Extrapolated to twice and four times the most masks that were measured, two_step is expected to reach a mean "
        "IoU of 0.700 with 64 masks (90 % interval 0.680 to 0.730) and 0.720 with 128 masks (90 % interval 0.700 to "
        "0.750)."
    )
    assert isinstance(grid, Collapsible)
    (rows,) = grid.blocks
    assert isinstance(rows, Grid)
    assert [cell.text for cell in rows.rows[0]] == ["none", "64", "0.500", "0.480 to 0.530", "70 %", "20 %", "10 %", ""]


def test_without_a_best_cell_there_is_no_sentence() -> None:
    assert [type(block) for block in forecast_blocks(BOTH, None)] == [Collapsible]


def test_the_reason_for_a_missing_forecast_is_stated_once() -> None:
    note = "no forecast: fewer than 4 amounts of labels"
    (block,) = forecast_blocks(forecasts(*(forecast_row("none", m, None, note=note) for m in (2, 4))), BEST)
    assert isinstance(block, Text)
    assert block.text == "Beyond the measured amounts of labels there is no forecast: fewer than 4 amounts of labels."
    assert list(forecast_blocks([], BEST)) == []


def test_the_figure_has_dashed_lines_to_twice_the_masks_and_on_a_log_axis_to_four_times(tmp_path: Path) -> None:
    measured = table(*(record(pathway, size) for pathway in ("none", "two_step") for size in (8, 16, 32)))
    plain = curves(measured)
    linear, log = curves(measured, forecasts=BOTH), curves(measured, forecasts=BOTH, log=True)
    assert "Extrapolated" not in svg(plain)
    assert "Extrapolated" in svg(linear)
    assert [max(figure.axes[0].get_xticks()) for figure in (plain, linear, log)] == [32, 64, 128]
    learning_curve(measured, path=tmp_path / "curve.png", forecasts=BOTH)
    assert (tmp_path / "curve.png").is_file()


def test_the_curve_can_be_drawn_over_hours_of_annotation() -> None:
    measured = table(*(record("none", size, annotation_hours=size / 7.5) for size in (8, 16, 32)))
    figure = curves(measured, over="annotation_hours")
    assert "Hours of annotation" in svg(figure)
    assert figure.axes[0].get_xlim()[1] < 8  # 32 masks in 4.3 hours
