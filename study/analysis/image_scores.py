"""Metrics of each test image of a study, and the history of its stages, as data frames."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from results import schema
from results.metrics.compute import ImageValues, ScoringKey, StageMetrics, measure_all
from results.metrics.measured import read_measured
from results.schema import ReplicateRecord
from study.analysis.derived_cache import stage_fingerprints, study_table
from study.analysis.tables import metric_settings
from study.config.schema import StudySpec
from study.errors import ConfigError, Problem
from study.store.documents import read_plan
from study.store.paths import MEASURED, RESULTS
from study.store.store import Store

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

HISTORY = "history.parquet"
KEYS = ("updates", "fold", "seed", "digest", "scoring")


def image_scores(store: Store, name: str, spec: StudySpec) -> "pd.DataFrame":
    """Return one row per replicate x split x image x class, and a column for each metric.

    Columns: `study`, the factors, `labelled_fraction`, `labelled_images`, `fold`, `seed`, `digest`, `split`, `image`,
    `patient`, `class`, then the metrics, NaN where undefined. A volume is one image. The classes `macro` and
    `weighted` are means over the classes of an image.

    Raises:
        ConfigError: The study has no results yet.
    """
    import pandas as pd

    replicates = _replicates(store.study(name))
    measured = _measured(store, name, spec, [replicate for replicate, _ in replicates])
    frames = [
        frame
        for replicate, columns in replicates
        for part in measured[replicate.digest, replicate.scoring].images
        for frame in _frames(part, columns)
    ]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def stage_histories(store: Store, name: str) -> "pd.DataFrame":
    """Return one row per epoch of each finished stage: `digest`, `stage`, then the columns of `history.parquet`."""
    import pandas as pd
    import pyarrow.parquet as pq

    stages: Mapping[str, str] = (read_plan(store.study(name)) or {}).get("stages", {})
    finished = store.finished()
    digests = [digest for digest in stages if digest in finished]
    store.prefetch((digest, HISTORY) for digest in digests)
    frames = []
    for digest in digests:
        history = pq.read_table(store.file(digest, HISTORY)).to_pandas()
        history.insert(0, "digest", digest)
        history.insert(1, "stage", stages[digest])
        frames.append(history)
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=["digest", "stage", "epoch"])


def _replicates(folder: Path) -> list[tuple[ReplicateRecord, dict[str, Any]]]:
    """Return the replicates with results, each with the columns that name it."""
    import pyarrow.parquet as pq

    if not (folder / RESULTS).is_file():
        message = "has no results yet; allowed: a study that has run; run it first"
        raise ConfigError([Problem(path="", message=message)], folder.name)
    file = study_table(folder, RESULTS, KEYS)
    factors = schema.factor_columns(pq.read_schema(file).names)
    columns = ["study", *factors, *schema.SIZES, *KEYS]
    table: pa.Table = pq.read_table(file, columns=columns)
    replicates = []
    for row in table.group_by(columns, use_threads=False).aggregate([]).to_pylist():
        values = {name: row[name] for name in (*schema.SIZES, *KEYS)}
        record = ReplicateRecord(factors={name: row[name] for name in factors}, **values)
        named = {column: row[column] for column in columns if column not in ("updates", "scoring")}
        replicates.append((record, named))
    return replicates


def _measured(
    store: Store, name: str, spec: StudySpec, replicates: list[ReplicateRecord]
) -> Mapping[ScoringKey, StageMetrics]:
    import pyarrow.parquet as pq

    settings = metric_settings(spec)
    known = read_measured(store.study(name) / MEASURED, stage_fingerprints(replicates, store, settings))

    def load(replicate: ReplicateRecord) -> "tuple[pa.Table, pa.Table]":
        stage = replicate.digest, replicate.scoring
        return pq.read_table(store.scores(*stage)), pq.read_table(store.images(*stage))

    return measure_all(replicates, load, settings, known)


def _frames(part: ImageValues, columns: Mapping[str, Any]) -> "Iterator[pd.DataFrame]":
    """Yield a frame for each class of a split."""
    import pandas as pd

    for class_ in dict.fromkeys(class_ for class_, _ in part.series):
        values = {metric: part.values[:, number] for number, (name, metric) in enumerate(part.series) if name == class_}
        images = {"split": part.split, "image": part.images, "patient": part.patients, "class": class_}
        yield pd.DataFrame({**columns, **images, **values}, index=range(len(part.images)))
