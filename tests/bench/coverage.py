"""Whether intervals and p-values hold what they say: whole studies of a cheap learner, many times over."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa

from results.design import Design, Family
from results.metrics import ImageValues, Measured, Row, results_table
from results.paired import paired_tests
from results.per_image import Scored
from results.schema import FACTORS, SIGNIFICANT, Replicate
from results.statistics import compare
from tests.bench.figure import Figure
from tests.bench.learner import Array, Images, dice, draw, subset

ARMS, FOLDS, SEEDS = 4, 5, 5
UNSEEN = 4000
"""Further images on which the same models are tested: what their difference on new patients really is. Fewer would
be as uncertain as the intervals that are held against it."""
EACH = 4
"""Only every so many studies' models are tested on these: it takes longer than all else."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Told:
    """What the tables of one study say, and what is true of its models."""

    mean: Array
    low: Array
    high: Array
    p_adjusted: Array
    tests: pa.Table
    truth: Array
    """Difference of each arm's models from the baseline's on unseen patients, NaN where they were not tested."""


def coverage(*, quick: bool) -> Iterator[Figure]:
    """Measure 5 folds x 5 seeds of 4 equal arms, with 10 and 50 images a fold."""
    for images in (10, 50):
        random = np.random.default_rng(images)
        studies = [_study(random, images, number % EACH == 0) for number in range(20 if quick else 300)]
        yield from _figures(studies, f"{images} images a fold")


def _figures(studies: list[Told], what: str) -> Iterator[Figure]:
    share = partial(_share, len(studies))
    expected = np.mean([one.mean for one in studies])
    missed = [not low <= expected <= high for one in studies for low, high in zip(one.low, one.high, strict=True)]
    yield share(f"95 % interval misses the score, {what}", missed, 0.1)
    wrong = [bool((one.p_adjusted < SIGNIFICANT).any()) for one in studies]
    yield share(f"any p_adjusted below 0.05, {what}", wrong, 0.05 + 2 * (0.05 * 0.95 / len(studies)) ** 0.5)
    for test in ("Nadeau-Bengio", "paired t-test", "Wilcoxon"):
        for unit in ("fold and seed", "fold"):
            p = [row["p"] for one in studies for row in _rows(one, test, unit)]
            called = [value < SIGNIFICANT for value in p if value is not None]
            if called:
                yield share(f"{test} over {unit}: p below 0.05, {what}", called, None)
    for test, unit in (("paired t-test", "test image"), ("bootstrap", "patient")):
        ends = [(row["ci_low"], row["ci_high"], true) for one in studies for row, true in _with_truth(one, test, unit)]
        yield share(
            f"{test} over {unit}: 95 % interval misses, {what}",
            [not low <= true <= high for low, high, true in ends],
            None,
        )


def _share(studies: int, name: str, happened: list[bool], goal: float | None) -> Figure:
    return Figure(name=name, unit="share", values=[float(np.mean(happened))], goal=goal and round(goal, 3))


def _rows(one: Told, test: str, unit: str) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = one.tests.to_pylist()
    return [row for row in rows if str(row["test"]).startswith(test) and row["unit"] == unit]


def _with_truth(one: Told, test: str, unit: str) -> Iterator[tuple[dict[str, float], float]]:
    for row in _rows(one, test, unit):
        true = float(one.truth[int(str(row["pathway"])[1:])])
        if row["ci_low"] is not None and not np.isnan(true):
            yield row, true


def _study(random: np.random.Generator, images: int, follow: bool) -> Told:
    data = draw(random, arms=ARMS, images=FOLDS * images)
    unseen = draw(random, arms=ARMS, images=UNSEEN) if follow else None
    fold_of = np.arange(FOLDS * images) // images
    replicates, measured, scored = [], {}, []
    true = np.zeros(ARMS)
    for arm in range(ARMS):
        for fold in range(FOLDS):
            training = subset(data, np.flatnonzero(fold_of != fold))
            for seed in range(SEEDS):
                one = _replicate(arm, fold, seed)
                held = np.flatnonzero(fold_of == fold)
                values, more = _tested(training, subset(data, held), unseen, arm, random)
                found = _measured(values, held, data)
                true[arm] += more / (FOLDS * SEEDS)
                replicates.append(one)
                measured[one.digest, ""] = found
                scored.append(Scored(one, found.images))
    results = results_table("null", replicates, measured)
    family = Family(name="pathway=a0", pairs={_key(arm): _key(0) for arm in range(ARMS)})
    design = Design(folds=FOLDS, seeds=SEEDS, families=[family])
    table = compare(results, design)
    return Told(
        **{name: _column(table, key) for name, key in (("mean", "mean"), ("low", "ci_low"), ("high", "ci_high"))},
        p_adjusted=_column(table, "p_adjusted"),
        tests=paired_tests(results, design, scored),
        truth=true - true[0],
    )


def _tested(
    training: Images, held: Images, unseen: Images | None, arm: int, random: np.random.Generator
) -> tuple[Array, float]:
    """Return Dice of each held-out image, and the mean of the unseen ones by the same model."""
    values, *more = dice(training, [held] if unseen is None else [held, unseen], arm, random)
    return values, float(more[0].mean()) if more else float("nan")


def _measured(values: Array, rows: np.ndarray[tuple[int, ...], np.dtype[np.int64]], data: Images) -> Measured:
    images = ImageValues(
        split="test",
        images=tuple(f"i{row:04}" for row in rows),
        patients=tuple(f"p{data.patients[row]:04}" for row in rows),
        series=(("macro", "dice"),),
        values=values[:, None],
    )
    return Measured([Row("test", "case", "macro", "dice", float(values.mean()), len(rows))], [images])


def _replicate(arm: int, fold: int, seed: int) -> Replicate:
    return Replicate(
        factors=dict(zip(FACTORS, _key(arm), strict=True)), labelled_fraction=1.0, labelled_images=1, updates=1,
        fold=fold, seed=seed, digest=f"{arm}-{fold}-{seed}",
    )  # fmt: skip


def _key(arm: int) -> tuple[str, ...]:
    return ("ridge", "random features", "random", f"a{arm}")


def _column(table: pa.Table, name: str) -> Array:
    column: Array = table[name].to_numpy().astype(np.float64)
    return column
