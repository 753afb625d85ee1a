"""Lay out a comparisons table with arms in rows and one factor in columns; only the best of a column is computed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from results import schema
from results.schema import (
    HEADLINE,
    SIGNIFICANT,
    SIZES,
    ComparisonRecord,
    direction_of,
    factor_columns,
    unit_of,
    with_unit,
)
from results.statistics.notes import BASELINE_FAILED, BASELINE_PENDING, ITSELF, NO_PAIR, lacks_replicates
from results.tables.hours import hours_sentences
from results.tables.sentences import cell_key, label_equivalence_sentences
from results.text import printable

if TYPE_CHECKING:
    import pyarrow as pa

PER_CASE_DICE = {"aggregation": "case", "metric": "dice"}
DEFAULT_METRICS = ("mean IoU (pooled)", "Dice (per case)")
LABELS = ("labels_equivalent", "labels_equivalent_low", "labels_equivalent_high", "labels_saved")
HOURS = ("hours_equivalent", "hours_equivalent_low", "hours_equivalent_high", "p_hours", "hours_saved")
AGAINST = ("difference", "p", "p_adjusted", "effect_size", "p_better", "p_equivalent", "p_worse", *LABELS, *HOURS)
"""Columns that compare a cell with its baseline."""
BASELINE_NOTES = (ITSELF, NO_PAIR, BASELINE_FAILED, BASELINE_PENDING)
"""Notes of a cell that concern its baseline."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A record of the comparisons table in a grid.

    Args:
        best: Whether it has the best mean of its column.
        close: Whether it does not differ significantly from the best of its column; None if that was not tested.
        published, published_by: Value that a paper reports, and the paper.
    """

    record: ComparisonRecord
    best: bool
    close: bool | None = None
    published: float | None = None
    published_by: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A grid of cells by row and column label, None where no run exists.

    Args:
        rows: Factors of the row labels.
        columns: Factor of the column labels.
        notes: Shown below the grid.
        pairs: The comparisons that p to the best of a column is adjusted over.
    """

    caption: str
    rows: tuple[str, ...]
    columns: str
    row_labels: tuple[tuple[str, ...], ...]
    column_labels: tuple[str, ...]
    grid: tuple[tuple[Cell | None, ...], ...]
    notes: tuple[str, ...] = ()
    pairs: str = "all pairs of the column"


def table(
    comparisons: "pa.Table",
    *,
    metric: str = HEADLINE["metric"],
    class_: str = HEADLINE["class"],
    aggregation: str = HEADLINE["aggregation"],
    split: str = HEADLINE["split"],
    rows: Sequence[str] | None = None,
    columns: str | None = None,
    baseline: str | None = None,
) -> Table:
    """Lay out one metric.

    Args:
        rows: Factors of the rows, by default all that vary. With "baseline" every baseline has a separate row.
        columns: Factor of the columns, by default the size that the study sets.
        baseline: Baseline of the comparisons, by default the first.

    Raises:
        ValueError: For an unknown name, or if neither rows nor columns have a factor that varies.
    """
    selection = {"split": split, "aggregation": aggregation, "metric": metric, "class": class_}
    records: Sequence[ComparisonRecord] = select_rows(comparisons, selection).to_pylist()
    keys = ("study", *factor_columns(comparisons.column_names), *SIZES)
    columns = columns or study_level(records)
    _check_values("columns", [columns], (*keys, "baseline"))
    _check_values("rows", rows or (), [name for name in (*keys, "baseline") if name != columns])
    if "baseline" not in (*(rows or ()), columns):
        baseline = _baseline(records, baseline)
        records = _records_against(records, baseline, keys)
    varying = [name for name in keys if len({record[name] for record in records}) > 1]
    row_factors = _default_rows(varying, columns) if rows is None else tuple(rows)
    cells = _cells_by_position(records, row_factors, columns, varying)
    column_values = list(dict.fromkeys(_sorted(record[columns] for record in records)))
    best = {column: _best(cells, column, direction_of(records[0])) for column in column_values}
    row_values = list(dict.fromkeys(row for row, _ in cells))
    unknown = [name for name in keys if name == "labelled_images" and not records[0][name]]  # imported without it
    hidden = (*varying, *row_factors, columns, *unknown)
    shared = [f"{name} {label(records[0][name])}" for name in keys if name not in hidden]
    return Table(
        caption="; ".join(filter(None, (subject(selection, baseline, unit=unit_of(records)), ", ".join(shared)))),
        rows=row_factors,
        columns=columns,
        row_labels=tuple(tuple(map(label, row)) for row in row_values),
        column_labels=tuple(map(label, column_values)),
        grid=tuple(
            tuple(_cell(cells.get((row, column)), best[column], sizes=columns in SIZES) for column in column_values)
            for row in row_values
        ),
        notes=(*label_equivalence_sentences(records), *hours_sentences(records)) if selection == HEADLINE else (),
    )


