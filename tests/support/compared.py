"""Tables of results of any size, and their designs, without a study."""

from collections.abc import Callable, Mapping, Sequence
from itertools import product

import numpy as np
import pyarrow as pa

from results import schema
from results.statistics.design import ArmKey, Design, Family

SIZES = {0.25: 8, 1 / 3: 11, 0.5: 16, 1.0: 32}
Value = Callable[[str, float, int, int], float | None]


def key(pathway: str) -> ArmKey:
    return ("unet", "vgg16", "random", pathway)


def digest(pathway: str, fraction: float, fold: int, seed: int) -> str:
    return f"{pathway}-{fraction}-{fold}-{seed}"


def results(
    value: Value,
    *,
    pathways: Sequence[str] = ("none", "encode"),
    fractions: Sequence[float] = (0.25, 0.5, 1.0),
    folds: int = 5,
    seeds: int = 2,
    metrics: Sequence[str] = ("mean_iou",),
) -> pa.Table:
    columns, where = schema.results(), ("test", "dataset", "macro")
    rows = [
        (
            "s",
            *key(p),
            f,
            SIZES[f],
            100,
            fold,
            seed,
            *where,
            metric,
            value(p, f, fold, seed),
            4,
            digest(p, f, fold, seed),
            "key",
        )
        for p, f, fold, seed, metric in product(pathways, fractions, range(folds), range(seeds), metrics)
    ]
    return pa.Table.from_pylist([dict(zip(columns.names, row, strict=True)) for row in rows], columns)


def design(
    *, folds: int = 5, seeds: int = 2, fixed_test: bool = False, notes: Mapping[str, str] | None = None
) -> Design:
    pairs = {key(pathway): key("none") for pathway in ("none", "encode", "boxes")}
    families = (Family(name="pathway: none", pairs=pairs),)
    return Design(folds=folds, seeds=seeds, families=families, fixed_test=fixed_test, notes=notes or {})


def noisy(pathway: str, fraction: float, fold: int, seed: int) -> float:
    random = np.random.default_rng([len(pathway), int(100 * fraction), fold, seed])
    return float(0.4 + 0.3 * fraction + 0.02 * len(pathway) + random.normal(0, 0.03))
