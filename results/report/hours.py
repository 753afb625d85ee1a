"""Grids of the report on hours of annotation: what arms cost, what they save, and arms at equal hours."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from results.report.answers import arm_name, format_interval, format_number, select_records, varying_factors
from results.report.page import Block, Grid, GridCell, Items, Text, number_columns, text_columns
from results.schema import SIGNIFICANT, ComparisonRecord
from results.tables.budgets import PAIRS, budget_sentences
from results.tables.hours import baseline_hours, has_hours, hours_interval, hours_sentences, hours_text
from results.tables.sentences import is_significant, p_text

if TYPE_CHECKING:
    import pyarrow as pa


def hours_blocks(comparisons: "pa.Table", budgets: Sequence[ComparisonRecord]) -> Iterator[Block]:
    """Yield sentences and grids; nothing if the hours of annotation are not known.

    Args:
        comparisons: The comparisons table.
        budgets: Rows of the headline series of the budgets table.
    """
    records = select_records(comparisons)
    if not has_hours(records):
        return
    if sentences := [*budget_sentences(budgets), *hours_sentences(records)]:
        yield Items(items=sentences)
    yield _cost_grid(records)
    if budgets:
        yield _budget_grid(budgets)


def _cost_grid(records: Sequence[ComparisonRecord]) -> Grid:
    factors = varying_factors(records)
    columns = [
        *text_columns(*(name.replace("_", " ") for name in factors)),
        *number_columns("labelled images", "hours of annotation", "mean IoU (pooled)"),
        *number_columns("needed by the baseline", "95 % interval", "saved", "p at equal hours"),
        *text_columns("baseline"),
    ]
    rows = [
        [
            *(GridCell(str(record[name])) for name in factors),
            GridCell(str(record["labelled_images"]), record["labelled_images"]),
            _hours(record["annotation_hours"]),
            GridCell(format_number(record["mean"]), record["mean"]),
            *_needed(record, baseline_hours(record, records)),
            GridCell(record["baseline"]),
        ]
        for record in records
    ]
    caption = (
        "Hours of annotation of each cell: of every image whose annotation its stages read in training or validation, "
        "once for each kind. Hours that the baseline needs for the same mean IoU are interpolated between the measured "
        "ones. Hours saved are given only where the differences with equally many masks and with equally many hours "
        "are significant (p adjusted by Holm; bold below 0.05)."
    )
    return Grid(caption=caption, columns=columns, rows=rows, heads=len(factors), sorts=True, filters=True)


def _needed(record: ComparisonRecord, sizes: Sequence[float]) -> list[GridCell]:
    """Return the hours that the baseline needs, their interval, hours saved, and p at equal hours."""
    if not record["hours_equivalent_side"] or not sizes:
        return [GridCell("")] * 4
    match record["hours_equivalent_side"]:
        case "above":
            needed = GridCell(f"more than {hours_text(max(sizes))}", max(sizes) + 1)
        case "below":
            needed = GridCell(f"fewer than {hours_text(min(sizes))}", min(sizes) - 1)
        case _:
            needed = _hours(record["hours_equivalent"])
    saved, p = record["hours_saved"], record["p_hours"]
    sign = "" if saved is None or saved <= 0 else "+"
    is_bold = p is not None and p < SIGNIFICANT and is_significant(record)
    return [
        needed,
        GridCell(hours_interval(record, sizes), max(min(sizes) - 1, record["hours_equivalent_low"])),
        GridCell("" if saved is None else sign + hours_text(saved), saved),
        GridCell("" if p is None else p_text(p), p, strong=is_bold),
    ]


def _budget_grid(records: Sequence[ComparisonRecord]) -> Grid:
    factors = varying_factors(records)
    columns = [
        *number_columns("hours"),
        *text_columns(" / ".join(name.replace("_", " ") for name in factors)),
        *number_columns("masks", "mean IoU (pooled)", "95 % interval", "difference to the best", "adjusted p"),
        *text_columns("generalises to", "note"),
    ]
    rows = [
        [
            GridCell(f"{record['hours']:g}", record["hours"]),
            GridCell(arm_name(record, factors)),
            GridCell("" if record["labelled_images"] is None else str(record["labelled_images"])),
            GridCell(format_number(record["mean"]), record["mean"], strong=bool(record["best"])),
            GridCell(format_interval(record["ci_low"], record["ci_high"]), record["ci_low"]),
            GridCell(format_number(record["difference_to_best"], "+"), record["difference_to_best"]),
            GridCell("" if record["p_to_best"] is None else p_text(record["p_to_best"]), record["p_to_best"]),
            GridCell(record["generalises_to"] or ""),
            GridCell(record["note"]),
        ]
        for record in records
    ]
    caption = (
        "Arms at equal hours of annotation, interpolated in the logarithm of the hours within each run and not "
        f"extrapolated; the best mean is bold. p is against the best arm, adjusted by Holm over {PAIRS}."
    )
    return Grid(caption=caption, columns=columns, rows=rows, heads=2, sorts=True, filters=True)


def already_annotated(names: Sequence[str]) -> Iterator[Block]:
    """Yield which data sets count as annotated already."""
    if names:
        yield Text(text=f"Annotated already, at no cost, because annotation_minutes is not set: {', '.join(names)}.")


def _hours(value: float | None) -> GridCell:
    return GridCell("" if value is None else hours_text(value), value)
