"""Published values of a study file, for comparison with its results."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from results.tables.published import ReportedValue
from study.config.document import read_document
from study.errors import ConfigError, Problem
from study.planning.arms import text_of

if TYPE_CHECKING:
    from results.tables.layout import Table
    from study.config.schema import Published

LEVELS = ("labelled_fraction", "labelled_images")


def read_published(spec: Path) -> list[ReportedValue]:
    """Return the published values of a study file. Raises `ConfigError` if there are none."""
    from study.config.schema import PUBLISHED

    sections = PUBLISHED.validate_python(read_document(spec).get("published", []))
    if not sections:
        message = "the study's file has no published values; allowed: a file with `published`; leave --published out"
        raise ConfigError([Problem(path="published", message=message)], str(spec))
    return [
        ReportedValue(
            match=_series(part) | _table_values(row.match),
            value=row.value,
            source=part.source,
        )
        for part in sections
        for row in part.values
    ]


def _series(part: "Published") -> dict[str, object]:
    """Return the columns that identify the published series in a table of arms, or of one stage."""
    split: dict[str, object] = {"split": part.split} if part.split else {}
    if part.stage is not None:
        return {"metric": part.metric, "stage": part.stage, **split}
    return {"metric": part.metric, "class": part.class_, "aggregation": part.aggregation, **split}


def _table_values(match: Mapping[str, object]) -> dict[str, object]:
    """Return factor values as text, as in the results table; amounts of labels remain numbers."""
    return {name: value if name in LEVELS else text_of(value) for name, value in match.items()}


def with_published(table: "Table", spec: Path) -> "Table":
    """Return the table with the published values next to its cells."""
    from results.tables.published import add_published

    return add_published(table, read_published(spec))
