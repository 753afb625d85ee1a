"""Show two studies in one table: their shared cells, and the difference of the second to the first."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from results.schema import ComparisonRecord, factor_columns, unit_of
from results.statistics.notes import lacks_replicates
from results.tables.layout import Cell, Table, label, select_rows, subject, without_baseline

if TYPE_CHECKING:
    import pyarrow as pa

LEVEL = "labelled_images"
WITHIN_STUDY = ("difference_to_best", "p_to_best", "test")
"""Columns that compare a cell with other arms of the same study."""
RecordsByCell = Mapping[tuple[Any, ...], ComparisonRecord]


def side_by_side(
    first: "pa.Table", second: "pa.Table", selection: Mapping[str, str], *, comparable: bool, notes: Sequence[str] = ()
) -> Table:
    """Lay out the cells of two studies with equal factors and equally many labelled images.

    The difference is second minus first, without a test; only shown if `comparable`, that is on the same test images,
    and if no replicate failed.

    Raises:
        ValueError: If the studies share no cell, or a study has several for the same factors.
    """
    first, second = select_rows(first, selection), select_rows(second, selection)
    factors = [name for name in _factors(first) if name in _factors(second)]
    names = tuple(str(table["study"][0]) for table in (first, second))
    first_cells, second_cells = (_cells(table, factors) for table in (first, second))
    shared = [key for key in first_cells if key in second_cells]
    if not shared:
        raise ValueError(
            f"{' and '.join(names)} share no cell; allowed: studies with equal {', '.join((*factors, LEVEL))}; "
            "choose others"
        )
    varying = [index for index in range(len(factors) + 1) if index == len(factors) or _varies(shared, index)]
    rows = (*factors, LEVEL)
    constant = [f"{rows[index]} {label(shared[0][index])}" for index in range(len(rows)) if index not in varying]
    unit = unit_of([record for cells in (first_cells, second_cells) for record in cells.values()])
    difference = f"difference {names[1]} - {names[0]}, not tested" if comparable else "not comparable"
    return Table(
        caption="; ".join(filter(None, (subject(selection, unit=unit), difference, ", ".join(constant)))),
        rows=tuple(rows[index] for index in varying),
        columns="study",
        row_labels=tuple(tuple(label(key[index]) for index in varying) for key in shared),
        column_labels=names,
        grid=tuple(_line(first_cells[key], second_cells[key], comparable=comparable) for key in shared),
        notes=(*notes, *_unshared_notes(names, first_cells, second_cells)),
    )


def _factors(table: "pa.Table") -> tuple[str, ...]:
    return factor_columns(table.column_names)


def _cells(table: "pa.Table", factors: Sequence[str]) -> RecordsByCell:
    """Return one record for each cell, without comparisons with the baseline and the best of the same study."""
    cells: dict[tuple[Any, ...], ComparisonRecord] = {}
    ignored = [name for name in _factors(table) if name not in factors]
    for record in table.to_pylist():
        key = tuple(record[name] for name in (*factors, LEVEL))
        earlier = cells.get(key)
        if earlier is not None and any(earlier[name] != record[name] for name in ignored):
            raise ValueError(
                f"{record['study']} has several cells for {' / '.join(map(label, key))} that differ in "
                f"{', '.join(ignored)}; allowed: factors that both studies have; compare studies with the same ones"
            )
        cells.setdefault(key, {**without_baseline(record), **dict.fromkeys(WITHIN_STUDY)})
    return cells


def _varies(keys: Sequence[tuple[Any, ...]], index: int) -> bool:
    return len({key[index] for key in keys}) > 1


def _line(first: ComparisonRecord, second: ComparisonRecord, *, comparable: bool) -> tuple[Cell, Cell]:
    defined = all(cell["mean"] is not None and not lacks_replicates(cell["note"]) for cell in (first, second))
    if comparable and defined:
        second = {**second, "difference": second["mean"] - first["mean"], "baseline": first["study"]}
    return Cell(record=first, best=False), Cell(record=second, best=False)


def _unshared_notes(names: tuple[str, ...], first: RecordsByCell, second: RecordsByCell) -> Sequence[str]:
    unshared = ((names[0], first.keys() - second.keys()), (names[1], second.keys() - first.keys()))
    return [f"Cells only in {name}: {len(keys)}." for name, keys in unshared if keys]
