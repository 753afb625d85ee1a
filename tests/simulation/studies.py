"""Simulated studies: planned, split and compared by the product, and trained by a fast learner.

The splits of a plan depend only on seeds, folds and the index of the data; several worlds (draws of the data) are
simulated for each plan. Patients are exchangeable within a world: a new world is equivalent to a new permutation of the
patients over the rows of the plan. A permutation does not change how much the training sets of folds and seeds overlap;
therefore every few studies are planned again with other seeds and another index.

All worlds of a plan are compared by one call of `compare`, each as a separate class: the product treats series
independently, so the results equal those of one call per world (tested in
`tests/results/statistics/test_simulation.py`).
"""

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from results import schema
from results.metrics.compute import ImageValues, MetricRow, StageMetrics, results_table
from results.metrics.formulas import PER_CLASS
from results.metrics.formulas import Counts as PixelCounts
from results.statistics.compare import compare
from results.statistics.design import Design, EquivalenceMargins
from results.statistics.patient_level.sums import ScoredReplicate
from study.analysis.design import study_design
from study.planning.builder import Planner
from study.planning.graph import Plan, Replicate
from study.search.load import load_plan
from study.store.paths import FAILURES
from study.store.store import Store
from tests.simulation.worlds import (
    BALANCED,
    Array,
    Flags,
    Images,
    Integers,
    Learner,
    draw_images,
    draw_starts,
    score,
    train,
)
from tests.support.documents import Document

if TYPE_CHECKING:
    import pandas as pd

HEADLINE, CASE = ("dataset", "mean_iou"), ("case", "dice")
METRICS = (HEADLINE, CASE)
NEW_PATIENTS, BATCH_SIZE = 2000, 250
"""Number of new patients on which the true scores of networks are computed, and how many per batch."""
WORLDS_PER_CALL = 8
"""Number of worlds per call of `compare` with a fixed test set."""


@dataclass(frozen=True, kw_only=True)
class Effects:
    """True effects of the arms of a study, by value of a factor such as the pathway; by default all arms are equal.

    Args:
        advantage: Log of the factor by which the signal in an arm's features is stronger.
        labels: The amount of labels that an arm actually trains on, for each nominal amount.
        run_sd: Standard deviation of the log signal between pretraining runs, one draw per distinct digest. An arm
            without pretraining has a draw per replicate, so that expected scores of all arms are equal.
    """

    advantage: Mapping[str, float] = field(default_factory=dict)
    labels: Mapping[str, Mapping[float, float]] = field(default_factory=dict)
    run_sd: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """A study to simulate: its document, the true effects, and failed or missing replicates.

    `failing` replicates of the last arm fail permanently; a share `missing` of the other replicates has no results yet.
    `swapped` simulates the null hypothesis of tests over patients: networks are trained as usual, but the outputs for
    each patient are permuted between the arms. `at_rope` sets the region of equivalence of each study to the true
    difference of its networks.
    """

    name: str
    document: Document
    learner: Learner = BALANCED
    effects: Effects = Effects()
    failing: int = 0
    missing: float = 0.0
    swapped: bool = False
    at_rope: bool = False
    studies_per_plan: int = 50


@dataclass(frozen=True, kw_only=True, eq=False)
class SimulationResult:
    """Comparisons and scores of simulated studies, which are numbered from 0.

    `lines` contains the comparisons with `world`, `arm_number` and `level_number`; `budgets` contains the arms at equal
    hours of annotation with `world`; `values` (studies, arms, levels, seeds, folds) are headline scores, NaN where
    missing; `truth` (studies, arms, levels) by metric are the scores of the networks on new patients, if requested.
    """

    name: str
    studies: int
    lines: "pd.DataFrame"
    budgets: "pd.DataFrame"
    values: Array
    truth: Mapping[tuple[str, str], Array]
    design: Design


class WorldTables(NamedTuple):
    """The tables of a batch of worlds, as in `SimulationResult`."""

    lines: "pd.DataFrame"
    budgets: "pd.DataFrame"


@dataclass(frozen=True, kw_only=True, eq=False)
class Layout:
    """A plan as arrays: a grid of replicates by arm and position (labelled amount, seed, fold).

    `runs` (arms, positions, stages) are the numbers of the pretraining runs.
    """

    plan: Plan
    design: Design
    rows: Sequence[schema.ReplicateRecord]
    arms: int
    shape: tuple[int, int, int]
    training: Flags
    validation: Flags
    tested: Flags
    patients: Integers
    runs: Integers

    @property
    def positions(self) -> int:
        """Return the number of replicates of an arm."""
        return int(np.prod(self.shape))


