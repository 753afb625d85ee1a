"""Single functions on large inputs: the leakage check, metrics of many replicates, comparisons of many results."""

from collections.abc import Iterator
from functools import partial

import numpy as np
import pyarrow as pa

from datasets.checks.leakage import matches
from results.metrics.compute import MetricSettings, collect
from results.statistics.compare import compare
from tests.bench.figure import Figure, cpu_seconds
from tests.support.compared import design, noisy, results
from tests.support.indexes import index
from tests.support.replicates import replicate, stage, truth_and_scores

CHEXPERT = 224_316
"""Number of images of CheXpert."""


def large_inputs(*, quick: bool) -> Iterator[Figure]:
    """Measure each function in this process."""
    yield from _leakage(quick=quick)
    yield from _metrics(quick=quick)
    yield from _comparisons(quick=quick)


def _leakage(*, quick: bool) -> Iterator[Figure]:
    random = np.random.default_rng(0)
    many = index(thumbnails=[bytes(row).hex() for row in random.integers(0, 256, (CHEXPERT, 32), np.uint8)])
    for images, goal in ((100, 1.0),) if quick else ((100, 1.0), (2000, 5.0)):
        few = index(thumbnails=many.thumbnails[-images:])
        call = partial(matches, many, few)
        yield Figure(
            name=f"leakage check of {images:,} images against {CHEXPERT:,}", unit="CPU s",
            values=[cpu_seconds(call) for _ in range(3)], goal=goal,
        )  # fmt: skip


def _metrics(*, quick: bool) -> Iterator[Figure]:
    truth, scores = truth_and_scores(images=20, names=6)
    stored = stage(truth, scores, names=tuple("abcdef"), splits=("test", "validation"))
    replicates = [replicate(number) for number in range(50 if quick else 200)]
    values = [cpu_seconds(lambda: collect("s", replicates, lambda _: stored, MetricSettings())) for _ in range(3)]
    yield Figure(name=f"metrics of {len(replicates)} replicates", unit="CPU s", values=values, goal=10.0)


def _comparisons(*, quick: bool) -> Iterator[Figure]:
    metrics = [f"metric{number}" for number in range(10 if quick else 100)]
    table = results(noisy, pathways=["none", "encode", "boxes"], folds=5, seeds=6, metrics=[*metrics, "dice"])
    column = table.column_names.index("class")
    classes = [pa.array([name] * table.num_rows) for name in ("lung", "opacity", "heart")]
    table = pa.concat_tables([table, *(table.set_column(column, "class", names) for names in classes)])
    values = [cpu_seconds(lambda: compare(table, design(seeds=6))) for _ in range(3)]
    yield Figure(name=f"comparisons of {table.num_rows:,} results", unit="CPU s", values=values, goal=10.0)
