"""A study of imported results: its files in the storage, and the tables that are derived from its values."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from results import schema
from results.metrics.compute import ImageValues
from results.schema import FACTORS, SIZES, ReplicateRecord, factor_columns
from results.statistics.across_datasets import ALL_ARMS, UNIT, rank_sentences, rows_over_data_sets
from results.statistics.compare import as_table, compare
from results.statistics.design import Design, Family
from results.statistics.patient_level.sums import ScoredReplicate
from study.analysis.derived_cache import study_table, write_derived
from study.analysis.imported.checks import ImportSettings, import_problems
from study.analysis.imported.values import factors_of, grouped
from study.errors import ConfigError, Problem
from study.planning.digest import combined
from study.store.atomic import AlteredFileError, Form, intact_table, read_signed, write_signed, write_table
from study.store.paths import COMPARISONS, IMPORTED, RESULTS, TESTS, VALUES
from study.store.store import Store

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_FORM = Form(frozenset(), lambda value: {"study", "source", "settings"} <= value.keys())


def import_study(store: Store, name: str, values: "pd.DataFrame", settings: ImportSettings, source: Path) -> None:
    """Write a study of imported values, or replace an imported study of this name.

    Args:
        store: the storage.
        name: the name of the study.
        values: see `study.analysis.imported.values.read_values`.
        settings: see `ImportSettings`.
        source: the file or folder of the values, for the record.

    Raises:
        ConfigError: The values do not fit the design, or a baseline does not exist.
    """
    import pyarrow as pa

    problems = list(import_problems(values, settings))
    if problems:
        raise ConfigError([Problem(path="", message=problem) for problem in problems], str(source))
    folder = store.study(name)
    folder.mkdir(parents=True, exist_ok=True)
    write_table(folder / VALUES, pa.Table.from_pandas(values, preserve_index=False).replace_schema_metadata())
    write_signed(
        folder / IMPORTED,
        {"study": name, "source": str(source), "lines": len(values), "settings": asdict(settings)},
    )
    derive_tables(folder)


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


def derive_tables(folder: Path) -> None:
    """Derive the tables of an imported study from its values."""
    values, content = read_stored_values(folder), read_imported(folder)["settings"]
    settings = ImportSettings(
        design=content["design"],
        baselines=tuple((factor, value) for factor, value in content["baselines"]),
        lower_is_better=tuple(content["lower_is_better"]),
    )
    factors = factors_of(values)
    further = factors[len(FACTORS) :]
    values["digest"] = [
        combined(*map(str, key))
        for key in values[[*factors, *SIZES, "fold", "seed"]].itertuples(index=False, name=None)
    ]
    design = _design(values, factors, settings)
    results = _results(folder.name, values, factors)
    derived = compare(as_table(results, schema.results(further)), design, _scored(values, factors))
    tests = _with_data_sets(derived.tests, folder.name, values, factors, design)
    tables = {RESULTS: as_table(results, schema.results(further)), COMPARISONS: derived.comparisons, TESTS: tests}
    write_derived(folder, tables, combined("imported", folder.name))


def _design(values: "pd.DataFrame", factors: Sequence[str], settings: ImportSettings) -> Design:
    arms = list(dict.fromkeys(values[list(factors)].itertuples(index=False, name=None)))
    families = []
    for factor, value in settings.baselines:
        index = list(factors).index(factor)
        pairs = {arm: (*arm[:index], value, *arm[index + 1 :]) for arm in arms}
        families.append(Family(name=f"{factor}={value}", pairs=pairs))
    return Design(
        folds=values["fold"].nunique(),
        seeds=values["seed"].nunique(),
        families=families,
        fixed_test=settings.design == "fixed",
        fixed_split=not _folds_differ_by_seed(values),
        level=level_of(values),
        lower_is_better=frozenset(settings.lower_is_better),
    )


def level_of(values: "pd.DataFrame") -> schema.Level:
    """Return the column of labelled data that identifies cells: the fraction, unless only numbers of images vary."""
    by_fraction = values["labelled_fraction"].nunique() > 1 or values["labelled_images"].nunique() < 2
    return "labelled_fraction" if by_fraction else "labelled_images"


def _folds_differ_by_seed(values: "pd.DataFrame") -> bool:
    """Return whether the test images of a fold differ between seeds; False where images are unknown."""
    by_fold: dict[int, set[frozenset[str]]] = {}
    for (fold, _), names in test_images(values).items():
        by_fold.setdefault(fold, set()).add(names)
    return any(len(sets) > 1 for sets in by_fold.values())


def _results(study: str, values: "pd.DataFrame", factors: Sequence[str]) -> "pd.DataFrame":
    """Return the results table: means over images, then over data sets."""
    key = [*factors, *SIZES, "fold", "seed", *schema.SERIES]
    by_data_set = values.groupby([*key, "dataset", "digest"], sort=False, as_index=False).agg(
        value=("value", "mean"), images=("value", "count")
    )
    means = by_data_set.groupby([*key, "digest"], sort=False, as_index=False).agg(
        value=("value", lambda column: column.mean(skipna=False)), images=("images", "sum")
    )
    return means.assign(study=study, updates=0, scoring="")


def _scored(values: "pd.DataFrame", factors: Sequence[str]) -> list[ScoredReplicate]:
    """Return the per-case values of each replicate; none where the file has no images."""
    per_case = values[(values["image"] != "") & values["split"].str.startswith("test")]
    scored = []
    for key, lines in grouped(per_case, [*factors, *SIZES, "fold", "seed", "digest"]):
        *texts, fraction, images, fold, seed, digest = key
        record = ReplicateRecord(
            factors=dict(zip(factors, texts, strict=True)), labelled_fraction=fraction, labelled_images=images,
            updates=0, fold=fold, seed=seed, digest=digest,
        )  # fmt: skip
        scored.append(
            ScoredReplicate(record, [_image_values(str(name[0]), part) for name, part in grouped(lines, ["split"])])
        )
    return scored


def _image_values(split: str, lines: "pd.DataFrame") -> ImageValues:
    lines = lines.assign(image=lines["dataset"].where(lines["dataset"] == "", lines["dataset"] + "/") + lines["image"])
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


def _with_data_sets(
    tests: "pa.Table", study: str, values: "pd.DataFrame", factors: Sequence[str], design: Design
) -> "pa.Table":
    """Add the comparison over data sets."""
    import pandas as pd

    if values["dataset"].nunique() < 2:
        return tests
    names = dict.fromkeys(values[list(factors)].itertuples(index=False, name=None))
    text_of = {arm: " / ".join(arm) for arm in names}
    arm_of = {text: arm for arm, text in text_of.items()}
    families = {
        family.name: {text_of[arm]: " / ".join(baseline) for arm, baseline in family.pairs.items()}
        for family in design.families
    }
    lines = values.assign(arm=[text_of[key] for key in values[list(factors)].itertuples(index=False, name=None)])
    rows: list[dict[str, object]] = []
    for key, part in grouped(lines, [*SIZES, *schema.SERIES]):
        shared = dict(zip([*SIZES, *schema.SERIES], key, strict=True))
        grid = part.pivot_table(index="dataset", columns="arm", values="value", sort=False)
        arms = [str(arm) for arm in grid.columns]
        direction = design.direction(str(shared["metric"]))
        for row in rows_over_data_sets(grid.to_numpy(np.float64), arms, families, direction):
            arm = arm_of.get(str(row.pop("arm")), (ALL_ARMS,) * len(factors))
            rows.append({"study": study, **dict(zip(factors, arm, strict=True)), **shared, **row})
    columns = schema.paired_tests(factors[len(FACTORS) :])
    added = pd.DataFrame(rows).reindex(columns=columns.names)
    added["tests"] = added["tests"].fillna(0)
    added["degrees_of_freedom"] = added["degrees_of_freedom"].astype("Int64")
    frame = pd.concat([tests.to_pandas(types_mapper=pd.ArrowDtype).astype(object), added.astype(object)])
    return as_table(frame.where(frame.notna(), None), columns)


def test_images(values: "pd.DataFrame") -> Mapping[tuple[int, int], frozenset[str]]:
    """Return the test images by fold and seed; empty where they are unknown."""
    images = values[(values["image"] != "") & (values["split"] == "test")]
    return {
        (int(fold), int(seed)): frozenset(part["image"]) for (fold, seed), part in grouped(images, ["fold", "seed"])
    }


def first_series(folder: Path) -> dict[str, str] | None:
    """Return the first metric, class and aggregation of an imported study without the headline metric; else None."""
    import pyarrow.parquet as pq

    if not is_imported(folder):
        return None
    columns = ["metric", "class", "aggregation", "split"]
    rows = pq.read_table(study_table(folder, COMPARISONS), columns=columns).to_pylist()
    if schema.HEADLINE in rows or not rows:
        return None
    tested = [row for row in rows if row["split"] == "test"]
    return dict((tested or rows)[0])


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
    factors = [name for name in rows[0] if name in factor_columns(list(rows[0]))] if rows else []
    varying = [name for name in factors if len({row[name] for row in rows} - {ALL_ARMS}) > 1]
    notes = []
    for key in dict.fromkeys(tuple(row[name] for name in SIZES) for row in rows):
        notes += rank_sentences([row for row in rows if tuple(row[name] for name in SIZES) == key], varying)
    return notes