def simulate(simulated: Simulated, studies: int, *, seed: int = 0, truth: bool = False) -> SimulationResult:
    """Simulate studies; with `truth`, their networks are also tested on new patients."""
    import pandas as pd

    random = np.random.default_rng(seed)
    lines, budgets, values, truths, completed = [], [], [], [], 0
    for number, count in enumerate(_batch_sizes(studies, simulated.studies_per_plan)):
        layout, failing = plan_study(simulated, number, random)
        weights, images, boost = train_replicates(layout, simulated, count, random)
        pixels = score(images, weights, tested=layout.tested, boost=boost)
        true_scores = _true_scores(layout, simulated.learner, weights, boost, random) if truth else {}
        if simulated.swapped:
            pixels = _permute_arms(pixels, layout.patients, random)
        present = _has_results(layout, simulated, failing, random)
        scores = metric_values(pixels, layout.tested)
        layouts = (
            [_with_rope_at_truth(layout, true_scores, world) for world in range(count)]
            if simulated.at_rope
            else [layout]
        )
        compared = _compare_worlds(layouts, pixels, scores, present, completed)
        lines.append(compared.lines)
        budgets.append(compared.budgets)
        truths.append(true_scores)
        values.append(_to_grid(np.where(present, scores[HEADLINE], np.nan), layout))
        completed += count
    truth_by_metric = {
        metric: np.concatenate([part[metric] for part in truths]) for metric in (METRICS if truth else ())
    }
    return SimulationResult(
        name=simulated.name, studies=studies, lines=pd.concat(lines, ignore_index=True),
        budgets=pd.concat(budgets, ignore_index=True), values=np.concatenate(values), truth=truth_by_metric,
        design=layout.design,
    )  # fmt: skip


def headline_values(simulated: Simulated, studies: int, *, seed: int = 0, boost: float = 0.0) -> Array:
    """Return headline scores (studies, arms, levels, seeds, folds) without comparisons; see `train_replicates`."""
    random = np.random.default_rng(seed)
    values = []
    for number, count in enumerate(_batch_sizes(studies, simulated.studies_per_plan)):
        layout, _ = plan_study(simulated, number, random)
        weights, images, strength = train_replicates(layout, simulated, count, random, boost=boost)
        pixels = score(images, weights, tested=layout.tested, boost=strength)
        values.append(_to_grid(metric_values(pixels, layout.tested)[HEADLINE], layout))
    return np.concatenate(values)


def plan_study(simulated: Simulated, number: int, random: np.random.Generator) -> tuple[Layout, Flags]:
    """Plan a study with its own seeds and data; return its layout and which replicates (arms, positions) fail."""
    document = deepcopy(simulated.document)
    seeds = len(document["compare"].get("seeds", [0]))
    document["compare"]["seeds"] = list(range(number * seeds, (number + 1) * seeds))
    for position, settings in enumerate(document["data"].values()):
        settings["seed"] = 100 * number + position
    with tempfile.TemporaryDirectory() as folder:
        plan = load_plan(document, file=f"{simulated.name}.yaml", cache=Path(folder), storage=Path(folder))
        _settle_searches(plan)
        layout = _layout(plan, Store(Path(folder)), simulated.effects)
        failing = np.zeros((layout.arms, layout.positions), dtype=bool)
        if simulated.failing:
            failing[-1, random.permutation(layout.positions)[: simulated.failing]] = True
            _write_failures(plan, Store(Path(folder)), layout, failing)
            layout = replace(layout, design=study_design(plan, Store(Path(folder))))
    return layout, failing


def train_replicates(
    layout: Layout, simulated: Simulated, worlds: int, random: np.random.Generator, *, boost: float = 0.0
) -> tuple[Array, Images, Array]:
    """Return the weights of every replicate, the images of the worlds, and the strength of the signal (W, A, P).

    `boost` is added to the log signal of all arms.
    """
    learner = simulated.learner
    images = draw_images(random, learner, worlds=worlds, arms=layout.arms, patients=layout.patients)
    strength = np.exp(boost + _log_strength(layout, simulated.effects, worlds, random))
    start = draw_starts(random, learner, (worlds, layout.arms, layout.positions))
    weights = train(
        images, learner, training=layout.training, validation=layout.validation, boost=strength, start=start
    )
    return weights, images, strength


