"""Simulated studies: planned and split by the product, trained by the cheap learner, compared by the product.

A plan's splits depend on seeds, folds and the data's index alone, so many data worlds are drawn over each plan.
Patients are exchangeable within a world: a new world is as good as a new permutation of the patients over the plan's
rows. What a permutation cannot change is how much the training sets of folds and seeds overlap; so every few studies
are planned anew, with other seeds and another index.

The worlds of a plan go through one call of `compare`, each as a class of its own: the product treats series apart, so
the answers are those of one call a world (`tests/results/statistics/test_simulation.py` holds that).
"""

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

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
    Learner,
    Whole,
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
UNSEEN, AT_ONCE = 2000, 250
"""New patients on which networks are tested to know their true scores, and how many at once."""
AT_ONCE_FIXED = 8
"""Worlds that are compared at once with a fixed test set."""


@dataclass(frozen=True, kw_only=True)
class Effects:
    """What is true of the arms of a study, by pathway or another factor's value; nothing given: all are equal.

    Args:
        advantage: Log of how many times as strong the signal is that an arm's features carry.
        labels: The amount of labels that an arm really trains on at each amount it is said to.
        run_sd: Standard deviation of the log signal between pretraining runs, one draw per distinct digest. An arm
            without pretraining has a draw per replicate, so that expected scores of all arms are equal.
    """

    advantage: Mapping[str, float] = field(default_factory=dict)
    labels: Mapping[str, Mapping[float, float]] = field(default_factory=dict)
    run_sd: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """A study to be simulated: its document, what is true, and what happens to its replicates.

    `failing` replicates of the last arm fail for good; of the others the share `missing` has no results yet.
    `swapped` draws from the null of rule 3: networks are as trained, but each patient's outputs are dealt to the arms
    at random. `at_rope` sets the region of equivalence of each study to the true difference of its networks.
    """

    name: str
    document: Document
    learner: Learner = BALANCED
    effects: Effects = Effects()
    failing: int = 0
    missing: float = 0.0
    swapped: bool = False
    at_rope: bool = False
    studies_a_plan: int = 50


@dataclass(frozen=True, kw_only=True, eq=False)
class StageOutcome:
    """What was simulated and answered; studies are numbered from 0.

    `lines` has the comparisons with `world`, `arm_number` and `level_number`; `values` (studies, arms, levels, seeds,
    folds) are headline scores, NaN where missing; `truth` (studies, arms, levels) by metric what the networks score on
    new patients (only where asked for).
    """

    name: str
    studies: int
    lines: "pd.DataFrame"
    values: Array
    truth: Mapping[tuple[str, str], Array]
    design: Design


@dataclass(frozen=True, kw_only=True, eq=False)
class Layout:
    """A plan as arrays: replicates stand in a grid of arms and places (labelled amount, seed, fold).

    `runs` (arms, places, stages) number the pretraining runs.
    """

    plan: Plan
    design: Design
    rows: Sequence[schema.ReplicateRecord]
    arms: int
    shape: tuple[int, int, int]
    training: Flags
    validation: Flags
    tested: Flags
    patients: Whole
    runs: Whole

    @property
    def places(self) -> int:
        """Return how many replicates an arm has."""
        return int(np.prod(self.shape))


def simulate(simulated: Simulated, studies: int, *, seed: int = 0, truth: bool = False) -> StageOutcome:
    """Simulate so many studies; `truth` says whether their networks are tested on new patients."""
    import pandas as pd

    random = np.random.default_rng(seed)
    lines, values, known, done = [], [], [], 0
    for number, count in enumerate(_parts(studies, simulated.studies_a_plan)):
        layout, failing = planned(simulated, number, random)
        weights, images, boost = trained(layout, simulated, count, random)
        pixels = score(images, weights, tested=layout.tested, boost=boost)
        real = _true_scores(layout, simulated.learner, weights, boost, random) if truth else {}
        if simulated.swapped:
            pixels = _dealt(pixels, layout.patients, random)
        present = _present(layout, simulated, failing, random)
        scores = metric_values(pixels, layout.tested)
        layouts = [_at_rope(layout, real, world) for world in range(count)] if simulated.at_rope else [layout]
        lines.append(_answered(layouts, pixels, scores, present, done))
        known.append(real)
        values.append(_in_grid(np.where(present, scores[HEADLINE], np.nan), layout))
        done += count
    truths = {metric: np.concatenate([part[metric] for part in known]) for metric in (METRICS if truth else ())}
    return StageOutcome(
        name=simulated.name, studies=studies, lines=pd.concat(lines, ignore_index=True),
        values=np.concatenate(values), truth=truths, design=layout.design,
    )  # fmt: skip