def default_table(
    comparisons: "pa.Table",
    *,
    class_: str = HEADLINE["class"],
    split: str = HEADLINE["split"],
    rows: Sequence[str] | None = None,
    columns: str | None = None,
) -> Table:
    """Lay out mean IoU (pooled) and Dice (per case) side by side; only mean IoU if there is no Dice."""
    pooled = table(comparisons, class_=class_, split=split, rows=rows, columns=columns)
    selection = {"split": split, "class": class_}
    try:
        select_rows(comparisons, selection | PER_CASE_DICE)
    except ValueError:
        return pooled
    case = table(comparisons, class_=class_, split=split, rows=rows, columns=columns, **PER_CASE_DICE)
    if (pooled.row_labels, pooled.column_labels) != (case.row_labels, case.column_labels):
        return pooled
    further = pooled.caption.removeprefix(subject(HEADLINE | selection))
    return replace(
        pooled,
        caption=f"{' and '.join(DEFAULT_METRICS)}; {class_}, {split}; mean (95 % interval){further}",
        column_labels=tuple(f"{label}: {name}" for label in pooled.column_labels for name in DEFAULT_METRICS),
        grid=tuple(
            tuple(cell for pair in zip(first, second, strict=True) for cell in pair)
            for first, second in zip(pooled.grid, case.grid, strict=True)
        ),
    )


Position = tuple[tuple[Any, ...], Any]


def select_rows(
    comparisons: "pa.Table", selection: Mapping[str, str], columns: "pa.Schema | None" = None
) -> "pa.Table":
    """Return the rows with all values of the selection, of comparisons or of a table with other `columns`.

    Raises ValueError, with the available values, if there are none, and for tables of an older version.
    """
    import pyarrow.compute as pc

    for name, value in selection.items():
        rows = comparisons.filter(pc.equal(comparisons[name], value))
        if not rows.num_rows:
            _check_values(name, [value], comparisons[name].unique().to_pylist())
        comparisons = rows
    if is_older(comparisons, columns):
        raise ValueError(
            f"the comparisons of {comparisons['study'][0]} were written by an older version; allowed: those of this "
            "version; run the study again"
        )
    return comparisons


def is_older(comparisons: "pa.Table", columns: "pa.Schema | None" = None) -> bool:
    """Return whether a comparisons table, or one with other `columns`, lacks columns of this version."""
    return not set((columns or schema.comparisons()).names) <= set(comparisons.column_names)


def study_level(records: Sequence[ComparisonRecord]) -> str:
    """Return the size that a study sets; the other may be equal at several levels, or differ at one.

    It is the size that distinguishes the cells of each arm; if both do, the one with fewer values.
    """

    def order(name: str) -> tuple[bool, int]:
        cells = {cell_key(record) for record in records}
        levels = {(*record_arm(record), record[name]) for record in records}
        return len(levels) < len(cells), len({record[name] for record in records})

    return min(SIZES, key=order)


def record_arm(record: ComparisonRecord) -> tuple[str, ...]:
    """Return the factor values of a record."""
    return tuple(record[name] for name in factor_columns(list(record)))


def filter_records(records: Sequence[ComparisonRecord], selection: Mapping[str, str]) -> Sequence[ComparisonRecord]:
    """Return the records with all values of the selection.

    Raises ValueError, with the available values, if there are none.
    """
    for name, value in selection.items():
        present = dict.fromkeys(str(record[name]) for record in records)
        _check_values(name, [value], list(present))
        records = [record for record in records if record[name] == value]
    return records


def _check_values(name: str, values: Iterable[str], allowed: Sequence[str]) -> None:
    for value in values:
        if value not in allowed:
            available = ", ".join(allowed) or "nothing yet"
            raise ValueError(f"{name} is {value}; allowed: {available}; choose one that has results")


