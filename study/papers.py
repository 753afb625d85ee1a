"""The `published` section of a study file, as its table is compared with it."""

from pathlib import Path
from typing import TYPE_CHECKING

from results.published import Reported
from study.document import read_document
from study.problems import Problem, Refused

if TYPE_CHECKING:
    from results.tables import Table


def reported(spec: Path) -> list[Reported]:
    """Return every published value of a study's file. Raises `Refused` where it has none."""
    from study.spec import PUBLISHED

    sections = PUBLISHED.validate_python(read_document(spec).get("published", []))
    if not sections:
        message = "the study's file has no published values; allowed: a file with `published`; leave --published out"
        raise Refused([Problem(path="published", message=message)], str(spec))
    return [
        Reported(
            match={"metric": part.metric, "class": part.class_, "aggregation": part.aggregation, **row.match},
            value=row.value,
            source=part.source,
        )
        for part in sections
        for row in part.values
    ]


def with_published(table: "Table", spec: Path) -> "Table":
    """Return the table with what papers report beside its cells."""
    from results.published import beside

    return beside(table, reported(spec))