def headline_values(simulated: Simulated, studies: int, *, seed: int = 0, boost: float = 0.0) -> Array:
    """Return headline scores (studies, arms, levels, seeds, folds) without any comparison; see `trained`."""
    random = np.random.default_rng(seed)
    found = []
    for number, count in enumerate(_parts(studies, simulated.studies_a_plan)):
        layout, _ = planned(simulated, number, random)
        weights, images, strength = trained(layout, simulated, count, random, boost=boost)
        pixels = score(images, weights, tested=layout.tested, boost=strength)
        found.append(_in_grid(metric_values(pixels, layout.tested)[HEADLINE], layout))
    return np.concatenate(found)


def planned(simulated: Simulated, number: int, random: np.random.Generator) -> tuple[Layout, Flags]:
    """Plan a study with seeds and data of its own, and say which replicates (arms, places) fail."""
    document = deepcopy(simulated.document)
    seeds = len(document["compare"].get("seeds", [0]))
    document["compare"]["seeds"] = list(range(number * seeds, (number + 1) * seeds))
    for place, settings in enumerate(document["data"].values()):
        settings["seed"] = 100 * number + place
    with tempfile.TemporaryDirectory() as folder:
        plan = load_plan(document, file=f"{simulated.name}.yaml", cache=Path(folder), storage=Path(folder))
        _settle_searches(plan)
        layout = _layout(plan, Store(Path(folder)), simulated.effects)
        failing = np.zeros((layout.arms, layout.places), dtype=bool)
        if simulated.failing:
            failing[-1, random.permutation(layout.places)[: simulated.failing]] = True
            _write_failures(plan, Store(Path(folder)), layout, failing)
            layout = replace(layout, design=study_design(plan, Store(Path(folder))))
    return layout, failing


def trained(
    layout: Layout, simulated: Simulated, worlds: int, random: np.random.Generator, *, boost: float = 0.0
) -> tuple[Array, Images, Array]:
    """Return weights of every replicate, the images of the worlds, and the strength of the signal (W, A, P).

    `boost` is added to the log signal of all arms.
    """
    learner = simulated.learner
    images = draw_images(random, learner, worlds=worlds, arms=layout.arms, patients=layout.patients)
    strength = np.exp(boost + _log_signal(layout, simulated.effects, worlds, random))
    start = draw_starts(random, learner, (worlds, layout.arms, layout.places))
    weights = train(
        images, learner, training=layout.training, validation=layout.validation, boost=strength, start=start
    )
    return weights, images, strength


def metric_values(pixels: Whole, tested: Flags) -> dict[tuple[str, str], Array]:
    """Return the headline and the per-case metric of each replicate, (W, A, P)."""
    dice = image_values(pixels, tested)
    pooled = PER_CLASS[HEADLINE[1]](_pixel_counts(pixels.sum(axis=-2)))
    return {HEADLINE: pooled, CASE: np.nanmean(dice, axis=-1)}


def image_values(pixels: Whole, tested: Flags) -> Array:
    """Return the per-case metric of each image, (W, A, P, N), NaN where it is not tested."""
    return np.where(tested, PER_CLASS[CASE[1]](_pixel_counts(pixels)), np.nan)


def _pixel_counts(pixels: Whole) -> PixelCounts:
    tp, fp, fn, tn = np.moveaxis(pixels.astype(np.float64), -1, 0)
    none = np.zeros((*tp.shape, 0))
    return PixelCounts(tp=tp, fp=fp, fn=fn, tn=tn, positives=none, negatives=none)


def _parts(studies: int, size: int) -> Iterator[int]:
    for start in range(0, studies, size):
        yield min(size, studies - start)


def _settle_searches(plan: Plan) -> None:
    """Plan arms that wait for a search with the file's own settings, as if it had found these on the reserve."""
    planner = Planner(plan)
    for number in plan.graph.waiting:
        chain = planner.candidate(plan.arms[number], None)
        reading = plan.views[plan.target].stage_rows(plan.node(chain[-1]).selection)
        plan.graph.conclude([number], {None: frozenset((*reading.train, *reading.validation))})
        planner.add(number, plan.arms[number])


