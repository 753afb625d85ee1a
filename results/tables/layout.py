"""Lay a comparisons table out: arms down, one factor across. Nothing is computed but the best of a column."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from results import schema
from results.schema import HEADLINE, SIGNIFICANT, SIZES, direction, factor_columns
from results.statistics.notes import BASELINE_FAILED, BASELINE_PENDING, ITSELF, NO_PAIR, lacks_replicates
from results.tables.sentences import cell_of, labels_sentences
from results.text import printable

if TYPE_CHECKING:
    import pyarrow as pa

Record = Mapping[str, Any]
PER_CASE_DICE = {"aggregation": "case", "metric": "dice"}
DEFAULT_METRICS = ("mean IoU (pooled)", "Dice (per case)")
LABELS = ("labels_equivalent", "labels_equivalent_low", "labels_equivalent_high", "labels_saved")
AGAINST = ("difference", "p", "p_adjusted", "effect_size", "p_better", "p_equivalent", "p_worse", *LABELS)
"""Columns that compare a cell with its baseline."""
OF_BASELINE = (ITSELF, NO_PAIR, BASELINE_FAILED, BASELINE_PENDING)
"""Notes that a cell has because of its baseline."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One line of the comparisons table, whether no other of its column is better, and what a paper reports.

    `close` says that it does not differ significantly from the best of its column, None where that was not tested.
    """

    record: Record
    best: bool
    close: bool | None = None
    published: float | None = None
    published_by: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A grid of cells by row and column label, None where nothing ran; `rows` name the factors of the row labels.

    `notes` are shown below the grid.
    """

    caption: str
    rows: tuple[str, ...]
    columns: str
    row_labels: tuple[tuple[str, ...], ...]
    column_labels: tuple[str, ...]
    grid: tuple[tuple[Cell | None, ...], ...]
    notes: tuple[str, ...] = ()


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

    `rows` defaults to the factors that vary, `columns` to the size the study sets, `baseline` to the first there is.

    `rows` may name "baseline", which gives every baseline its own line. Raises ValueError where a name is
    unknown, or where rows and columns leave out a factor that varies.
    """
    wanted = {"split": split, "aggregation": aggregation, "metric": metric, "class": class_}
    records: Sequence[Record] = chosen(comparisons, wanted).to_pylist()
    places = ("study", *factor_columns(comparisons.column_names), *SIZES)
    columns = columns or study_level(records)
    _known("columns", [columns], (*places, "baseline"))
    _known("rows", rows or (), [name for name in (*places, "baseline") if name != columns])
    if "baseline" not in (*(rows or ()), columns):
        baseline = _baseline(records, baseline)
        records = _against(records, baseline, places)
    varying = [name for name in places if len({record[name] for record in records}) > 1]
    shown = _default_rows(varying, columns) if rows is None else tuple(rows)
    cells = _placed(records, shown, columns, varying)
    across = list(dict.fromkeys(_sorted(record[columns] for record in records)))
    best = {column: _best(cells, column, direction(metric)) for column in across}
    down = list(dict.fromkeys(row for row, _ in cells))
    shared = [f"{name} {label(records[0][name])}" for name in places if name not in (*varying, *shown, columns)]
    return Table(
        caption="; ".join(filter(None, (subject(wanted, baseline), ", ".join(shared)))),
        rows=shown,
        columns=columns,
        row_labels=tuple(tuple(map(label, row)) for row in down),
        column_labels=tuple(map(label, across)),
        grid=tuple(
            tuple(_cell(cells.get((row, column)), best[column], sizes=columns in SIZES) for column in across)
            for row in down
        ),
        notes=tuple(labels_sentences(records)) if wanted == HEADLINE else (),
    )


def default_table(
    comparisons: "pa.Table",
    *,
    class_: str = HEADLINE["class"],
    split: str = HEADLINE["split"],
    rows: Sequence[str] | None = None,
    columns: str | None = None,
) -> Table:
    """Lay out mean IoU (pooled) and Dice (per case) side by side; mean IoU alone where there is no Dice."""
    pooled = table(comparisons, class_=class_, split=split, rows=rows, columns=columns)
    wanted = {"split": split, "class": class_}
    try:
        chosen(comparisons, wanted | PER_CASE_DICE)
    except ValueError:
        return pooled
    case = table(comparisons, class_=class_, split=split, rows=rows, columns=columns, **PER_CASE_DICE)
    if (pooled.row_labels, pooled.column_labels) != (case.row_labels, case.column_labels):
        return pooled
    further = pooled.caption.removeprefix(subject(HEADLINE | wanted))
    return replace(
        pooled,
        caption=f"{' and '.join(DEFAULT_METRICS)}; {class_}, {split}; mean (95 % interval){further}",
        column_labels=tuple(f"{label}: {name}" for label in pooled.column_labels for name in DEFAULT_METRICS),
        grid=tuple(
            tuple(cell for both in zip(first, second, strict=True) for cell in both)
            for first, second in zip(pooled.grid, case.grid, strict=True)
        ),
    )


Place = tuple[tuple[Any, ...], Any]


def chosen(comparisons: "pa.Table", wanted: Mapping[str, str]) -> "pa.Table":
    """Keep the rows with every wanted value.

    Raises ValueError where no row has them, with the values that there are, and for tables of an older version.
    """
    import pyarrow.compute as pc

    for name, value in wanted.items():
        kept = comparisons.filter(pc.equal(comparisons[name], value))
        if not kept.num_rows:
            _known(name, [value], comparisons[name].unique().to_pylist())
        comparisons = kept
    if is_older(comparisons):
        raise ValueError(
            f"the comparisons of {comparisons['study'][0]} were written by an older version; allowed: those of this "
            "version; run the study again"
        )
    return comparisons


def is_older(comparisons: "pa.Table") -> bool:
    """Return whether a comparisons table lacks columns of this version, whose tests are other ones."""
    return not set(schema.comparisons().names) <= set(comparisons.column_names)


def study_level(records: Sequence[Record]) -> str:
    """Return the size that a study sets: the other one may be equal at several levels, or differ at one.

    It is the size that distinguishes the cells of each arm, of both the one with fewer values.
    """

    def order(name: str) -> tuple[bool, int]:
        cells = {cell_of(record) for record in records}
        places = {(*record_arm(record), record[name]) for record in records}
        return len(places) < len(cells), len({record[name] for record in records})

    return min(SIZES, key=order)


def record_arm(record: Record) -> tuple[str, ...]:
    """Return the factor values of a record."""
    return tuple(record[name] for name in factor_columns(list(record)))


def selected(records: Sequence[Record], wanted: Mapping[str, str]) -> Sequence[Record]:
    """Keep the records with every wanted value; ValueError names those there are where none has it."""
    for name, value in wanted.items():
        there = dict.fromkeys(str(record[name]) for record in records)
        _known(name, [value], list(there))
        records = [record for record in records if record[name] == value]
    return records


def _known(name: str, values: Iterable[str], allowed: Sequence[str]) -> None:
    for value in values:
        if value not in allowed:
            there = ", ".join(allowed) or "nothing yet"
            raise ValueError(f"{name} is {value}; allowed: {there}; choose one that has results")


def _baseline(records: Sequence[Record], baseline: str | None) -> str:
    there = [name for name in dict.fromkeys(record["baseline"] for record in records) if name]
    if baseline is not None:
        _known("baseline", [baseline], there)
        return baseline
    return there[0] if there else ""


def _against(records: Sequence[Record], baseline: str, places: Sequence[str]) -> Sequence[Record]:
    """Keep one record for each cell: that with this baseline, else another without what it says of its baseline."""
    kept: dict[tuple[Any, ...], Record] = {}
    for record in records:
        place = tuple(record[name] for name in places)
        if record["baseline"] == baseline:
            kept[place] = record
        else:
            kept.setdefault(place, without_baseline(record))
    return list(kept.values())


def without_baseline(record: Record) -> Record:
    """Return a record without what it says of its baseline."""
    notes = record["note"].split("; ")
    return {
        **record,
        **dict.fromkeys(AGAINST),
        "baseline": "",
        "labels_equivalent_side": "",
        "provisional": record["provisional"] and BASELINE_PENDING not in notes,
        "note": "; ".join(note for note in notes if note not in OF_BASELINE),
    }


def _default_rows(varying: Sequence[str], columns: str) -> tuple[str, ...]:
    # Both sizes say the same: one of them is enough.
    sizes = SIZES if columns in SIZES else SIZES[1:]
    return tuple(name for name in varying if name != columns and name not in sizes)


def _placed(
    records: Sequence[Record], rows: Sequence[str], columns: str, varying: Sequence[str]
) -> Mapping[Place, Record]:
    cells: dict[Place, Record] = {}
    for record in records:
        place = (tuple(record[name] for name in rows), record[columns])
        if place in cells:
            missing = [name for name in varying if record[name] != cells[place][name]]
            raise ValueError(f"rows are {', '.join(rows) or 'none'}; allowed: all that vary; add {', '.join(missing)}")
        cells[place] = record
    return cells


def _sorted(values: Iterable[Any]) -> Sequence[Any]:
    values = list(values)
    return values if isinstance(values[0], str) else sorted(values)


def _best(cells: Mapping[Place, Record], column: object, sign: int) -> float | None:
    """Return the best mean of a column among complete cells; None while a cell of it lacks replicates."""
    records = [record for (_, at), record in cells.items() if at == column]
    if not sign or any(record["provisional"] for record in records):
        return None
    # An arm that is undefined in some replicates has a mean over other cases.
    most = max((record["n"] for record in records), default=0)
    means = [record["mean"] for record in records if is_complete(record) and record["n"] == most]
    return max(means, key=lambda mean: sign * mean) if len(means) > 1 else None


def is_complete(record: Record) -> bool:
    """Return whether the mean of a record is defined and no replicate is missing or failed."""
    # Tables of an earlier version lack `provisional`.
    provisional = record.get("provisional")
    return record["mean"] is not None and not provisional and not lacks_replicates(record["note"])


def _cell(record: Record | None, best: float | None, *, sizes: bool) -> Cell | None:
    if record is None:
        return None
    # The test is against the best arm with the same labels: that of the column where sizes are the columns.
    tested = sizes and best is not None and record["p_to_best"] is not None and is_complete(record)
    return Cell(
        record=record,
        best=best is not None and record["mean"] == best and is_complete(record),
        close=record["p_to_best"] >= SIGNIFICANT if tested else None,
    )


def subject(wanted: Mapping[str, str], baseline: str | None = None) -> str:
    """Return what the numbers of a table are, as its caption begins."""
    where = ", ".join((wanted["class"], wanted["aggregation"], wanted["split"]))
    against = f"; difference to the baseline ({baseline}), p adjusted by Holm" if baseline else ""
    return f"{wanted['metric']} ({where}), mean (95 % interval){against}"


def label(value: object) -> str:
    """Return a value as row and column labels show it."""
    return f"{value:g}" if isinstance(value, float) else printable(str(value))
