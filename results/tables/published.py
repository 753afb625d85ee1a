"""What papers report, beside what a study found."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from results.tables.layout import Cell, Table, label


@dataclass(frozen=True, kw_only=True)
class Reported:
    """A published value, who published it, and the cells it is compared with: all whose columns match."""

    match: Mapping[str, Any]
    value: float
    source: str


def beside(table: Table, reported: Sequence[Reported]) -> Table:
    """Return the table with the published value of each cell, that of the closest match where several fit."""
    closest_first = sorted(reported, key=lambda one: -len(one.match))

    def found(cell: Cell | None) -> Cell | None:
        if cell is None:
            return None
        closest = next((one for one in closest_first if _fits(one, cell.record)), None)
        return cell if closest is None else replace(cell, published=closest.value, published_by=closest.source)

    return replace(table, grid=tuple(tuple(map(found, line)) for line in table.grid))


def _fits(one: Reported, record: Mapping[str, Any]) -> bool:
    return all(name in record and label(record[name]) == label(value) for name, value in one.match.items())
