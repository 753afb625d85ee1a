"""Table of the scores of a localisation stage: factors in rows, metrics and splits in columns, means over its runs."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from results import schema
from results.schema import STAGE_METRICS, STAGE_SPLITS, factor_columns
from results.tables.layout import Cell, Table, label

if TYPE_CHECKING:
    import pyarrow as pa

UNDEFINED = "no image is annotated"
"""Note on a score without a value."""
DEFAULT_METRICS = ("mse_pixels", "distance_pixels")


def stage_table(
    scores: "pa.Table", stage: str, *, metric: str | None = None, split: str | None = None,
    rows: Sequence[str] | None = None,
) -> Table:  # fmt: skip
    """Lay out the mean of each metric over the runs of a stage.

    Args:
        scores: Table with the columns of `schema.stage_scores`.
        stage: Name of the stage.
        metric: One of `schema.STAGE_METRICS`; default: squared error and distance in pixels.
        split: `test` or `validation`; default: both.
        rows: Factors of the rows, by default those that vary between runs.

    Raises:
        ValueError: The stage, metric, split or factor has no scores.
    """
    factors = factor_columns(scores.column_names)
    _check("stage", stage, list(dict.fromkeys(scores["stage"].to_pylist())))
    records = [record for record in scores.to_pylist() if record["stage"] == stage]
    metrics = dict.fromkeys(record["metric"] for record in records)
    if metric is not None:
        _check("metric", metric, [name for name in STAGE_METRICS if name in metrics])
    if split is not None:
        _check("split", split, STAGE_SPLITS)
    for name in rows or ():
        _check("rows", name, factors)
    varying = tuple(rows or (name for name in factors if len({record[name] for record in records}) > 1))
    columns = [
        (name, part)
        for name in ([metric] if metric else [name for name in DEFAULT_METRICS if name in metrics])
        for part in ([split] if split else STAGE_SPLITS)
    ]
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for record in records:
        groups.setdefault(tuple(record[name] for name in factors), []).append(record)
    shared = [f"{name} {label(records[0][name])}" for name in factors if name not in varying]
    return Table(
        caption=f"stage {stage}, mean over its runs; {', '.join(shared)}",
        rows=varying,
        columns="metric and split",
        row_labels=tuple(tuple(dict(zip(factors, group, strict=True))[name] for name in varying) for group in groups),
        column_labels=tuple(f"{name} ({part})" for name, part in columns),
        grid=tuple(tuple(_cell(group, factors, *column) for column in columns) for group in groups.values()),
    )


def _cell(records: Sequence[Mapping[str, Any]], factors: Sequence[str], metric: str, split: str) -> Cell:
    runs = [record for record in records if (record["metric"], record["split"]) == (metric, split)]
    values = [record["value"] for record in runs if record["value"] is not None]
    empty: dict[str, Any] = dict.fromkeys(schema.comparisons(factors[len(schema.FACTORS) :]).names)
    return Cell(
        record=empty
        | {name: records[0][name] for name in ("study", *factors, "stage")}
        | {"metric": metric, "split": split, "aggregation": "", "class": "", "baseline": "", "test": ""}
        | {"mean": float(np.mean(values)) if values else None, "n": len(values), "provisional": False}
        | {"note": "; ".join(_notes(runs))},
        best=False,
    )


def _notes(runs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield why runs have no value, with their number."""
    for note, count in Counter(run["note"] or UNDEFINED for run in runs if run["value"] is None).items():
        yield f"{note} ({count} of {len(runs)} runs)"


def _check(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} is {value}; allowed: {', '.join(allowed)}; choose one of these")
