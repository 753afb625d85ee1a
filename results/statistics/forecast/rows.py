"""Forecasts of each arm of a study at twice and four times its largest amount of labels."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from results import schema
from results.metrics.formulas import FloatArray
from results.statistics.cells import Cells, IntArray
from results.statistics.forecast.families import FAMILIES
from results.statistics.forecast.mixture import Bounds, forecast
from results.statistics.notes import PROVISIONAL, REPLICATES_FAILED

if TYPE_CHECKING:
    import pandas as pd

MULTIPLES = (2, 4)
"""Forecast amounts, in multiples of the largest measured one."""
MIN_AMOUNTS, MIN_REPLICATES = 4, 2
SERIES = (("test", "dataset", "macro", "mean_iou"), ("test", "dataset", "macro", "dice"),
          ("test", "case", "macro", "dice"))  # fmt: skip
"""The series that are forecast: split, aggregation, class, metric. All metrics are within 0..1."""
NO_FORECAST = "no forecast"
UNIT = Bounds(0.0, 1.0)


def forecast_rows(cells: Cells) -> "pd.DataFrame":
    """Return the rows of `schema.forecasts`."""
    import pandas as pd

    further = cells.factors[len(schema.FACTORS) :]
    arms = [cells.levels_of(int(arm)) for arm in dict.fromkeys(cells.cells["arm"])]
    rows = [
        row
        for name in SERIES
        if name in cells.series_numbers
        for levels in arms
        for row in _arm_rows(cells, levels, cells.series_numbers[name])
    ]
    return pd.DataFrame(rows, columns=schema.forecasts(further).names)


def _arm_rows(cells: Cells, levels: Sequence[int], series: int) -> list[dict[str, Any]]:
    """Return the forecasts of an arm in one series; without numbers where there is a reason against it."""
    images = cells.cells["labelled_images"].to_numpy(np.float64)[list(levels)]
    fraction = float(cells.cells["labelled_fraction"].iloc[levels[-1]])
    numbers = cells.row_of[list(levels), series]
    values = cells.values[numbers]
    reason = _reason(cells, levels, numbers, images, values)
    arm: dict[str, Any] = {name: cells.cells[name].iloc[levels[0]] for name in cells.factors}
    arm |= {str(name): value for name, value in cells.series.iloc[series].items()}
    rows = [
        arm
        | {"labelled_fraction": fraction * multiple, "labelled_images": round(images[-1] * multiple)}
        | {"multiple": multiple, "amounts": len(levels), "n": values.shape[1], "note": reason}
        for multiple in MULTIPLES
    ]
    if reason:
        return rows
    direction = cells.directions[series]
    directed = values if direction > 0 else 1 - values
    expected = forecast(directed, images, images[-1] * np.array(MULTIPLES), UNIT)
    if np.isnan(expected.mean).any():
        return [row | {"note": f"{NO_FORECAST}: no curve fits"} for row in rows]
    ends = (expected.mean, expected.low, expected.high)
    mean, low, high = ends if direction > 0 else (1 - expected.mean, 1 - expected.high, 1 - expected.low)
    weights = {f"weight_{name}": expected.weights[name] for name in FAMILIES}
    return [
        row | weights | {"mean": float(m), "pi_low": float(a), "pi_high": float(b)}
        for row, m, a, b in zip(rows, mean, low, high, strict=True)
    ]


def _reason(cells: Cells, levels: Sequence[int], rows: IntArray, images: FloatArray, values: FloatArray) -> str:
    """Return why an arm has no forecast, "" if it has one."""
    incomplete = [level for level in levels if not cells.complete[level]]
    reasons = {
        f"fewer than {MIN_AMOUNTS} amounts of labels": len(levels) < MIN_AMOUNTS,
        REPLICATES_FAILED: any(cells.failed[level] for level in incomplete),
        PROVISIONAL: bool(incomplete),
        f"fewer than {MIN_REPLICATES} replicates": values.shape[1] < MIN_REPLICATES,
        "undefined in some replicates": bool((rows < 0).any() or np.isnan(values).any()),
        "amounts of labels do not grow": bool((np.diff(images) <= 0).any() or images[0] <= 0),
    }
    reason = next((text for text, applies in reasons.items() if applies), "")
    return f"{NO_FORECAST}: {reason}" if reason else ""