def _baseline(records: Sequence[ComparisonRecord], baseline: str | None) -> str:
    baselines = [name for name in dict.fromkeys(record["baseline"] for record in records) if name]
    if baseline is not None:
        _check_values("baseline", [baseline], baselines)
        return baseline
    return baselines[0] if baselines else ""


def _records_against(
    records: Sequence[ComparisonRecord], baseline: str, keys: Sequence[str]
) -> Sequence[ComparisonRecord]:
    """Return one record per cell: the one with this baseline, else another without its comparison."""
    kept: dict[tuple[Any, ...], ComparisonRecord] = {}
    for record in records:
        key = tuple(record[name] for name in keys)
        if record["baseline"] == baseline:
            kept[key] = record
        else:
            kept.setdefault(key, without_baseline(record))
    return list(kept.values())


def without_baseline(record: ComparisonRecord) -> ComparisonRecord:
    """Return a record without the comparison with its baseline."""
    notes = record["note"].split("; ")
    return {
        **record,
        **dict.fromkeys(AGAINST),
        "baseline": "",
        "labels_equivalent_side": "",
        "hours_equivalent_side": "",
        "provisional": record["provisional"] and BASELINE_PENDING not in notes,
        "note": "; ".join(note for note in notes if note not in BASELINE_NOTES),
    }


def _default_rows(varying: Sequence[str], columns: str) -> tuple[str, ...]:
    # Both sizes identify the same levels: one of them is enough.
    sizes = SIZES if columns in SIZES else SIZES[1:]
    return tuple(name for name in varying if name != columns and name not in sizes)


def _cells_by_position(
    records: Sequence[ComparisonRecord], rows: Sequence[str], columns: str, varying: Sequence[str]
) -> Mapping[Position, ComparisonRecord]:
    cells: dict[Position, ComparisonRecord] = {}
    for record in records:
        position = (tuple(record[name] for name in rows), record[columns])
        if position in cells:
            missing = [name for name in varying if record[name] != cells[position][name]]
            raise ValueError(f"rows are {', '.join(rows) or 'none'}; allowed: all that vary; add {', '.join(missing)}")
        cells[position] = record
    return cells


def _sorted(values: Iterable[Any]) -> Sequence[Any]:
    values = list(values)
    return values if isinstance(values[0], str) else sorted(values)


def _best(cells: Mapping[Position, ComparisonRecord], column: object, sign: int) -> float | None:
    """Return the best mean of a column among complete cells; None while one of its cells lacks replicates."""
    records = [record for (_, column_of_cell), record in cells.items() if column_of_cell == column]
    if not sign or any(record["provisional"] for record in records):
        return None
    # The mean of an arm that is undefined in some replicates is over different images.
    max_n = max((record["n"] for record in records), default=0)
    means = [record["mean"] for record in records if is_complete(record) and record["n"] == max_n]
    return max(means, key=lambda mean: sign * mean) if len(means) > 1 else None


def is_complete(record: ComparisonRecord) -> bool:
    """Return whether the mean of a record is defined and no replicate is missing or failed."""
    # Tables of an earlier version lack `provisional`.
    provisional = record.get("provisional")
    return record["mean"] is not None and not provisional and not lacks_replicates(record["note"])


def _cell(record: ComparisonRecord | None, best: float | None, *, sizes: bool) -> Cell | None:
    if record is None:
        return None
    # The test is against the best arm with as many labels, which is in the same column only if columns are sizes.
    tested = sizes and best is not None and record["p_to_best"] is not None and is_complete(record)
    return Cell(
        record=record,
        best=best is not None and record["mean"] == best and is_complete(record),
        close=record["p_to_best"] >= SIGNIFICANT if tested else None,
    )


def subject(selection: Mapping[str, str], baseline: str | None = None, *, unit: str = "") -> str:
    """Return the beginning of a caption: metric with its unit, series and baseline."""
    series = ", ".join((selection["class"], selection["aggregation"], selection["split"]))
    against = f"; difference to the baseline ({baseline}), p adjusted by Holm" if baseline else ""
    return f"{with_unit(selection['metric'], unit)} ({series}), mean (95 % interval){against}"


def label(value: object) -> str:
    """Format a value as a row or column label."""
    return f"{value:g}" if isinstance(value, float) else printable(str(value))
