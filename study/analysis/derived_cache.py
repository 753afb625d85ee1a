"""The tables of a study, and whether they are still what would be derived anew."""

import importlib.metadata
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import results
from results.metrics.compute import MetricSettings, Stage
from results.schema import FACTORS, SERIES, SIZES, Replicate
from study.planning.digest import combined
from study.store.atomic import AlteredFileError, hash_of, intact_table, write_table
from study.store.documents import of_study
from study.store.paths import COMPARISONS, RESULTS, TESTS
from study.store.store import Store

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

LIBRARIES = ("numpy", "pandas", "pyarrow", "scipy")
MARK = b"derived_from"
"""Key of a table's metadata."""
_SHARED = ("study", *FACTORS, *SIZES, *SERIES)
"""Columns of every table."""
ROWS = 65536
"""Rows of a Parquet group; a reader of one metric skips the others."""


def stage_marks(replicates: Iterable[Replicate], store: Store, settings: MetricSettings) -> dict[Stage, str]:
    """Return for each target stage what its numbers are made of: state of its scores, settings, code."""
    shared = combined(_code(), repr(settings))
    stages = dict.fromkeys((one.digest, one.scoring) for one in replicates)
    return {stage: combined(shared, *stage, *store.score_times(*stage)) for stage in stages}


@cache
def _code() -> str:
    """Return a hash of what turns counts into tables, so that nobody has to raise a number for it."""
    sources = sorted(Path(results.__path__[0]).rglob("*.py"))
    return combined(*map(hash_of, sources), *map(importlib.metadata.version, LIBRARIES))


def write_derived(folder: Path, tables: "Mapping[str, pa.Table]", mark: str) -> None:
    """Write tables by name, each whole or not at all, with the mark of what they are derived from."""
    for name, table in tables.items():
        marked = table.replace_schema_metadata({MARK: combined(mark, *table.column_names)})
        write_table(folder / name, marked, row_group_size=ROWS)


def study_table(folder: Path, name: str, columns: Iterable[str] = ()) -> Path:
    """Return the path of a table in a study's folder. Raises `AlteredFileError`.

    It is as it was written, was written for this study, and has `columns` beside those of every table.
    """
    import pyarrow.parquet as pq

    file = folder / name
    try:
        metadata = pq.read_metadata(intact_table(file))
    except FileNotFoundError as error:
        raise AlteredFileError(str(file), "is missing") from error
    lacking = [column for column in (*_SHARED, *columns) if column not in metadata.schema.to_arrow_schema().names]
    if lacking:
        raise AlteredFileError(str(file), f"lacks the columns {', '.join(lacking)}")
    others = sorted(_studies(metadata) - {folder.name})
    if others:
        raise AlteredFileError(str(file), of_study(others[0]))
    return file


def _studies(metadata: "pq.FileMetaData") -> set[str]:
    """Return the names of studies in a table, read from its column statistics."""
    at = metadata.schema.names.index("study")
    groups = [metadata.row_group(number).column(at).statistics for number in range(metadata.num_row_groups)]
    return {str(name) for one in groups if one is not None and one.has_min_max for name in (one.min, one.max)}


def read_derived(folder: Path, mark: str) -> "pa.Table | None":
    """Return the comparisons where all tables are there with this mark and the columns it was written for."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        found = [pq.read_schema(intact_table(folder / name)) for name in (RESULTS, COMPARISONS, TESTS)]
        if all((one.metadata or {}).get(MARK) == combined(mark, *one.names).encode() for one in found):
            return pq.read_table(folder / COMPARISONS).replace_schema_metadata()
    except (OSError, pa.ArrowInvalid, AlteredFileError):  # one is missing, or damaged
        pass
    return None