def _layout(plan: Plan, store: Store, effects: Effects) -> Layout:
    compare_, view = plan.spec.compare, plan.views[plan.target]
    order = {labelled: place for place, labelled in enumerate(compare_.labelled)}
    replicates = sorted(plan.replicates, key=lambda one: (one.arm, order[one.labelled], one.seed, one.fold))
    shape = len(compare_.labelled), len(compare_.seeds), compare_.folds
    places = int(np.prod(shape))
    arms = len(replicates) // places
    splits = [plan.split(one) for one in replicates]
    real = [view.split(fold=one.fold, seed=one.seed, labelled=_real_labels(plan, one, effects)) for one in replicates]

    def flags(rows: Sequence[Sequence[int]]) -> Flags:
        found = np.zeros((len(rows), len(view.index)), dtype=bool)
        for place, members in enumerate(rows):
            found[place, list(members)] = True
        return found.reshape(arms, places, -1)

    return Layout(
        plan=plan,
        design=study_design(plan, store),
        rows=[_row(plan, one) for one in replicates],
        arms=arms,
        shape=shape,
        training=flags([split.labelled for split in real]),
        validation=flags([split.validation for split in real]),
        tested=flags([split.test for split in splits])[0],
        patients=np.unique(view.index.patients, return_inverse=True)[1],
        runs=_runs([one.chain for one in replicates]).reshape(arms, places, -1),
    )


def _real_labels(plan: Plan, replicate: Replicate, effects: Effects) -> float | int:
    for value in plan.arms[replicate.arm].key:
        if value in effects.labels:
            return effects.labels[value][replicate.labelled]
    return replicate.labelled


def _row(plan: Plan, replicate: Replicate) -> schema.ReplicateRecord:
    share, images = plan.labelled_size(plan.split(replicate))
    by_number = isinstance(replicate.labelled, int)
    return schema.ReplicateRecord(
        factors=plan.arms[replicate.arm].factors, labelled_fraction=share if by_number else replicate.labelled,
        labelled_images=int(replicate.labelled) if by_number else images, updates=1, fold=replicate.fold,
        seed=replicate.seed, digest=replicate.chain[-1],
    )  # fmt: skip


def _runs(chains: Sequence[Sequence[str]]) -> Whole:
    """Number the pretraining stages of each chain; a chain without any counts as a run of its own.

    Shorter chains repeat theirs, which leaves the mean over stages as it is.
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


def _log_signal(layout: Layout, effects: Effects, worlds: int, random: np.random.Generator) -> Array:
    """Return the log of the signal's strength by replicate, (W, A, P): the arm's advantage and its pretraining."""
    own = np.zeros((layout.arms, layout.places))
    for place, row in enumerate(layout.rows):
        advantage = sum(effects.advantage.get(value, 0.0) for value in row.factors.values())
        own[place // layout.places, place % layout.places] = advantage
    drawn = random.standard_normal((worlds, int(layout.runs.max()) + 1))[:, layout.runs]
    stages = [[len(set(runs)) for runs in arm] for arm in layout.runs.tolist()]
    return np.asarray(own + effects.run_sd * drawn.mean(axis=-1) * np.sqrt(stages))


def _true_scores(
    layout: Layout, learner: Learner, weights: Array, boost: Array, random: np.random.Generator
) -> dict[tuple[str, str], Array]:
    """Return what the networks of each cell score on new patients, the mean over its replicates (W, A, L)."""
    worlds, arms, places, features = weights.shape
    flat = weights.swapaxes(0, 1).reshape(1, arms, worlds * places, features)
    flat_boost = boost.swapaxes(0, 1).reshape(1, arms, worlds * places)
    everyone = np.ones((worlds * places, AT_ONCE), dtype=bool)
    pooled, dice = np.zeros((1, arms, worlds * places, 4), dtype=np.int64), np.zeros((1, arms, worlds * places))
    for _ in range(UNSEEN // AT_ONCE):
        images = draw_images(random, learner, worlds=1, arms=arms, patients=np.arange(AT_ONCE))
        pixels = score(images, flat, tested=everyone, boost=flat_boost)
        pooled += pixels.sum(axis=-2)
        dice += image_values(pixels, everyone).sum(axis=-1) / UNSEEN
    found = {HEADLINE: PER_CLASS[HEADLINE[1]](_pixel_counts(pooled)), CASE: dice}
    return {
        metric: values.reshape(arms, worlds, layout.shape[0], -1).mean(axis=-1).swapaxes(0, 1)
        for metric, values in found.items()
    }


def _dealt(pixels: Whole, patients: Whole, random: np.random.Generator) -> Whole:
    """Deal the outputs of each patient to the arms at random, those of all replicates alike."""
    worlds, arms = pixels.shape[:2]
    order = random.random((worlds, arms, int(patients.max()) + 1)).argsort(axis=1)[:, :, patients]
    return np.asarray(np.take_along_axis(pixels, order[:, :, None, :, None], axis=1))


def _present(layout: Layout, simulated: Simulated, failing: Flags, random: np.random.Generator) -> Flags:
    """Return which replicates (arms, places) have results."""
    return ~failing & (random.random(failing.shape) >= simulated.missing)


def _write_failures(plan: Plan, store: Store, layout: Layout, failing: Flags) -> None:
    folder = store.study(plan.spec.name)
    folder.mkdir(parents=True)
    lines = [json.dumps({"digest": layout.rows[place].digest}) for place in np.flatnonzero(failing).tolist()]
    (folder / FAILURES).write_text("\n".join(lines), encoding="utf-8")


def _in_grid(values: Array, layout: Layout) -> Array:
    return values.reshape(len(values), layout.arms, *layout.shape)


def _at_rope(layout: Layout, truth: Mapping[tuple[str, str], Array], world: int) -> Layout:
    """Return the layout with regions of equivalence as wide as the last arm differs from the first in a world."""
    apart = {metric: abs(float(values[world, -1, -1] - values[world, 0, -1])) for (_, metric), values in truth.items()}
    return replace(layout, design=replace(layout.design, rope=EquivalenceMargins(by_metric=apart)))


def _answered(
    layouts: Sequence[Layout], pixels: Whole, scores: Mapping[tuple[str, str], Array], present: Flags, first: int
) -> "pd.DataFrame":
    """Return the product's comparisons of the worlds, numbered from `first`; `layouts` are one, or one a world."""
    import pandas as pd

    fixed = layouts[0].design.fixed_test
    # Pooled metrics of a fixed test set take time that grows with the square of the classes.
    step = 1 if len(layouts) > 1 else AT_ONCE_FIXED if fixed else len(pixels)
    parts = []
    for start in range(0, len(pixels), step):
        some = slice(start, start + step)
        part = {metric: values[some] for metric, values in scores.items()}
        images = pixels[some] if fixed else None
        parts.append(comparisons(layouts[start % len(layouts)], part, present, first + start, images))
    return pd.concat(parts, ignore_index=True)