def metric_values(pixels: Integers, tested: Flags) -> dict[tuple[str, str], Array]:
    """Return the pooled headline and the per-case metric of each replicate, (W, A, P)."""
    dice = image_values(pixels, tested)
    pooled = PER_CLASS[HEADLINE[1]](_pixel_counts(pixels.sum(axis=-2)))
    return {HEADLINE: pooled, CASE: np.nanmean(dice, axis=-1)}


def image_values(pixels: Integers, tested: Flags) -> Array:
    """Return the per-case metric of each image, (W, A, P, N), NaN where it is not tested."""
    return np.where(tested, PER_CLASS[CASE[1]](_pixel_counts(pixels)), np.nan)


def _pixel_counts(pixels: Integers) -> PixelCounts:
    tp, fp, fn, tn = np.moveaxis(pixels.astype(np.float64), -1, 0)
    empty = np.zeros((*tp.shape, 0))
    return PixelCounts(tp=tp, fp=fp, fn=fn, tn=tn, positives=empty, negatives=empty)


def _batch_sizes(studies: int, size: int) -> Iterator[int]:
    for start in range(0, studies, size):
        yield min(size, studies - start)


def _settle_searches(plan: Plan) -> None:
    """Plan arms of a search with the settings of the file, as if the search had selected these on the reserve."""
    planner = Planner(plan)
    for number in plan.graph.waiting:
        chain = planner.candidate(plan.arms[number], None)
        rows = plan.views[plan.target].stage_rows(plan.node(chain[-1]).selection)
        plan.graph.conclude([number], {None: frozenset((*rows.train, *rows.validation))})
        planner.add(number, plan.arms[number])


def _layout(plan: Plan, store: Store, effects: Effects) -> Layout:
    compare_, view = plan.spec.compare, plan.views[plan.target]
    levels = {labelled: position for position, labelled in enumerate(compare_.labelled)}
    replicates = sorted(plan.replicates, key=lambda item: (item.arm, levels[item.labelled], item.seed, item.fold))
    shape = len(compare_.labelled), len(compare_.seeds), compare_.folds
    positions = int(np.prod(shape))
    arms = len(replicates) // positions
    splits = [plan.split(replicate) for replicate in replicates]
    actual_splits = [
        view.split(fold=replicate.fold, seed=replicate.seed, labelled=_actual_labels(plan, replicate, effects))
        for replicate in replicates
    ]

    def flags(rows: Sequence[Sequence[int]]) -> Flags:
        mask = np.zeros((len(rows), len(view.index)), dtype=bool)
        for position, members in enumerate(rows):
            mask[position, list(members)] = True
        return mask.reshape(arms, positions, -1)

    return Layout(
        plan=plan,
        design=study_design(plan, store),
        rows=[_replicate_record(plan, replicate) for replicate in replicates],
        arms=arms,
        shape=shape,
        training=flags([split.labelled for split in actual_splits]),
        validation=flags([split.validation for split in actual_splits]),
        tested=flags([split.test for split in splits])[0],
        patients=np.unique(view.index.patients, return_inverse=True)[1],
        runs=_number_runs([replicate.chain for replicate in replicates]).reshape(arms, positions, -1),
    )


def _actual_labels(plan: Plan, replicate: Replicate, effects: Effects) -> float | int:
    for value in plan.arms[replicate.arm].key:
        if value in effects.labels:
            return effects.labels[value][replicate.labelled]
    return replicate.labelled


def _replicate_record(plan: Plan, replicate: Replicate) -> schema.ReplicateRecord:
    share, images = plan.labelled_size(plan.split(replicate))
    by_number = isinstance(replicate.labelled, int)
    return schema.ReplicateRecord(
        factors=plan.arms[replicate.arm].factors, labelled_fraction=share if by_number else replicate.labelled,
        labelled_images=int(replicate.labelled) if by_number else images, updates=1, fold=replicate.fold,
        seed=replicate.seed, digest=replicate.chain[-1],
    )  # fmt: skip


