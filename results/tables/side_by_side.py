"""Two studies in one table: the cells they share, and the difference of the second to the first."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from results.schema import factor_columns
from results.statistics.notes import lacks_replicates
from results.tables.layout import Cell, Record, Table, chosen, label, subject, without_baseline

if TYPE_CHECKING:
    import pyarrow as pa

LEVEL = "labelled_images"
OWN = ("difference_to_best", "p_to_best", "test")
"""Columns that compare a cell with other arms of its own study."""
Places = Mapping[tuple[Any, ...], Record]


def side_by_side(
    first: "pa.Table", second: "pa.Table", wanted: Mapping[str, str], *, comparable: bool, notes: Sequence[str] = ()
) -> Table:
    """Lay out the cells of two studies with equal factors and as many labelled images.

    The difference is second minus first, not tested, and shown only where `comparable`: on the same test images. It
    is not shown where replicates failed.
    Raises ValueError where the studies share no cell, or one has several for the same place.
    """
    first, second = chosen(first, wanted), chosen(second, wanted)
    factors = [name for name in _factors(first) if name in _factors(second)]
    names = tuple(str(table["study"][0]) for table in (first, second))
    own, other = (_cells(table, factors) for table in (first, second))
    shared = [place for place in own if place in other]
    if not shared:
        raise ValueError(
            f"{' and '.join(names)} share no cell; allowed: studies with equal {', '.join((*factors, LEVEL))}; "
            "choose others"
        )
    varying = [index for index in range(len(factors) + 1) if index == len(factors) or _varies(shared, index)]
    rows = (*factors, LEVEL)
    constant = [f"{rows[index]} {label(shared[0][index])}" for index in range(len(rows)) if index not in varying]
    difference = f"difference {names[1]} - {names[0]}, not tested" if comparable else "not comparable"
    return Table(
        caption="; ".join(filter(None, (subject(wanted), difference, ", ".join(constant)))),
        rows=tuple(rows[index] for index in varying),
        columns="study",
        row_labels=tuple(tuple(label(place[index]) for index in varying) for place in shared),
        column_labels=names,
        grid=tuple(_line(own[place], other[place], comparable=comparable) for place in shared),
        notes=(*notes, *_left_out(names, own, other)),
    )


def _factors(table: "pa.Table") -> tuple[str, ...]:
    return factor_columns(table.column_names)


def _cells(table: "pa.Table", factors: Sequence[str]) -> Places:
    """Return one record for each cell, without comparisons with the baseline and the best of its own study."""
    cells: dict[tuple[Any, ...], Record] = {}
    ignored = [name for name in _factors(table) if name not in factors]
    for record in table.to_pylist():
        place = tuple(record[name] for name in (*factors, LEVEL))
        known = cells.get(place)
        if known is not None and any(known[name] != record[name] for name in ignored):
            raise ValueError(
                f"{record['study']} has several cells for {' / '.join(map(label, place))} that differ in "
                f"{', '.join(ignored)}; allowed: factors that both studies have; compare studies with the same ones"
            )
        cells.setdefault(place, {**without_baseline(record), **dict.fromkeys(OWN)})
    return cells


def _varies(places: Sequence[tuple[Any, ...]], index: int) -> bool:
    return len({place[index] for place in places}) > 1


def _line(first: Record, second: Record, *, comparable: bool) -> tuple[Cell, Cell]:
    defined = all(cell["mean"] is not None and not lacks_replicates(cell["note"]) for cell in (first, second))
    if comparable and defined:
        second = {**second, "difference": second["mean"] - first["mean"], "baseline": first["study"]}
    return Cell(record=first, best=False), Cell(record=second, best=False)


def _left_out(names: tuple[str, ...], own: Places, other: Places) -> Sequence[str]:
    alone = ((names[0], own.keys() - other.keys()), (names[1], other.keys() - own.keys()))
    return [f"Cells only in {name}: {len(places)}." for name, places in alone if places]
