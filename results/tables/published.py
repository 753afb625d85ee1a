"""Add values that papers report to a table of results."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from results.tables.layout import Cell, Table, label


@dataclass(frozen=True, kw_only=True)
class ReportedValue:
    """A published value, its source, and the cells it belongs to: all whose columns match."""

    match: Mapping[str, Any]
    value: float
    source: str


def add_published(table: Table, published: Sequence[ReportedValue]) -> Table:
    """Return the table with the published value of each cell; if several match, the most specific one."""
    by_specificity = sorted(published, key=lambda value: -len(value.match))

    def with_published(cell: Cell | None) -> Cell | None:
        if cell is None:
            return None
        closest = next((value for value in by_specificity if _fits(value, cell.record)), None)
        return cell if closest is None else replace(cell, published=closest.value, published_by=closest.source)

    return replace(table, grid=tuple(tuple(map(with_published, line)) for line in table.grid))


def _fits(published: ReportedValue, record: Mapping[str, Any]) -> bool:
    return all(name in record and label(record[name]) == label(value) for name, value in published.match.items())
