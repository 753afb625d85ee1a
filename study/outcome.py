"""From the store to results, comparisons and the learning curve. Reads Parquet, trains nothing."""

import functools
import operator
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from results import schema
from results.design import Design, Family
from results.measured import read_measured, write_measured
from results.metrics import MetricSettings, measure_all, results_table
from results.metrics import Stage as Measurement
from results.paired import paired_tests
from results.per_image import Scored
from results.schema import Replicate as Row
from results.statistics import compare
from study.derived import read_derived, stage_marks, write_derived
from study.families import baseline_of, family_name
from study.identity import combined
from study.layout import COMPARISONS, MEASURED, RESULTS, TESTS
from study.plan import Plan, Replicate
from study.problems import Problem, Refused
from study.spec import StudySpec
from study.stages import MaskStage, Stage
from study.store import Store, score_files

if TYPE_CHECKING:
    import pyarrow as pa


def write_outcome(plan: Plan, store: Store) -> "pa.Table":
    """Derive all tables from the finished replicates, unless they are there already, and return the comparisons."""
    finished = store.finished()
    done = [
        one for one in plan.replicates if one.chain[-1] in finished and store.scored(one.chain[-1], one.scoring.key)
    ]
    store.bring((one.chain[-1], name) for one in done for name in score_files(one.scoring.key))
    settings, design = metric_settings(plan.spec), _design(plan)
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
    comparisons = compare(results, design)
    scored = [Scored(one, measured[one.digest, one.scoring].images) for one in replicates]
    tables = {RESULTS: results, COMPARISONS: comparisons, TESTS: paired_tests(results, design, scored)}
    write_derived(folder, tables, mark)
    return comparisons


def metric_settings(spec: StudySpec) -> MetricSettings:
    """Return which classes a study scores, and which of them enter its means."""
    return MetricSettings(
        classes=spec.metrics.classes, background=spec.metrics.background, min_images=spec.metrics.min_images
    )


def _row(plan: Plan, store: Store, replicate: Replicate) -> Row:
    cohort = plan.cohorts[plan.target]
    split = plan.split(replicate)
    by_number = isinstance(replicate.labelled, int)
    training = split.labelled_images + sum(1 for row in split.unlabelled if cohort.index.offers["masks"][row])
    share = round(split.labelled_images / training, 4)
    return Row(
        factors=plan.arms[replicate.arm].factors,
        labelled_fraction=share if by_number else replicate.labelled,
        labelled_images=int(replicate.labelled) if by_number else split.labelled_images,
        updates=store.seal(replicate.chain[-1])["updates"],
        fold=replicate.fold,
        seed=replicate.seed,
        digest=replicate.chain[-1],
        scoring=replicate.scoring.key,
    )


def _design(plan: Plan) -> Design:
    compare_ = plan.spec.compare
    return Design(
        folds=compare_.folds,
        seeds=len(compare_.seeds),
        families=_families(plan),
        fixed_test=plan.test_is_fixed,
        level=compare_.level,
        notes=_notes(plan),
    )


def _families(plan: Plan) -> list[Family]:
    dropped = {plan.arms[away].key: plan.arms[kept].key for away, kept in plan.same_arms}
    families = []
    for rule in plan.spec.compare.baseline:
        pairs = {}
        for arm in plan.arms:
            if arm.key not in dropped:
                baseline = baseline_of(arm, rule)
                pairs[arm.key] = dropped.get(baseline, baseline)
        families.append(Family(name=family_name(rule), pairs=pairs))
    return families


def _notes(plan: Plan) -> Mapping[str, str]:
    """Return by digest of target stages what a reader must know of them."""
    notes = {}
    given = _labelled(plan)
    for replicate in plan.replicates:
        nodes = [plan.nodes[digest] for digest in replicate.chain]
        told = []
        if not plan.cohorts[plan.target].reading(nodes[-1].draw).validation:
            told.append(f"fewer than {plan.spec.validation.min_cases} validation images: last epoch taken")
            told += _idle_without_validation(nodes[-1].step.settings)
        searched = plan.masks_of_search(replicate)
        if searched:
            split = plan.split(replicate)
            if not searched.issubset((*split.labelled, *split.validation)):
                told.append(f"settings found with {len(searched)} masks, not all among this cell's")
        draw = nodes[-1].draw
        if draw.unlabelled and not plan.cohorts[plan.target].reading(draw).unlabelled:
            told.append("no mask is hidden: adversarial training on labelled images alone")
        fixed = [node.recipe.step.stage for node in nodes if node.recipe.step.settings.seed is not None]
        if fixed:
            told.append(f"seed of {', '.join(fixed)} fixed: its variance is not included")
        if given[replicate.labelled] > replicate.labelled:
            told.append(f"whole patients: {given[replicate.labelled]:g} images labelled on average")
        if told:
            notes[replicate.chain[-1]] = "; ".join(told)
    return notes


def _idle_without_validation(settings: Stage) -> list[str]:
    """Return what a stage asks for and nothing decides where nothing validates."""
    idle = ["plateau never lowers the learning rate"] if settings.schedule.name == "plateau" else []
    chosen = settings.class_threshold if isinstance(settings, MaskStage) else None
    return idle + ([f"no threshold of {chosen.class_} is chosen"] if chosen else [])


def _labelled(plan: Plan) -> Mapping[float | int, float]:
    """Return how many images were labelled, by the number that was asked for; 0 for a share."""
    given: dict[float | int, float] = {}
    for labelled in plan.spec.compare.labelled:
        numbers = [split.labelled_images for split in plan.splits(labelled)]
        given[labelled] = round(sum(numbers) / len(numbers), 1) if isinstance(labelled, int) else 0.0
    return given


def read_comparisons(folder: Path, wanted: Mapping[str, str] | None = None) -> "pa.Table":
    """Return the comparisons of a study's folder, only rows with the wanted values. Raises `Refused` without any file.

    Where no row has them all, the columns of `wanted` alone tell what there is.
    """
    import pyarrow.parquet as pq

    file = folder / COMPARISONS
    if not file.is_file():
        message = "has no comparisons yet; allowed: a study that has run; run it first"
        raise Refused([Problem(path="", message=message)], folder.name)
    if wanted is None:
        return pq.read_table(file)
    columns = pq.read_schema(file)
    # Words repeat: read as dictionaries they cost a fraction.
    words = [field.name for field in columns if field.type == "string"]
    filters = [(name, "=", value) for name, value in wanted.items()]
    rows = pq.read_table(file, filters=filters, read_dictionary=words).cast(columns)
    return rows if rows.num_rows else pq.read_table(file, columns=[*wanted])


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
    best = max(headline.to_pylist(), key=lambda row: row["mean"])
    return frozenset(
        one.chain[-1]
        for one in plan.replicates
        if one.labelled == best[plan.spec.compare.level]
        and all(best[name] == value for name, value in plan.arms[one.arm].factors.items())
    )