def comparisons(
    layout: Layout, scores: Mapping[tuple[str, str], Array], present: Flags, first: int, pixels: Whole | None
) -> "pd.DataFrame":
    """Return the product's comparisons of some worlds in one call, each a class named by its number."""
    worlds = [f"{first + number:06}" for number in range(len(scores[HEADLINE]))]
    kept = [place for place, there in enumerate(present.ravel()) if there]
    rows = [layout.rows[place] for place in kept]
    images = {} if pixels is None else {place: _image_values(layout, pixels, worlds, place) for place in kept}
    measured = {
        (row.digest, row.scoring): StageMetrics(list(_numbers(layout, scores, worlds, place)), images.get(place, []))
        for row, place in zip(rows, kept, strict=True)
    }
    further = list(layout.plan.spec.compare.factors)
    table = results_table(layout.plan.spec.name, rows, measured, further=further)
    scored = [ScoredReplicate(layout.rows[place], parts) for place, parts in images.items()]
    return _numbered(layout, compare(table, layout.design, scored).comparisons.to_pandas())


def _numbers(
    layout: Layout, scores: Mapping[tuple[str, str], Array], worlds: Sequence[str], place: int
) -> Iterator[MetricRow]:
    arm, at = divmod(place, layout.places)
    images = int(layout.tested[at].sum())
    for (aggregation, metric), values in scores.items():
        for world, value in zip(worlds, values[:, arm, at].tolist(), strict=True):
            yield MetricRow("test", aggregation, world, metric, value, images)


def _image_values(layout: Layout, pixels: Whole, worlds: Sequence[str], place: int) -> list[ImageValues]:
    arm, at = divmod(place, layout.places)
    tested = np.flatnonzero(layout.tested[at]).tolist()
    counts = pixels[:, arm, at][:, tested].swapaxes(0, 1)
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


def _numbered(layout: Layout, lines: "pd.DataFrame") -> "pd.DataFrame":
    """Add the numbers of world, arm and level."""
    names = list(schema.factor_columns(list(lines.columns)))
    arms = {tuple(row.factors.values()): place // layout.places for place, row in enumerate(layout.rows)}
    level = layout.design.level
    levels = {getattr(row, level): place % layout.places // (layout.shape[1] * layout.shape[2])
              for place, row in enumerate(layout.rows)}  # fmt: skip
    return lines.assign(
        world=lines["class"].astype(int),
        arm_number=[arms[key] for key in lines[names].itertuples(index=False, name=None)],
        level_number=[levels[value] for value in lines[level]],
    )
