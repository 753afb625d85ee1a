"""Arms at equal hours of annotation, as a table and in sentences."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from results import schema
from results.schema import HEADLINE, SIGNIFICANT, ComparisonRecord, factor_columns, metric_name, unit_of
from results.statistics.design import PATIENTS
from results.statistics.notes import lacks_replicates
from results.tables.hours import hours_text
from results.tables.layout import Cell, Table, label, select_rows, subject

if TYPE_CHECKING:
    import pyarrow as pa

PAIRS = "all pairs of arms and all budgets"
"""The comparisons that p to the best of a budget is adjusted over."""


def budget_table(
    budgets: "pa.Table", *, metric: str, class_: str, aggregation: str, split: str, rows: Sequence[str] | None = None
) -> Table:
    """Lay out the arms in rows and the budgets in columns.

    Raises:
        ValueError: For an unknown name.
    """
    selection = {"split": split, "aggregation": aggregation, "metric": metric, "class": class_}
    records: Sequence[ComparisonRecord] = select_rows(budgets, selection, schema.budgets()).to_pylist()
    factors = factor_columns(budgets.column_names)
    unknown = [name for name in rows or () if name not in factors]
    if unknown:
        raise ValueError(f"rows is {unknown[0]}; allowed: {', '.join(factors)}; choose factors of the arms")
    varying = [name for name in factors if len({record[name] for record in records}) > 1]
    row_factors = tuple(rows or varying or ("pathway",))
    cells = {(tuple(record[name] for name in factors), record["hours"]): record for record in records}
    arms = list(dict.fromkeys(arm for arm, _ in cells))
    hours = list(dict.fromkeys(record["hours"] for record in records))
    shared = [f"{name} {label(records[0][name])}" for name in factors if name not in (*varying, *row_factors)]
    caption = f"{subject(selection, unit=unit_of(records))} at equal hours of annotation"
    return Table(
        caption="; ".join(filter(None, (caption, ", ".join(shared)))),
        rows=row_factors,
        columns="hours of annotation",
        row_labels=tuple(
            tuple(label(dict(zip(factors, arm, strict=True))[name]) for name in row_factors) for arm in arms
        ),
        column_labels=tuple(f"{value:g} hours" for value in hours),
        grid=tuple(tuple(_cell(cells[arm, value], factors) for value in hours) for arm in arms),
        notes=tuple(budget_sentences(records)),
        pairs=PAIRS,
    )


def _cell(record: ComparisonRecord, factors: Sequence[str]) -> Cell:
    p = record["p_to_best"]
    empty: dict[str, Any] = dict.fromkeys(schema.comparisons(factors[len(schema.FACTORS) :]).names)
    without_test = {"baseline": "", "test": "", "labels_equivalent_side": "", "undefined": ""}
    close = None if p is None else p >= SIGNIFICANT
    return Cell(record=empty | without_test | dict(record), best=bool(record["best"]), close=close)


def headline_budgets(budgets: "pa.Table") -> list[ComparisonRecord]:
    """Return the records of the headline series."""
    import pyarrow.compute as pc

    for name, value in HEADLINE.items():
        budgets = budgets.filter(pc.field(name) == value)
    records: list[ComparisonRecord] = budgets.to_pylist()
    return records


def budget_sentences(records: Sequence[ComparisonRecord]) -> list[str]:
    """Return the answer for each budget: the best arm with its uncertainty, and what could not be compared."""
    names = factor_columns(list(records[0])) if records else ()
    factors = [name for name in names if len({record[name] for record in records}) > 1] or ["pathway"]
    hours = dict.fromkeys(record["hours"] for record in records)
    return [
        " ".join(_budget_sentence([record for record in records if record["hours"] == value], factors))
        for value in hours
    ]


def _budget_sentence(records: Sequence[ComparisonRecord], factors: Sequence[str]) -> Iterator[str]:
    start = f"With {records[0]['hours']:g} hours of annotation"
    if any(record["provisional"] for record in records):
        yield f"{start}: no best arm is named, because replicates are missing."
        return
    measured = [record for record in records if record["measured"] and record["mean"] is not None]
    best = next((record for record in measured if record["best"]), None)
    if best is not None:
        yield f"{start}, {_arm_with_masks(best, factors)} reached the best {_result(best)}."
        yield from _others(records, factors)
    elif measured:
        arms = "; ".join(f"{_arm_with_masks(record, factors)} reached a {_result(record)}" for record in measured)
        yield f"{start}, {arms}; no other arm is compared."
    else:
        yield f"{start}: no arm has a result."
    failed = [_arm(record, factors) for record in records if lacks_replicates(record["note"].partition(":")[0])]
    if failed:
        yield f"Not compared, because replicates failed: {', '.join(failed)}."
    outside = [_arm_with_range(record, factors) for record in records if not record["measured"]]
    if outside:
        yield f"Not measured with this many hours: {', '.join(outside)}."


def _others(records: Sequence[ComparisonRecord], factors: Sequence[str]) -> Iterator[str]:
    """Yield which of the other arms do not differ from the best one, and which could not be tested."""
    tested = [record for record in records if record["p_to_best"] is not None]
    close = [_arm(record, factors) for record in tested if record["p_to_best"] >= SIGNIFICANT]
    method = f"p adjusted by Holm over {PAIRS}"
    if close:
        yield f"Not significantly different from it ({method}): {', '.join(close)}."
    elif tested:
        yield f"All other arms with this many hours are significantly worse ({method})."
    untested = [
        _arm(record, factors) for record in records
        if record["mean"] is not None and not record["best"] and record["p_to_best"] is None
    ]  # fmt: skip
    if untested:
        yield f"Not tested against it: {', '.join(untested)}."


def _arm(record: ComparisonRecord, factors: Sequence[str]) -> str:
    return " / ".join(str(record[name]) for name in factors)


def _arm_with_masks(record: ComparisonRecord, factors: Sequence[str]) -> str:
    networks = "the trained networks of " * str(record["generalises_to"]).startswith(PATIENTS)
    return f"{networks}{_arm(record, factors)} (about {record['labelled_images']} masks)"


def _arm_with_range(record: ComparisonRecord, factors: Sequence[str]) -> str:
    low, high = record["hours_min"], record["hours_max"]
    known = "no stated cost" if low is None else f"{hours_text(low)} to {hours_text(high)} hours"
    return f"{_arm(record, factors)} ({known})"


def _result(record: ComparisonRecord) -> str:
    name = metric_name(record["metric"], record["metric_unit"] or "")
    low, high = record["ci_low"], record["ci_high"]
    interval = "no interval" if low is None else f"95 % interval {low:.3f} to {high:.3f}"
    return f"{name} of {record['mean']:.3f} ({interval})"
