"""Statistical design of a planned study: what the analysis needs and the results table does not contain."""

import json
from collections.abc import Mapping
from pathlib import Path

from datasets.checks.volumes import distance_unit
from results.statistics.design import Design, EquivalenceMargins, Family, PlannedCell
from study.analysis.annotation_cost import annotation_hours
from study.config.stages import MaskStage, Stage
from study.planning.baselines import baseline_of, family_name
from study.planning.dataset_view import FEWEST_UNLABELLED
from study.planning.graph import Plan, Replicate, lineage, pool_of_stage
from study.store.paths import FAILURES
from study.store.store import Store


def study_design(plan: Plan, store: Store) -> Design:
    """Return the design of a study, with the replicates that failed in its last run."""
    compare = plan.spec.compare
    return Design(
        folds=compare.folds,
        seeds=len(compare.seeds),
        families=families(plan),
        fixed_test=plan.test_is_fixed,
        level=compare.level,
        fixed_split=plan.views[plan.target].settings.seed is not None,
        cells=_cells(plan, store, _failed_stages(store.study(plan.spec.name) / FAILURES)),
        ancestors={replicate.chain[-1]: replicate.chain[:-1] for replicate in plan.replicates},
        tuned=[plan.arms[arm].key for arm, fold in plan.graph.searched_with if fold is None],
        notes=_notes(plan),
        rope=_rope(plan),
        hours=compare.hours,
        distance_unit=distance_unit(plan.views[plan.target].index),
    )


def _rope(plan: Plan) -> EquivalenceMargins:
    rope = plan.spec.compare.rope
    return EquivalenceMargins(by_metric=dict(rope)) if isinstance(rope, Mapping) else EquivalenceMargins(default=rope)


def _cells(plan: Plan, store: Store, failed: frozenset[str]) -> list[PlannedCell]:
    """Return all cells, including those of arms that wait for their search."""
    cells: dict[tuple[int, float | int], list[Replicate]] = {}
    for replicate in plan.all_replicates:
        cells.setdefault((replicate.arm, replicate.labelled), []).append(replicate)
    sizes = {labelled: _mean_sizes(plan, labelled) for labelled in plan.spec.compare.labelled}
    hours = annotation_hours(plan)
    nodes = {**plan.nodes, **plan.graph.after_search}

    def has_failed(replicate: Replicate) -> bool:
        """Return whether a stage that it needs failed in the last run and the replicate has no scores."""
        last, stages = replicate.chain[-1], lineage(nodes.__getitem__, replicate.chain[-1:])
        return not failed.isdisjoint(stages) and not store.scored(last, replicate.scoring.key)

    return [
        PlannedCell(
            arm=plan.arms[arm].key, level=labelled, labelled_fraction=sizes[labelled][0],
            labelled_images=round(sizes[labelled][1]),
            failed=sum(map(has_failed, replicates)),
            annotation_hours=hours.get((arm, labelled)),
        )
        for (arm, labelled), replicates in cells.items()
    ]  # fmt: skip


def _mean_sizes(plan: Plan, labelled: float | int) -> tuple[float, float]:
    """Return the mean fraction and number of labelled images over folds and seeds."""
    sizes = [plan.labelled_size(split) for split in plan.splits(labelled)]
    return sum(share for share, _ in sizes) / len(sizes), sum(images for _, images in sizes) / len(sizes)


def _failed_stages(file: Path) -> frozenset[str]:
    """Return the digests of the stages that failed in the last run; unreadable lines are skipped."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    failed = set()
    for line in lines:
        try:
            failed.add(str(json.loads(line)["digest"]))
        except (ValueError, TypeError, KeyError):
            continue
    return frozenset(failed)


def families(plan: Plan) -> list[Family]:
    """Return the families of comparisons; arms that train the same stages count once."""
    kept_arms = {plan.arms[dropped].key: plan.arms[kept].key for dropped, kept in plan.graph.same_arms}
    result = []
    for rule in plan.spec.compare.baseline:
        pairs = {}
        for arm in plan.arms:
            if arm.key not in kept_arms:
                baseline = baseline_of(arm, rule)
                pairs[arm.key] = kept_arms.get(baseline, baseline)
        result.append(Family(name=family_name(rule), pairs=pairs))
    return result


def _notes(plan: Plan) -> Mapping[str, str]:
    """Return notes on the results of target stages, by digest."""
    notes = {}
    labelled = _mean_labelled(plan)
    for replicate in plan.replicates:
        nodes = [plan.nodes[digest] for digest in replicate.chain]
        texts = []
        if not plan.views[plan.target].stage_rows(nodes[-1].selection).validation:
            cases = "volumes" if any(plan.views[plan.target].index.volumes) else "images"
            texts.append(f"fewer than {plan.spec.validation.min_cases} validation {cases}: last epoch taken")
            texts += _settings_without_effect(nodes[-1].step.settings)
        searched = plan.masks_of_search(replicate)
        if searched:
            split = plan.split(replicate)
            if not searched.issubset((*split.labelled, *split.validation)):
                texts.append(f"settings found with {len(searched)} masks, not all among this cell's")
        selection = nodes[-1].selection
        rows = plan.views[plan.target].stage_rows(selection)
        if selection.unlabelled and not pool_of_stage(rows, nodes[-1].step):
            task = nodes[-1].step.settings.task
            images = "unlabelled images" if selection.weak is None else "images with weak labels"
            texts.append(f"fewer than {FEWEST_UNLABELLED} {images}: {task} training on labelled images alone")
        fixed = [node.step.stage for node in nodes if node.step.settings.seed is not None]
        if fixed:
            texts.append(f"seed of {', '.join(fixed)} fixed: its variance is not included")
        if labelled[replicate.labelled] > replicate.labelled:
            texts.append(f"whole patients: {labelled[replicate.labelled]:g} images labelled on average")
        if texts:
            notes[replicate.chain[-1]] = "; ".join(texts)
    return notes


def _settings_without_effect(settings: Stage) -> list[str]:
    """Return notes on settings that have no effect without validation images."""
    notes = ["plateau never lowers the learning rate"] if settings.schedule.name == "plateau" else []
    threshold = settings.class_threshold if isinstance(settings, MaskStage) else None
    return notes + ([f"no threshold of {threshold.class_} is chosen"] if threshold else [])


def _mean_labelled(plan: Plan) -> Mapping[float | int, float]:
    """Return the mean number of labelled images by `labelled_images`; 0 for a fraction."""
    means: dict[float | int, float] = {}
    for labelled in plan.spec.compare.labelled:
        numbers = [split.labelled_images for split in plan.splits(labelled)]
        means[labelled] = round(sum(numbers) / len(numbers), 1) if isinstance(labelled, int) else 0.0
    return means
