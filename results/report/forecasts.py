"""Forecasts of the learning curves in the report."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from results.report.answers import arm_name, format_interval, format_number
from results.report.page import Block, Collapsible, Grid, GridCell, Text, number_columns, text_columns
from results.schema import HEADLINE, ComparisonRecord, factor_columns, metric_name

if TYPE_CHECKING:
    import pyarrow as pa

EXTRAPOLATED = (
    "Dashed lines are extrapolated beyond the most labelled images that were measured: expected scores with 90 % "
    "intervals of what the same folds and seeds would measure."
)
FAMILIES = {"weight_power_law": "power law", "weight_exponential": "exponential", "weight_gaussian_process": "flexible"}
"""Printed names of the families of curves."""


def forecasts_of(forecasts: "pa.Table | None", metric: str) -> list[dict[str, Any]]:
    """Return the forecasts of a metric pooled over test images; empty without forecasts."""
    import pyarrow.compute as pc

    if forecasts is None:
        return []
    for name, value in (HEADLINE | {"metric": metric}).items():
        forecasts = forecasts.filter(pc.field(name) == value)
    records: list[dict[str, Any]] = forecasts.to_pylist()
    return records


def forecast_blocks(records: Sequence[Mapping[str, Any]], best: ComparisonRecord | None) -> Iterator[Block]:
    """Yield a sentence on the arm of the best cell and a grid of all arms, or why there is no forecast.

    Args:
        records: Forecasts of one metric.
        best: The best cell; None while the study lacks replicates.
    """
    known = [record for record in records if record["mean"] is not None]
    reasons = list(dict.fromkeys(record["note"] for record in records if record["note"]))
    if not known:
        yield from (Text(text=f"Beyond the measured amounts of labels there is {reason}.") for reason in reasons[:1])
        return
    names = factor_columns(list(records[0]))
    factors = [name for name in names if len({record[name] for record in records}) > 1] or ["pathway"]
    of_best = [record for record in known if best is not None and all(record[name] == best[name] for name in names)]
    if of_best:
        yield Text(text=forecast_sentence(of_best, factors))
    yield Collapsible(title="Forecasts of all arms", blocks=[_grid(records, factors)])


def forecast_sentence(records: Sequence[Mapping[str, Any]], factors: Sequence[str]) -> str:
    """Return the forecasts of one arm as a sentence."""
    first = records[0]
    amounts = " and ".join(
        f"{format_number(record['mean'])} with {record['labelled_images']} masks (90 % interval "
        f"{format_interval(record['pi_low'], record['pi_high'])})"
        for record in records
    )
    multiples = " and ".join({2: "twice", 4: "four times"}[record["multiple"]] for record in records)
    return (
        f"Extrapolated to {multiples} the most masks that were measured, {arm_name(first, factors)} is expected to "
        f"reach a {metric_name(first['metric'])} of {amounts}."
    )


def _grid(records: Sequence[Mapping[str, Any]], factors: Sequence[str]) -> Grid:
    columns = [
        *text_columns(*(name.replace("_", " ") for name in factors)),
        *number_columns("labelled images", "expected", "90 % interval", *FAMILIES.values()),
        *text_columns("note"),
    ]
    rows = [
        [
            *(GridCell(str(record[name])) for name in factors),
            GridCell(str(record["labelled_images"]), record["labelled_images"]),
            GridCell(format_number(record["mean"]), record["mean"]),
            GridCell(format_interval(record["pi_low"], record["pi_high"]), record["pi_low"]),
            *(_percent(record[name]) for name in FAMILIES),
            GridCell(record["note"]),
        ]
        for record in records
    ]
    caption = (
        f"Extrapolated {metric_name(records[0]['metric'])}: the score that as many runs are expected to measure, and "
        "the posterior probability of each family of curves. The families are averaged; none of them need be right."
    )
    return Grid(caption=caption, columns=columns, rows=rows, heads=len(factors), sorts=True)


def _percent(value: float | None) -> GridCell:
    return GridCell("" if value is None else f"{100 * value:.0f} %", value)
