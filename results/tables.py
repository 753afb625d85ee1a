"""Lay a comparisons table out: arms down, one factor across. Nothing is computed but the best of a column."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from results.schema import HEADLINE, SIGNIFICANT, SIZES, direction, factor_columns
from results.sentences import labels_sentences

if TYPE_CHECKING:
    import pyarrow as pa

Record = Mapping[str, Any]
LABELS = ("labels_equivalent", "labels_equivalent_low", "labels_equivalent_high", "labels_saved")
AGAINST = ("difference", "p", "p_adjusted", "effect_size", *LABELS)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One line of the comparisons table, whether no other of its column is better, and what a paper reports.

    `close` says that it cannot be told from the best of its column, None where that was not asked or not tested.
    """

    record: Record
    best: bool
    close: bool | None = None
    published: float | None = None
    published_by: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A grid of cells by row and column label, None where nothing ran; `rows` name the labels' factors.

    `notes` stand below it.
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
    metric: str = "mean_iou",
    class_: str = "macro",
    aggregation: str = "dataset",
    split: str = "test",
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
    columns = columns or min(SIZES, key=lambda name: len({record[name] for record in records}))
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


Place = tuple[tuple[Any, ...], Any]


def chosen(comparisons: "pa.Table", wanted: Mapping[str, str]) -> "pa.Table":
    """Keep the rows with every wanted value; ValueError names those there are where none has it."""
    import pyarrow.compute as pc

    for name, value in wanted.items():
        kept = comparisons.filter(pc.equal(comparisons[name], value))
        if not kept.num_rows:
            _known(name, [value], comparisons[name].unique().to_pylist())
        comparisons = kept
    return comparisons


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
    """Keep one record a cell: that of the baseline, else any without what it says of another baseline."""
    kept: dict[tuple[Any, ...], Record] = {}
    for record in records:
        place = tuple(record[name] for name in places)
        if record["baseline"] == baseline:
            kept[place] = record
        else:
            kept.setdefault(place, {**record, **dict.fromkeys(AGAINST), "baseline": ""})
    return list(kept.values())


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
    means = [record["mean"] for (_, at), record in cells.items() if at == column and record["mean"] is not None]
    return max(means, key=lambda mean: sign * mean) if sign and len(means) > 1 else None


def _cell(record: Record | None, best: float | None, *, sizes: bool) -> Cell | None:
    if record is None:
        return None
    # The test is against the best arm with the same labels: that of the column where sizes stand across.
    p = record.get("p_to_best") if sizes else None
    return Cell(
        record=record,
        best=best is not None and record["mean"] == best,
        close=None if p is None else p >= SIGNIFICANT,
    )


def subject(wanted: Mapping[str, str], baseline: str | None = None) -> str:
    """Return what the numbers of a table are."""
    where = ", ".join((wanted["class"], wanted["aggregation"], wanted["split"]))
    against = f"; difference to the baseline ({baseline}), p adjusted by Holm" if baseline else ""
    return f"{wanted['metric']} ({where}), mean (95 % interval){against}"


def label(value: object) -> str:
    """Return how a value is written in the margin."""
    return f"{value:g}" if isinstance(value, float) else str(value)
