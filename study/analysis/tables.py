"""From the store to results, comparisons and the learning curve. Reads Parquet, trains nothing."""

import functools
import operator
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from results import schema
from results.metrics.compute import MetricSettings, measure_all, results_table
from results.metrics.compute import Stage as Measurement
from results.metrics.measured import read_measured, write_measured
from results.schema import Replicate as Row
from results.statistics.compare import compare
from results.statistics.design import Design
from results.statistics.patient_level.sums import ScoredReplicate
from results.tables.layout import is_complete
from study.analysis.derived_cache import read_derived, stage_marks, study_table, write_derived
from study.analysis.design import study_design
from study.config.schema import StudySpec
from study.errors import ConfigError, Problem
from study.planning.digest import combined
from study.planning.graph import Plan, Replicate
from study.store.paths import COMPARISONS, MEASURED, RESULTS, TESTS
from study.store.store import Store, score_files

if TYPE_CHECKING:
    import pyarrow as pa


def write_outcome(plan: Plan, store: Store) -> "pa.Table":
    """Derive all tables from the finished replicates, unless they are there already, and return the comparisons."""
    finished = store.finished()
    done = [
        one for one in plan.replicates if one.chain[-1] in finished and store.scored(one.chain[-1], one.scoring.key)
    ]
    store.bring((one.chain[-1], name) for one in done for name in score_files(one.scoring.key))
    settings, design = metric_settings(plan.spec), study_design(plan, store)
    replicates = [_row(plan, store, one) for one in done]
    marks = stage_marks(replicates, store, settings)
    mark = combined(plan.spec.name, *map(repr, (plan.spec.compare.factors, design, replicates)), *marks.values())
    kept = read_derived(store.study(plan.spec.name), mark)
    return _derive(plan, store, replicates, design, marks, mark) if kept is None else kept


def _derive(
    plan: Plan, store: Store, replicates: Sequence[Row], design: Design, marks: Mapping[Measurement, str], mark: str
) -> "pa.Table":
    """Write the tables anew; only stages that were not measured before are measured."""
    import pyarrow.parquet as pq

    def load(replicate: Row) -> "tuple[pa.Table, pa.Table]":
        stage = replicate.digest, replicate.scoring
        # One thread, and not `read_table`: these are thousands of small files.
        counts, images = pq.ParquetFile(store.scores(*stage)), pq.ParquetFile(store.images(*stage))
        return counts.read(use_threads=False), images.read(use_threads=False)

    name, folder = plan.spec.name, store.study(plan.spec.name)
    folder.mkdir(parents=True, exist_ok=True)
    known = read_measured(folder / MEASURED, marks)
    measured = measure_all(replicates, load, metric_settings(plan.spec), known)
    if measured.keys() != known.keys():
        write_measured(folder / MEASURED, measured, marks)
    results = results_table(name, replicates, measured, further=tuple(plan.spec.compare.factors))
    scored = [ScoredReplicate(one, measured[one.digest, one.scoring].images) for one in replicates]
    derived = compare(results, design, scored)
    write_derived(folder, {RESULTS: results, COMPARISONS: derived.comparisons, TESTS: derived.tests}, mark)
    return derived.comparisons


def metric_settings(spec: StudySpec) -> MetricSettings:
    """Return which classes a study scores, and which of them enter its means."""
    return MetricSettings(
        classes=spec.metrics.classes, background=spec.metrics.background, min_images=spec.metrics.min_images
    )


def _row(plan: Plan, store: Store, replicate: Replicate) -> Row:
    share, images = plan.labelled_size(plan.split(replicate))
    by_number = isinstance(replicate.labelled, int)
    return Row(
        factors=plan.arms[replicate.arm].factors,
        labelled_fraction=share if by_number else replicate.labelled,
        labelled_images=int(replicate.labelled) if by_number else images,
        updates=store.seal(replicate.chain[-1])["updates"],
        fold=replicate.fold,
        seed=replicate.seed,
        digest=replicate.chain[-1],
        scoring=replicate.scoring.key,
    )


def read_comparisons(folder: Path, wanted: Mapping[str, str] | None = None) -> "pa.Table":
    """Return the comparisons of a study's folder, only rows with the wanted values. Raises `ConfigError`.

    Where no row has them all, the columns of words alone tell what there is.
    """
    import pyarrow.parquet as pq

    if not os.path.lexists(folder / COMPARISONS):
        message = "has no comparisons yet; allowed: a study that has run; run it first"
        raise ConfigError([Problem(path="", message=message)], folder.name)
    file = study_table(folder, COMPARISONS)
    if wanted is None:
        return pq.read_table(file)
    columns = pq.read_schema(file)
    # Words repeat: read as dictionaries they cost a fraction.
    words = [field.name for field in columns if field.type == "string"]
    filters = [(name, "=", value) for name, value in wanted.items()]
    rows = pq.read_table(file, filters=filters, read_dictionary=words).cast(columns)
    return rows if rows.num_rows else pq.read_table(file, columns=words)


def curve_path(store: Store, name: str) -> Path:
    """Return where the learning curve picture lies."""
    return store.study(name) / "report" / "learning_curve.png"


def best_stages(plan: Plan, comparisons: "pa.Table") -> frozenset[str]:
    """Return the target stages of the cell with the best headline, over all its folds and seeds."""
    import pyarrow.compute as pc

    wanted = [pc.field(name) == value for name, value in schema.HEADLINE.items()]
    headline = comparisons.filter(functools.reduce(operator.and_, wanted, pc.field("mean").is_valid()))
    if not headline.num_rows:
        return frozenset()
    records = headline.to_pylist()
    best = max([row for row in records if is_complete(row)] or records, key=lambda row: row["mean"])
    return frozenset(
        one.chain[-1]
        for one in plan.replicates
        if one.labelled == best[plan.spec.compare.level]
        and all(best[name] == value for name, value in plan.arms[one.arm].factors.items())
    )
