"""Cache of the derived tables of a study: a fingerprint in each table shows whether it is up to date."""

import importlib.metadata
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import results
from results.metrics.compute import MetricSettings, ScoringKey
from results.schema import FACTORS, SERIES, SIZES, ReplicateRecord
from study.planning.digest import combined
from study.store.atomic import AlteredFileError, hash_of, intact_table, write_table
from study.store.documents import of_study
from study.store.paths import BUDGETS, COMPARISONS, FORECAST, RESULTS, TESTS
from study.store.store import Store

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from results.statistics.compare import Tables

DERIVED = (RESULTS, COMPARISONS, TESTS, BUDGETS, FORECAST)
"""Names of the derived tables."""
LIBRARIES = ("numpy", "pandas", "pyarrow", "scipy")
FINGERPRINT_KEY = b"derived_from"
"""Key of the fingerprint in the metadata of a table."""
_SHARED = ("study", *FACTORS, *SIZES, *SERIES)
"""Columns of every table."""
ROWS = 65536
"""Rows of a Parquet row group; a reader of one metric skips the groups of other metrics."""


def stage_fingerprints(
    replicates: Iterable[ReplicateRecord], store: Store, settings: MetricSettings
) -> dict[ScoringKey, str]:
    """Return for each target stage a fingerprint of the inputs of its metrics: score files, settings, code."""
    shared = combined(_code_hash(), repr(settings))
    stages = dict.fromkeys((replicate.digest, replicate.scoring) for replicate in replicates)
    return {stage: combined(shared, *stage, *store.score_fingerprints(*stage)) for stage in stages}


@cache
def _code_hash() -> str:
    """Return a hash of the code that derives tables, so that it needs no version number."""
    sources = sorted(Path(results.__path__[0]).rglob("*.py"))
    return combined(*map(hash_of, sources), *map(importlib.metadata.version, LIBRARIES))


def by_file(tables: "Tables") -> "dict[str, pa.Table]":
    """Return the tables of a comparison by file name."""
    return dict(zip(DERIVED[1:], tables, strict=True))


def write_derived(folder: Path, tables: "Mapping[str, pa.Table]", fingerprint: str) -> None:
    """Write tables by file name, each atomically, with the fingerprint of their inputs."""
    for name, table in tables.items():
        stamped = table.replace_schema_metadata({FINGERPRINT_KEY: combined(fingerprint, *table.column_names)})
        write_table(folder / name, stamped, row_group_size=ROWS)


def study_table(folder: Path, name: str, columns: Iterable[str] = ()) -> Path:
    """Return the path of a table in a study's folder.

    Raises:
        AlteredFileError: The file is missing or altered, belongs to another study, or lacks `columns` or one of the
            columns of every table.
    """
    import pyarrow.parquet as pq

    file = folder / name
    try:
        metadata = pq.read_metadata(intact_table(file))
    except FileNotFoundError as error:
        raise AlteredFileError(str(file), "is missing") from error
    missing = [column for column in (*_SHARED, *columns) if column not in metadata.schema.to_arrow_schema().names]
    if missing:
        raise AlteredFileError(str(file), f"lacks the columns {', '.join(missing)}")
    foreign_studies = sorted(_studies(metadata) - {folder.name})
    if foreign_studies:
        raise AlteredFileError(str(file), of_study(foreign_studies[0]))
    return file


def _studies(metadata: "pq.FileMetaData") -> set[str]:
    """Return the names of studies in a table, read from its column statistics."""
    column = metadata.schema.names.index("study")
    statistics = [metadata.row_group(number).column(column).statistics for number in range(metadata.num_row_groups)]
    bounds = [(group.min, group.max) for group in statistics if group is not None and group.has_min_max]
    return {str(name) for minimum_and_maximum in bounds for name in minimum_and_maximum}


def read_derived(folder: Path, fingerprint: str) -> "pa.Table | None":
    """Return the comparisons if all tables have this fingerprint and their columns, else None."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schemas = [pq.read_schema(intact_table(folder / name)) for name in DERIVED]
        if all(
            (schema.metadata or {}).get(FINGERPRINT_KEY) == combined(fingerprint, *schema.names).encode()
            for schema in schemas
        ):
            return pq.read_table(folder / COMPARISONS).replace_schema_metadata()
    except (OSError, pa.ArrowInvalid, AlteredFileError):  # a table is missing or damaged
        pass
    return None
