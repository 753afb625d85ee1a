"""A study of imported results: its files in the storage, and the tables that are derived from its values."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from results import schema
from results.metrics.compute import ImageValues
from results.schema import FACTORS, SERIES, SIZES, ReplicateRecord, factor_columns
from results.statistics.across_datasets import ALL_ARMS, UNIT, rows_over_data_sets
from results.statistics.compare import as_table, compare
from results.statistics.design import Design, Family, baseline_key
from results.statistics.patient_level.sums import ScoredReplicate
from results.tables.sentences import rank_sentences
from study.analysis.derived_cache import by_file, read_derived, study_table, write_derived
from study.analysis.imported.checks import ImportSettings, import_problems
from study.analysis.imported.values import factors_of, grouped
from study.errors import ConfigError, Problem
from study.planning.digest import combined
from study.store.atomic import (
    AlteredFileError,
    Form,
    hash_of,
    intact_table,
    read_signed,
    write_signed,
    write_table,
)
from study.store.paths import COMPARISONS, IMPORTED, RESULTS, TESTS, VALUES
from study.store.store import Store

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_FORM = Form(frozenset(), lambda value: {"study", "source", "lines", "settings"} <= value.keys())
REPLICATE = ("fold", "seed")


def import_study(store: Store, name: str, values: "pd.DataFrame", settings: ImportSettings, source: Path) -> None:
    """Write a study of imported values, or replace an imported study of this name.

    Args:
        store: the storage.
        name: the name of the study.
        values: see `study.analysis.imported.values.ImportedValues`.
        settings: see `ImportSettings`.
        source: the file or folder of the values, for the record.

    Raises:
        ConfigError: The values do not fit the design, or a baseline does not exist.
    """
    import pyarrow as pa

    problems = list(import_problems(values, settings))
    if problems:
        raise ConfigError([Problem(path="", message=problem) for problem in problems], str(source))
    tables = derive(values, settings, name)
    folder = store.study(name)
    folder.mkdir(parents=True, exist_ok=True)
    for table in tables:  # an import that is interrupted leaves no tables of other values
        (folder / table).unlink(missing_ok=True)
    content = {"study": name, "source": str(source), "lines": len(values), "settings": asdict(settings)}
    write_signed(folder / IMPORTED, content)
    write_table(folder / VALUES, pa.Table.from_pandas(values, preserve_index=False).replace_schema_metadata())
    write_derived(folder, tables, _fingerprint(folder))


def refresh_tables(folder: Path) -> None:
    """Derive the tables of an imported study again unless they are up to date. Raises `AlteredFileError`."""
    fingerprint = _fingerprint(folder)
    if read_derived(folder, fingerprint) is None:
        settings = ImportSettings.from_json(read_imported(folder)["settings"])
        write_derived(folder, derive(read_stored_values(folder), settings, folder.name), fingerprint)


def _fingerprint(folder: Path) -> str:
    try:
        return combined("imported", folder.name, hash_of(folder / VALUES), hash_of(folder / IMPORTED))
    except FileNotFoundError as error:
        raise AlteredFileError(str(folder / VALUES), "is missing") from error


def is_imported(folder: Path) -> bool:
    """Return whether the folder of a study has imported results."""
    return (folder / IMPORTED).is_file()


def read_imported(folder: Path) -> dict[str, Any]:
    """Return `source`, `lines` and `settings` of an imported study. Raises `AlteredFileError`."""
    content = read_signed(folder / IMPORTED, _FORM)
    if content is None:
        raise AlteredFileError(str(folder / IMPORTED), "is missing")
    return content


def read_stored_values(folder: Path) -> "pd.DataFrame":
    """Return the values of an imported study. Raises `AlteredFileError`."""
    import pyarrow.parquet as pq

    try:
        frame: pd.DataFrame = pq.read_table(intact_table(folder / VALUES)).to_pandas()
    except FileNotFoundError as error:
        raise AlteredFileError(str(folder / VALUES), "is missing") from error
    return frame


def derive(values: "pd.DataFrame", settings: ImportSettings, study: str) -> "dict[str, pa.Table]":
    """Return the results, comparisons and tests of imported values by file name."""
    factors = factors_of(values)
    further = factors[len(FACTORS) :]
    key = [*factors, settings.level, *REPLICATE]
    values = values.assign(digest=[combined(*map(str, row)) for row in values[key].itertuples(index=False, name=None)])
    by_data_set = _means(values, [*key, "digest", "dataset"])
    results = _means(by_data_set, [*key, "digest"])
    table = as_table(results.assign(study=study, updates=0, scoring=""), schema.results(further))
    design = _design(values, factors, settings)
    derived = compare(table, design, _scored(values, factors, settings.level))
    if values["dataset"].nunique() > 1:
        tests = _joined(derived.tests, _tests_over_data_sets(by_data_set, study, factors, design), further)
        derived = derived._replace(tests=tests)
    return {RESULTS: table} | by_file(derived)


def _design(values: "pd.DataFrame", factors: Sequence[str], settings: ImportSettings) -> Design:
    arms = list(dict.fromkeys(values[list(factors)].itertuples(index=False, name=None)))
    families = []
    for factor, value in settings.baselines:
        pairs = {arm: baseline_key(dict(zip(factors, arm, strict=True)), {factor: value}) for arm in arms}
        families.append(Family(name=f"{factor}={value}", pairs=pairs))
    return Design(
        folds=values["fold"].nunique(),
        seeds=values["seed"].nunique(),
        families=families,
        fixed_test=settings.design == "fixed",
        fixed_split=not _folds_differ_by_seed(values),
        level=settings.level,
        lower_is_better=frozenset(settings.lower_is_better),
    )


def _folds_differ_by_seed(values: "pd.DataFrame") -> bool:
    """Return whether the test images of a fold differ between seeds; False where images are unknown."""
    by_fold: dict[int, set[frozenset[str]]] = {}
    for (fold, _), names in test_images(values).items():
        by_fold.setdefault(fold, set()).add(names)
    return any(len(sets) > 1 for sets in by_fold.values())


def _means(values: "pd.DataFrame", key: Sequence[str]) -> "pd.DataFrame":
    """Return the mean of the values of each series in each group; undefined images are left out, data sets are not."""
    counted = values if "images" in values else values.assign(images=values["value"].notna().astype("int64"))
    of_images = "images" not in values
    groups = counted.groupby([*key, *SERIES], sort=False, as_index=False)
    other_size = next(name for name in SIZES if name not in key)
    means = groups.agg(
        value=("value", lambda column: column.mean(skipna=of_images)),
        images=("images", "sum"),
        size=(other_size, "mean"),
    ).rename(columns={"size": other_size})
    means["labelled_images"] = means["labelled_images"].round().astype("int64")
    return means


def _scored(values: "pd.DataFrame", factors: Sequence[str], level: str) -> list[ScoredReplicate]:
    """Return the per-case values of each replicate; none where the file has no images."""
    per_case = values[(values["image"] != "") & values["split"].str.startswith("test")]
    scored = []
    for key, lines in grouped(per_case, [*factors, level, *REPLICATE, "digest"]):
        *texts, _, fold, seed, digest = key
        sizes = {name: lines[name].iloc[0] for name in SIZES}
        record = ReplicateRecord(
            factors=dict(zip(factors, texts, strict=True)), updates=0, fold=fold, seed=seed, digest=digest, **sizes
        )
        scored.append(
            ScoredReplicate(record, [_image_values(str(name[0]), part) for name, part in grouped(lines, ["split"])])
        )
    return scored


def _image_values(split: str, lines: "pd.DataFrame") -> ImageValues:
    grid = lines.pivot(index="image", columns=["class", "metric"], values="value").sort_index()
    patients = lines.drop_duplicates("image").set_index("image")["patient"].reindex(grid.index)
    return ImageValues(
        split=split,
        images=tuple(grid.index),
        patients=tuple(patients),
        series=tuple((str(name[0]), str(name[1])) for name in grid.columns),
        values=grid.to_numpy(np.float64),
        classes=(),
        averaged=(),
        counts=np.zeros((len(grid), 0, 4), dtype=np.int64),
    )


def _tests_over_data_sets(
    by_data_set: "pd.DataFrame", study: str, factors: Sequence[str], design: Design
) -> list[dict[str, object]]:
    """Return rows of the tests table: folds and seeds are averaged first, and arms are compared over data sets."""
    arms = list(dict.fromkeys(by_data_set[list(factors)].itertuples(index=False, name=None)))
    number = {arm: index for index, arm in enumerate(arms)}
    families = {
        family.name: [
            (number[arm], number[base]) for arm, base in family.pairs.items() if arm != base and base in number
        ]
        for family in design.families
    }
    lines = by_data_set.assign(
        arm=[number[key] for key in by_data_set[list(factors)].itertuples(index=False, name=None)]
    )
    rows: list[dict[str, object]] = []
    for key, part in grouped(lines, [design.level, *SERIES]):
        shared: dict[str, object] = {"study": study, **dict(zip([design.level, *SERIES], key, strict=True))}
        other_size = next(name for name in SIZES if name != design.level)
        shared[other_size] = part[other_size].mean()
        shared["labelled_images"] = round(float(part["labelled_images"].mean()))
        direction = design.direction(str(key[-1]))
        means = part.groupby(["dataset", "arm"], sort=False)["value"].agg(lambda column: column.mean(skipna=False))
        grid = means.unstack("arm").reindex(columns=range(len(arms)))
        for row in rows_over_data_sets(grid.to_numpy(np.float64), families, direction) if direction else ():
            arm = row.pop("arm")
            names = (ALL_ARMS,) * len(factors) if arm is None else arms[int(str(arm))]
            rows.append({**shared, **dict(zip(factors, names, strict=True)), **row})
    return rows


def _joined(tests: "pa.Table", rows: Sequence[Mapping[str, object]], further: Sequence[str]) -> "pa.Table":
    import pyarrow as pa

    columns = schema.paired_tests(further)
    defaults = {"tests": 0, "note": ""}
    added = [{name: _plain(row.get(name, defaults.get(name))) for name in columns.names} for row in rows]
    return pa.concat_tables([tests, pa.Table.from_pylist(added, schema=columns)])


def _plain(value: object) -> object:
    """Return None for NaN."""
    return None if isinstance(value, float) and np.isnan(value) else value


def test_images(values: "pd.DataFrame") -> Mapping[tuple[int, int], frozenset[str]]:
    """Return the test images by fold and seed; empty where they are unknown."""
    images = values[(values["image"] != "") & (values["split"] == "test")]
    return {(int(fold), int(seed)): frozenset(part["image"]) for (fold, seed), part in grouped(images, list(REPLICATE))}


def series_without_headline(folder: Path) -> dict[str, str] | None:
    """Return the first metric, class and aggregation of an imported study that lacks the headline metric; else None."""
    import pyarrow.parquet as pq

    if not is_imported(folder):
        return None
    columns = ["metric", "class", "aggregation", "split"]
    rows = pq.read_table(study_table(folder, COMPARISONS), columns=columns).to_pylist()
    if schema.HEADLINE in rows or not rows:
        return None
    tested = [row for row in rows if row["split"] == "test"]
    return dict((tested or rows)[0])


def aggregation_of(folder: Path, metric: str) -> str:
    """Return the aggregation that is shown of a metric unless one is chosen: what an imported study has of it."""
    default = schema.default_aggregation(metric)
    if not is_imported(folder):
        return default
    import pyarrow.parquet as pq

    filters = [("metric", "=", metric)]
    rows = pq.read_table(study_table(folder, COMPARISONS), columns=["aggregation"], filters=filters)
    stored = rows["aggregation"].unique().to_pylist()
    return default if default in stored or not stored else str(stored[0])


def data_set_notes(folder: Path, series: Mapping[str, str | None]) -> list[str]:
    """Return the comparison over data sets of an imported study as sentences; none without several data sets.

    Args:
        folder: The folder of the study.
        series: `metric`, `class`, `aggregation` and `split`; None for the headline's.
    """
    import pyarrow.parquet as pq

    if not is_imported(folder):
        return []
    chosen = {name: value or schema.HEADLINE[name] for name, value in series.items()}
    filters = [("unit", "=", UNIT), *((name, "=", value) for name, value in chosen.items())]
    rows = pq.read_table(study_table(folder, TESTS), filters=filters).to_pylist()
    if not rows:
        return []
    level = ImportSettings.from_json(read_imported(folder)["settings"]).level
    factors = factor_columns(list(rows[0]))
    varying = [name for name in factors if len({row[name] for row in rows} - {ALL_ARMS}) > 1]
    levels = list(dict.fromkeys(row[level] for row in rows))
    notes = []
    for value in levels:
        prefix = f"{level} {value:g}: " if len(levels) > 1 else ""
        sentences = rank_sentences([row for row in rows if row[level] == value], varying)
        notes += [prefix + sentence for sentence in sentences]
    return notes