def _number_runs(chains: Sequence[Sequence[str]]) -> Integers:
    """Number the pretraining stages of each chain; a chain without pretraining counts as a separate run.

    The stages of shorter chains are repeated, which does not change the mean over stages.
    """
    longest = max(len(chain) for chain in chains) - 1 or 1
    numbers: dict[str, int] = {}
    stages = [(chain[:-1] or chain[-1:]) for chain in chains]
    if any(longest % len(chain) for chain in stages):
        longest = int(np.lcm.reduce([len(chain) for chain in stages]))
    return np.array([
        [numbers.setdefault(digest, len(numbers)) for digest in (*chain,) * (longest // len(chain))]
        for chain in stages
    ])  # fmt: skip


def _log_strength(layout: Layout, effects: Effects, worlds: int, random: np.random.Generator) -> Array:
    """Return the log strength of the signal by replicate, (W, A, P), from advantages and effects of pretraining."""
    advantages = np.zeros((layout.arms, layout.positions))
    for replicate, row in enumerate(layout.rows):
        advantage = sum(effects.advantage.get(value, 0.0) for value in row.factors.values())
        advantages[replicate // layout.positions, replicate % layout.positions] = advantage
    draws = random.standard_normal((worlds, int(layout.runs.max()) + 1))[:, layout.runs]
    stages = [[len(set(runs)) for runs in arm] for arm in layout.runs.tolist()]
    return np.asarray(advantages + effects.run_sd * draws.mean(axis=-1) * np.sqrt(stages))


def _true_scores(
    layout: Layout, learner: Learner, weights: Array, boost: Array, random: np.random.Generator
) -> dict[tuple[str, str], Array]:
    """Return the mean scores on new patients of the networks of each cell, (W, A, L)."""
    worlds, arms, positions, features = weights.shape
    flat = weights.swapaxes(0, 1).reshape(1, arms, worlds * positions, features)
    flat_boost = boost.swapaxes(0, 1).reshape(1, arms, worlds * positions)
    all_tested = np.ones((worlds * positions, BATCH_SIZE), dtype=bool)
    pooled, dice = np.zeros((1, arms, worlds * positions, 4), dtype=np.int64), np.zeros((1, arms, worlds * positions))
    for _ in range(NEW_PATIENTS // BATCH_SIZE):
        images = draw_images(random, learner, worlds=1, arms=arms, patients=np.arange(BATCH_SIZE))
        pixels = score(images, flat, tested=all_tested, boost=flat_boost)
        pooled += pixels.sum(axis=-2)
        dice += image_values(pixels, all_tested).sum(axis=-1) / NEW_PATIENTS
    scores = {HEADLINE: PER_CLASS[HEADLINE[1]](_pixel_counts(pooled)), CASE: dice}
    return {
        metric: values.reshape(arms, worlds, layout.shape[0], -1).mean(axis=-1).swapaxes(0, 1)
        for metric, values in scores.items()
    }


def _permute_arms(pixels: Integers, patients: Integers, random: np.random.Generator) -> Integers:
    """Permute the outputs for each patient between the arms, equally in all replicates."""
    worlds, arms = pixels.shape[:2]
    order = random.random((worlds, arms, int(patients.max()) + 1)).argsort(axis=1)[:, :, patients]
    return np.asarray(np.take_along_axis(pixels, order[:, :, None, :, None], axis=1))


def _has_results(layout: Layout, simulated: Simulated, failing: Flags, random: np.random.Generator) -> Flags:
    """Return which replicates (arms, positions) have results."""
    return ~failing & (random.random(failing.shape) >= simulated.missing)


def _write_failures(plan: Plan, store: Store, layout: Layout, failing: Flags) -> None:
    folder = store.study(plan.spec.name)
    folder.mkdir(parents=True)
    lines = [json.dumps({"digest": layout.rows[replicate].digest}) for replicate in np.flatnonzero(failing).tolist()]
    (folder / FAILURES).write_text("\n".join(lines), encoding="utf-8")


def _to_grid(values: Array, layout: Layout) -> Array:
    return values.reshape(len(values), layout.arms, *layout.shape)


def _with_rope_at_truth(layout: Layout, truth: Mapping[tuple[str, str], Array], world: int) -> Layout:
    """Return the layout with the difference of the last arm to the first in a world as the region of equivalence."""
    margins = {
        metric: abs(float(values[world, -1, -1] - values[world, 0, -1])) for (_, metric), values in truth.items()
    }
    return replace(layout, design=replace(layout.design, rope=EquivalenceMargins(by_metric=margins)))


def _compare_worlds(
    layouts: Sequence[Layout], pixels: Integers, scores: Mapping[tuple[str, str], Array], present: Flags, first: int
) -> WorldTables:
    """Return the product's tables of worlds numbered from `first`; `layouts` has one entry, or one per world."""
    import pandas as pd

    fixed = layouts[0].design.fixed_test
    # The time for pooled metrics of a fixed test set is quadratic in the number of classes.
    step = 1 if len(layouts) > 1 else WORLDS_PER_CALL if fixed else len(pixels)
    parts = []
    for start in range(0, len(pixels), step):
        batch = slice(start, start + step)
        part = {metric: values[batch] for metric, values in scores.items()}
        images = pixels[batch] if fixed else None
        parts.append(comparisons(layouts[start % len(layouts)], part, present, first + start, images))
    return WorldTables(*(pd.concat(tables, ignore_index=True) for tables in zip(*parts, strict=True)))


def comparisons(
    layout: Layout, scores: Mapping[tuple[str, str], Array], present: Flags, first: int, pixels: Integers | None
) -> WorldTables:
    """Return the product's tables of worlds in one call, in which each world is a class named by its number."""
    worlds = [f"{first + number:06}" for number in range(len(scores[HEADLINE]))]
    kept = [replicate for replicate, exists in enumerate(present.ravel()) if exists]
    rows = [layout.rows[replicate] for replicate in kept]
    images = (
        {} if pixels is None else {replicate: _image_values(layout, pixels, worlds, replicate) for replicate in kept}
    )
    measured = {
        (row.digest, row.scoring): StageMetrics(
            list(_metric_rows(layout, scores, worlds, replicate)), images.get(replicate, [])
        )
        for row, replicate in zip(rows, kept, strict=True)
    }
    factors = list(layout.plan.spec.compare.factors)
    table = results_table(layout.plan.spec.name, rows, measured, further=factors)
    scored = [ScoredReplicate(layout.rows[replicate], parts) for replicate, parts in images.items()]
    tables = compare(table, layout.design, scored)
    budgets = tables.budgets.to_pandas()
    return WorldTables(
        lines=_add_numbers(layout, tables.comparisons.to_pandas()),
        budgets=budgets.assign(world=budgets["class"].astype(int)),
    )


def _metric_rows(
    layout: Layout, scores: Mapping[tuple[str, str], Array], worlds: Sequence[str], replicate: int
) -> Iterator[MetricRow]:
    arm, position = divmod(replicate, layout.positions)
    images = int(layout.tested[position].sum())
    for (aggregation, metric), values in scores.items():
        for world, value in zip(worlds, values[:, arm, position].tolist(), strict=True):
            yield MetricRow("test", aggregation, world, metric, value, images)


def _image_values(layout: Layout, pixels: Integers, worlds: Sequence[str], replicate: int) -> list[ImageValues]:
    arm, position = divmod(replicate, layout.positions)
    tested = np.flatnonzero(layout.tested[position]).tolist()
    counts = pixels[:, arm, position][:, tested].swapaxes(0, 1)
    index = layout.plan.views[layout.plan.target].index
    return [
        ImageValues(
            split="test",
            images=tuple(index.ids[row] for row in tested),
            patients=tuple(index.patients[row] for row in tested),
            series=tuple((world, CASE[1]) for world in worlds),
            values=PER_CLASS[CASE[1]](_pixel_counts(counts)),
            classes=tuple(worlds),
            averaged=tuple(worlds),
            counts=counts,
        )
    ]


def _add_numbers(layout: Layout, lines: "pd.DataFrame") -> "pd.DataFrame":
    """Add columns with the numbers of world, arm and level."""
    names = list(schema.factor_columns(list(lines.columns)))
    arms = {tuple(row.factors.values()): replicate // layout.positions for replicate, row in enumerate(layout.rows)}
    level = layout.design.level
    levels = {getattr(row, level): replicate % layout.positions // (layout.shape[1] * layout.shape[2])
              for replicate, row in enumerate(layout.rows)}  # fmt: skip
    return lines.assign(
        world=lines["class"].astype(int),
        arm_number=[arms[key] for key in lines[names].itertuples(index=False, name=None)],
        level_number=[levels[value] for value in lines[level]],
    )
