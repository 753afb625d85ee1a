"""The `published` section of a study file, as its table is compared with it."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from results.tables.published import Reported
from study.config.document import read_document
from study.errors import ConfigError, Problem
from study.planning.arms import text_of

if TYPE_CHECKING:
    from results.tables.layout import Table

LEVELS = ("labelled_fraction", "labelled_images")


def reported(spec: Path) -> list[Reported]:
    """Return every published value of a study's file. Raises `ConfigError` where it has none."""
    from study.config.schema import PUBLISHED

    sections = PUBLISHED.validate_python(read_document(spec).get("published", []))
    if not sections:
        message = "the study's file has no published values; allowed: a file with `published`; leave --published out"
        raise ConfigError([Problem(path="published", message=message)], str(spec))
    return [
        Reported(
            match={"metric": part.metric, "class": part.class_, "aggregation": part.aggregation}
            | _as_in_tables(row.match),
            value=row.value,
            source=part.source,
        )
        for part in sections
        for row in part.values
    ]


def _as_in_tables(match: Mapping[str, object]) -> dict[str, object]:
    """Return factor values as the text that results hold; amounts of labels stay numbers."""
    return {name: value if name in LEVELS else text_of(value) for name, value in match.items()}


def with_published(table: "Table", spec: Path) -> "Table":
    """Return the table with what papers report beside its cells."""
    from results.tables.published import beside

    return beside(table, reported(spec))
