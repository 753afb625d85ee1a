"""Derives the tables of a study (results, comparisons, tests) from the stored scores."""

import functools
import operator
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from results import schema
from results.metrics.agreement import AGREEMENT
from results.metrics.compute import MetricSettings, ScoringKey, measure_all, results_table
from results.metrics.measured import read_measured, write_measured
from results.schema import ReplicateRecord
from results.statistics.compare import compare
from results.statistics.design import Design
from results.statistics.patient_level.sums import ScoredReplicate
from results.tables.layout import is_complete, is_older
from study.analysis.derived_cache import by_file, read_derived, stage_fingerprints, study_table, write_derived
from study.analysis.design import study_design
from study.analysis.stage_scores import write_stage_scores
from study.config.schema import StudySpec
from study.errors import ConfigError, Problem
from study.planning.digest import combined
from study.planning.graph import Plan, Replicate
from study.store.paths import BUDGETS, COMPARISONS, FORECAST, MEASURED, RESULTS
from study.store.store import Store, score_files

if TYPE_CHECKING:
    import pyarrow as pa


def write_outcome(plan: Plan, store: Store) -> "pa.Table":
    """Derive all tables from the finished replicates unless they are up to date, and return the comparisons."""
    finished = store.finished()
    scored = [
        replicate
        for replicate in plan.replicates
        if replicate.chain[-1] in finished and store.scored(replicate.chain[-1], replicate.scoring.key)
    ]
    store.prefetch((replicate.chain[-1], name) for replicate in scored for name in score_files(replicate.scoring.key))
    settings, design = metric_settings(plan.spec), study_design(plan, store)
    replicates = [_replicate_record(plan, store, replicate) for replicate in scored]
    fingerprints = stage_fingerprints(replicates, store, settings)
    fingerprint = combined(
        plan.spec.name, *map(repr, (plan.spec.compare.factors, design, replicates)), *fingerprints.values()
    )
    write_stage_scores(plan, store)
    cached = read_derived(store.study(plan.spec.name), fingerprint)
    return _derive(plan, store, replicates, design, fingerprints, fingerprint) if cached is None else cached


def _derive(
    plan: Plan,
    store: Store,
    replicates: Sequence[ReplicateRecord],
    design: Design,
    fingerprints: Mapping[ScoringKey, str],
    fingerprint: str,
) -> "pa.Table":
    """Write the tables; metrics of stages with an unchanged fingerprint are reused."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    def load(replicate: ReplicateRecord) -> "tuple[pa.Table, pa.Table]":
        stage = replicate.digest, replicate.scoring
        # `ParquetFile` in one thread is faster than `read_table` for thousands of small files.
        counts, images = pq.ParquetFile(store.scores(*stage)), pq.ParquetFile(store.images(*stage))
        return counts.read(use_threads=False), images.read(use_threads=False)

    name, folder = plan.spec.name, store.study(plan.spec.name)
    folder.mkdir(parents=True, exist_ok=True)
    cached = read_measured(folder / MEASURED, fingerprints)
    measured = measure_all(replicates, load, metric_settings(plan.spec), cached)
    if measured.keys() != cached.keys():
        write_measured(folder / MEASURED, measured, fingerprints)
    results = results_table(name, replicates, measured, further=tuple(plan.spec.compare.factors))
    scored = [
        ScoredReplicate(replicate, measured[replicate.digest, replicate.scoring].images) for replicate in replicates
    ]
    compared = results.filter(pc.invert(pc.starts_with(results["split"], AGREEMENT)))  # is the same for all arms
    derived = compare(compared, design, scored)
    write_derived(folder, {RESULTS: results} | by_file(derived), fingerprint)
    return derived.comparisons


def metric_settings(spec: StudySpec) -> MetricSettings:
    """Return the metric settings of a study: which classes are scored, and which count in means."""
    return MetricSettings(
        classes=spec.metrics.classes, background=spec.metrics.background, min_images=spec.metrics.min_images
    )


def _replicate_record(plan: Plan, store: Store, replicate: Replicate) -> ReplicateRecord:
    share, images = plan.labelled_size(plan.split(replicate))
    by_number = isinstance(replicate.labelled, int)
    return ReplicateRecord(
        factors=plan.arms[replicate.arm].factors,
        labelled_fraction=share if by_number else replicate.labelled,
        labelled_images=int(replicate.labelled) if by_number else images,
        updates=store.manifest(replicate.chain[-1])["updates"],
        fold=replicate.fold,
        seed=replicate.seed,
        digest=replicate.chain[-1],
        scoring=replicate.scoring.key,
    )


def read_comparisons(folder: Path, filters: Mapping[str, str] | None = None) -> "pa.Table":
    """Return the comparisons of a study.

    Args:
        folder: The folder of the study.
        filters: Values that rows must have, by column; default: all rows. If no row matches, all rows are returned
            with their text columns alone, for messages that list the allowed values.

    Raises:
        ConfigError: The study has no comparisons yet.
    """
    import pyarrow.parquet as pq

    if not os.path.lexists(folder / COMPARISONS):
        message = "has no comparisons yet; allowed: a study that has run; run it first"
        raise ConfigError([Problem(path="", message=message)], folder.name)
    file = study_table(folder, COMPARISONS)
    if filters is None:
        return pq.read_table(file)
    columns = pq.read_schema(file)
    # Texts repeat: read as dictionaries they take a fraction of the memory and time.
    text_columns = [field.name for field in columns if field.type == "string"]
    conditions = [(name, "=", value) for name, value in filters.items()]
    rows = pq.read_table(file, filters=conditions, read_dictionary=text_columns).cast(columns)
    return rows if rows.num_rows else pq.read_table(file, columns=text_columns)


def read_budgets(folder: Path) -> "pa.Table | None":
    """Return the arms at equal hours of annotation; None without budgets, or if an earlier version wrote the tables."""
    return _read_if_current(folder, BUDGETS, schema.budgets())


def read_forecasts(folder: Path) -> "pa.Table | None":
    """Return the forecasts of the learning curves; None if an earlier version wrote the tables."""
    return _read_if_current(folder, FORECAST, schema.forecasts())


def _read_if_current(folder: Path, name: str, columns: "pa.Schema") -> "pa.Table | None":
    import pyarrow.parquet as pq

    if not os.path.lexists(folder / name):
        return None
    table = pq.read_table(study_table(folder, name))
    return table if table.num_rows and not is_older(table, columns) else None


def curve_path(store: Store, name: str) -> Path:
    """Return the path of the learning curve figure."""
    return store.study(name) / "report" / "learning_curve.png"


def defined_headline(comparisons: "pa.Table") -> "pa.Table":
    """Return the comparisons of the headline metric that have a mean."""
    import pyarrow.compute as pc

    conditions = [pc.field(name) == value for name, value in schema.HEADLINE.items()]
    return comparisons.filter(functools.reduce(operator.and_, conditions, pc.field("mean").is_valid()))


def best_stages(plan: Plan, comparisons: "pa.Table") -> frozenset[str]:
    """Return the target stages of the cell with the best headline metric, over all folds and seeds."""
    headline = defined_headline(comparisons)
    if not headline.num_rows:
        return frozenset()
    records = headline.to_pylist()
    best = max([row for row in records if is_complete(row)] or records, key=lambda row: row["mean"])
    return frozenset(
        replicate.chain[-1]
        for replicate in plan.replicates
        if replicate.labelled == best[plan.spec.compare.level]
        and all(best[name] == value for name, value in plan.arms[replicate.arm].factors.items())
    )
