"""Cost of a table in a study with very many results."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa

from results import schema
from study.analysis.derived_cache import write_derived
from study.store.paths import COMPARISONS
from tests.bench.figure import Figure, cpu_seconds_of_children

METRICS = (*sorted(schema.HIGHER_IS_BETTER), "ece")
CLASSES = ("macro", "weighted", *(f"class {number}" for number in range(23)))
SIZES = (8, 16, 32, 64, 128)


def large_table(*, quick: bool) -> Iterator[Figure]:
    """Measure `study table` as a process over 1,000,000 comparisons (quick: 100,000)."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "studies" / "large"
        folder.mkdir(parents=True)
        (folder / "spec.yaml").write_text("name: large\n", encoding="utf-8")
        comparisons = _comparisons(arms=25 if quick else 250)
        write_derived(folder, {COMPARISONS: comparisons}, "bench")
        command = [sys.executable, "-m", "study", "table", "large", "--storage", place]
        call = partial(subprocess.run, command, check=True, capture_output=True)
        call()  # compiles modules
        values = [cpu_seconds_of_children(call) for _ in range(3 if quick else 5)]
        yield Figure(name=f"study table over {comparisons.num_rows:,} results", unit="CPU s", values=values, goal=3.0)


def _comparisons(*, arms: int) -> pa.Table:
    """Lay out 5 sizes of each arm x 800 series, series by series as written by a study."""
    series = np.array(list(product(("test", "validation"), ("dataset", "case"), CLASSES, METRICS)))
    cells = arms * len(SIZES)
    which, cell = np.divmod(np.arange(len(series) * cells), cells)
    random = np.random.default_rng(0)
    size = np.array(SIZES)[cell % len(SIZES)]
    columns = {
        "study": _words(["large"], np.zeros(len(cell), dtype=np.int64)),
        "pathway": _words([f"pathway {number}" for number in range(arms)], cell // len(SIZES)),
        "labelled_fraction": pa.array(size / max(SIZES)),
        "labelled_images": pa.array(size),
        "note": _words(["", "9 of 10 replicates"], cell % 2),
    }
    for index, name in enumerate(schema.SERIES):
        names, place = np.unique(series[:, index], return_inverse=True)
        columns[name] = _words(names.tolist(), place[which])
    for field in schema.comparisons():
        if field.name not in columns:
            columns[field.name] = _filled(field.type, len(cell), random)
    return pa.table(columns).select(schema.comparisons().names).cast(schema.comparisons())


def _filled(kind: pa.DataType, length: int, random: np.random.Generator) -> pa.Array:
    if kind == pa.string():
        return _words(["one"], np.zeros(length, dtype=np.int64))
    return pa.array(random.random(length)) if kind == pa.float64() else pa.array(np.full(length, 25))


def _words(words: list[str], place: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(place, pa.int32()), pa.array(words, pa.string())).cast(pa.string())
