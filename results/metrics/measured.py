"""Cache of the metrics of target stages, because measuring thousands again takes a minute."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from datasets.cache.atomic_files import atomic_path
from results.metrics.compute import ImageValues, MetricRow, ScoringKey, StageMetrics
from results.signed import UNSIGNED, is_intact, sign

if TYPE_CHECKING:
    import pyarrow as pa

STAGES = 512
"""Rows per batch: values take several times more memory as Python objects than as arrays."""


def write_measured(
    path: Path, measured: Mapping[ScoringKey, StageMetrics], fingerprints: Mapping[ScoringKey, str]
) -> None:
    """Write one row per stage, with the fingerprint of the files it was measured from."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    stages = list(measured)
    with atomic_path(path) as temporary:
        with pq.ParquetWriter(temporary, _columns(), compression="zstd") as file:
            for start in range(0, len(stages), STAGES):
                lines = [_line(stage, measured[stage], fingerprints[stage]) for stage in stages[start : start + STAGES]]
                file.write_table(pa.Table.from_pylist(lines, schema=_columns()))
            file.add_key_value_metadata(UNSIGNED)
        sign(temporary)


def _line(stage: ScoringKey, measured: StageMetrics, fingerprint: str) -> dict[str, object]:
    return {
        "digest": stage[0],
        "scoring": stage[1],
        "mark": fingerprint,
        "rows": [row._asdict() for row in measured.rows],
        "images": [_image_columns(images) for images in measured.images],
    }


def read_measured(path: Path, fingerprints: Mapping[ScoringKey, str]) -> dict[ScoringKey, StageMetrics]:
    """Return the stages whose fingerprint is unchanged; empty for a missing or damaged file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    measured: dict[ScoringKey, StageMetrics] = {}
    try:
        if not is_intact(path):
            return {}
        with pq.ParquetFile(path) as file:
            if not file.schema_arrow.equals(_columns()):
                return {}
            for batch in file.iter_batches(batch_size=STAGES):
                for line in batch.to_pylist():
                    stage = line["digest"], line["scoring"]
                    if fingerprints.get(stage) == line["mark"]:
                        images = [_image_values(columns) for columns in line["images"]]
                        measured[stage] = StageMetrics([MetricRow(**row) for row in line["rows"]], images)
    except (pa.ArrowInvalid, OSError):
        return {}
    return measured


def _image_columns(images: ImageValues) -> dict[str, object]:
    return asdict(images) | {"values": images.values.ravel(), "counts": images.counts.ravel()}


def _image_values(columns: Mapping[str, Any]) -> ImageValues:
    images, series, classes = (columns[name] for name in ("images", "series", "classes"))
    return ImageValues(
        split=columns["split"],
        images=tuple(images),
        patients=tuple(columns["patients"]),
        series=tuple((class_, metric) for class_, metric in series),
        values=np.array(columns["values"], np.float64).reshape(len(images), len(series)),
        classes=tuple(classes),
        averaged=tuple(columns["averaged"]),
        counts=np.array(columns["counts"], np.int64).reshape(len(images), len(classes), 4),
    )


def _columns() -> "pa.Schema":
    import pyarrow as pa

    text, texts = pa.string(), pa.list_(pa.string())
    row = dict.fromkeys(("split", "aggregation", "class_", "metric"), text)
    rows = pa.struct(list((row | {"value": pa.float64(), "images": pa.int64()}).items()))
    values = {"series": pa.list_(texts), "values": pa.list_(pa.float64())}
    values |= {"classes": texts, "averaged": texts, "counts": pa.list_(pa.int64())}
    images = pa.struct(list(({"split": text, "images": texts, "patients": texts} | values).items()))
    return pa.schema([
        ("digest", text), ("scoring", text), ("mark", text), ("rows", pa.list_(rows)), ("images", pa.list_(images)),
    ])  # fmt: skip
