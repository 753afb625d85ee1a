"""Summary of a plan: the output of `study plan`, and `plan.json` in the folder of a study."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets.augment_settings import AugmentSettings
from datasets.checks.classes import class_images_text
from datasets.checks.volumes import distance_unit, volumes_text
from study.analysis.annotation_cost import annotated_already, arms_at_budgets, hours_by_cell, hours_lines
from study.analysis.detectable import alternatives, detectable, detectable_lines
from study.analysis.weak_images import (
    pseudo_label_lines,
    pseudo_labelled_images,
    teacher_runs,
    weak_image_lines,
    weak_images,
)
from study.config.recipes import recipe_values
from study.config.stages import ConsistencyStage, MaskStage, Stage
from study.monitoring.forecast import TrainingLoad, forecast, forecast_lines
from study.planning.arms import StageConfig, text_of
from study.planning.baselines import family_name
from study.planning.evaluation import EvaluationSettings
from study.planning.graph import Plan, image_epochs, lineage
from study.planning.pending import PendingStages, pending_stages
from study.planning.pretrained import changed_weights, missing_weights, unresolved_stages
from study.store.atomic import write_signed
from study.store.paths import PLAN
from study.store.store import Store

if TYPE_CHECKING:
    from study.search.arm_search import ArmSearch, ArmSearches

Summary = dict[str, Any]


def summary(plan: Plan, store: Store, cache: Path, searches: "ArmSearches | None" = None) -> Summary:
    """Return counts of arms, cells, replicates, stages and image-epochs, detectable differences and the forecast.

    `searches` are those of a plan with a search.
    """
    pending = pending_stages(plan, store)
    after_search = plan.graph.after_search
    nodes = {**plan.nodes, **after_search}
    cost = {digest: image_epochs(plan, node) for digest, node in nodes.items()}
    replicates = plan.all_replicates
    lineages = [list(lineage(nodes.__getitem__, replicate.chain[-1:])) for replicate in replicates]
    result = {
        "study": plan.spec.name,
        "arms": len({replicate.arm for replicate in replicates}),
        "cells": len({(replicate.arm, replicate.labelled) for replicate in replicates}),
        "replicates": len(replicates),
        "stages": {
            "naive": sum(map(len, lineages)),
            "unique": len(nodes),
            "finished": len(pending.finished),
            "to_run": len(pending.stages),
            "after_search": len(after_search),
        },
        "image_epochs": {
            "naive": sum(cost[digest] for stages in lineages for digest in stages),
            "unique": sum(cost.values()),
            "to_run": sum(cost[digest] for digest in pending.stages if digest not in pending.scored),
        },
        "weights": {name: list(rules) for name, rules in plan.file_rules.items()},
        "unresolved": [
            {"backbone": backbone, "initial_weights": name, "stages": len(stages)}
            for (backbone, name), stages in unresolved_stages(plan).items()
        ],
        "tasks": dict(Counter(node.step.settings.task for node in nodes.values())),
        "data": dict(Counter(node.selection.data for node in nodes.values())),
        "recipes": _recipes(plan, (node.step for node in nodes.values())),
        "augment": _presets(node.step for node in nodes.values()),
        "weak_labels": weak_images(plan),
        "pseudo_labels": pseudo_labelled_images(plan),
        "teacher_runs": teacher_runs(plan),
        "leaks": [
            {"stage": step, "with": leak.target, "kind": leak.kind, "images": len(leak.images)}
            for leak in plan.leaks
            for step in sorted(name for name, stage in plan.spec.stages.items() if stage.data == leak.data)
        ],
        "excluded": [
            {"data": name, "images": sorted(view.index.ids[row] for row in view.spec.excluded)}
            for name, view in plan.views.items()
            if view.spec.excluded
        ],
        "volumes": {name: text for name, view in plan.views.items() if (text := volumes_text(view.index))},
        "annotated": {name: text for name, view in plan.views.items() if (text := class_images_text(view.index))},
        "distances": _distance_unit(plan),
        "annotators": _annotators(plan),
        "annotation": _annotation(plan),
        "baselines": [family_name(rule) for rule in plan.spec.compare.baseline],
        "warnings": [
            *plan.warnings, *_same_arms(plan),
            *dict.fromkeys(problem.message for problem in missing_weights(plan, pending, store)),
            *changed_weights(plan), *_retrained(pending),
        ],
    }  # fmt: skip
    to_run = dict.fromkeys([*pending.stages, *after_search])
    trained = [digest for digest in to_run if digest not in pending.scored]
    loads = [TrainingLoad(node=nodes[digest], image_epochs=cost[digest]) for digest in trained]
    if searches is not None:
        candidates = _candidate_loads(plan, searches)
        result["search"] = _search(searches, candidates, store)
        loads += [load for of_search in candidates.values() for load in of_search]
    reads = [nodes[digest] for digest in pending.stages] + [load.node for load in loads]
    entries = detectable(plan, store)
    options = alternatives(plan, max(entry["comparisons"] for entry in entries))
    result |= {"detectable": entries, "alternatives": options, "cell_images": _cell_images(plan)}
    return result | {"forecast": forecast(plan, store, cache, loads, reads)}


def _distance_unit(plan: Plan) -> str | None:
    """Return the unit of distances; None if none are computed."""
    return None if plan.spec.metrics.shape is None else distance_unit(plan.views[plan.target].index)


def _recipes(plan: Plan, steps: Iterable[StageConfig]) -> list[dict[str, Any]]:
    """Return the values of each stage for the keys of its recipe, once for each set of values."""
    entries = (
        {
            "stage": step.stage,
            "recipe": step.settings.recipe,
            "values": recipe_values(step.settings) | _tta(plan, step),
        }
        for step in steps
        if step.settings.recipe is not None
    )
    return list({json.dumps(entry): entry for entry in entries}.values())


def _tta(plan: Plan, step: StageConfig) -> dict[str, Any]:
    """Return the test-time augmentation of a stage; nothing if it is not evaluated on masks."""
    if not isinstance(step.settings, MaskStage):
        return {}
    return {"tta": list(EvaluationSettings.of(plan.spec.evaluate, step.settings).tta)}


def _annotators(plan: Plan) -> dict[str, Any] | None:
    """Return the annotator whose masks are trained on, and the test images that each other one annotated.

    None without several annotators.
    """
    view = plan.views[plan.target]
    if not view.annotators:
        return None
    test = sorted(
        {row for labelled in plan.spec.compare.labelled for split in plan.splits(labelled) for row in split.test}
    )
    others = {name: len(annotator.usable(test)) for name, annotator in view.annotators.items()}
    return {"trained": view.trained_annotator, "test_images": others}


def _annotation(plan: Plan) -> dict[str, Any] | None:
    """Return the hours of annotation by cell, the arms at each budget and the data sets without a stated cost.

    None if no cost is stated.
    """
    cells = hours_by_cell(plan)
    if not cells:
        return None
    budgets = arms_at_budgets(cells, plan.spec.compare.hours)
    return {"cells": cells, "budgets": budgets, "annotated_already": annotated_already(plan)}


def _augmentations(settings: Stage) -> dict[str, AugmentSettings]:
    """Return the augmentation of a stage, and that of its strong views, by key."""
    strong = (
        {"consistency.strong": settings.consistency.strong_augment} if isinstance(settings, ConsistencyStage) else {}
    )
    return {"augment": settings.augment, **strong}


def _presets(steps: Iterable[StageConfig]) -> list[dict[str, Any]]:
    """Return the resolved augmentation of each stage that names a preset, once for each set of values."""
    entries = (
        {"stage": step.stage, "key": key, "preset": augment.preset, "values": augment.changed}
        for step in steps
        for key, augment in _augmentations(step.settings).items()
        if augment.preset is not None
    )
    return list({json.dumps(entry): entry for entry in entries}.values())


def _cell_images(plan: Plan) -> list[dict[str, object]]:
    """Return for each cell the mean numbers of labelled, validation and test images over folds and seeds."""
    sizes = {labelled: _mean_images(plan, labelled) for labelled in plan.spec.compare.labelled}
    cells = dict.fromkeys((replicate.arm, replicate.labelled) for replicate in plan.all_replicates)
    level = plan.spec.compare.level
    return [{**plan.arms[arm].factors, level: labelled, **sizes[labelled]} for arm, labelled in cells]


def _mean_images(plan: Plan, labelled: float | int) -> dict[str, float]:
    splits = plan.splits(labelled)
    counts = {
        "labelled": [split.labelled_images for split in splits],
        "validation": [len(split.validation) for split in splits],
        "test": [len(split.test) for split in splits],
    }
    return {name: round(sum(column) / len(column), 1) for name, column in counts.items()}


def _candidate_loads(plan: Plan, searches: "ArmSearches") -> "dict[ArmSearch, list[TrainingLoad]]":
    """Return for each search the stages that it changes of its most expensive candidate, times the trials left."""
    loads: dict[ArmSearch, list[TrainingLoad]] = {}
    for search in searches.all:
        trials = max(searches.search.trials - search.trials.settled, 0)
        candidates = []
        for number in search.arms:
            chain = searches.planner.candidate(plan.arms[number], search.fold)
            nodes = [plan.node(stage) for stage in (*searches.stages_before(number, chain), chain[-1])]
            candidates.append([
                TrainingLoad(node=node, image_epochs=image_epochs(plan, node), times=trials, is_candidate=True)
                for node in nodes
            ])  # fmt: skip
        loads[search] = max(candidates, key=lambda stages: sum(load.image_epochs for load in stages))
    return loads


def _search(searches: "ArmSearches", candidates: "dict[ArmSearch, list[TrainingLoad]]", store: Store) -> Summary:
    """Count searches, their trials, and the cells to retrain if the best settings change."""
    return {
        "searches": len(searches.all),
        "finished": sum(search.trials.finished for search in searches.all),
        "trials": searches.search.trials * len(searches.all),
        "settled": sum(min(search.trials.settled, searches.search.trials) for search in searches.all),
        "image_epochs": sum(load.image_epochs for of_search in candidates.values() for load in of_search)
        * searches.search.trials,
        "cells_at_stake": searches.cells_at_stake(store.scored),
    }


def _retrained(pending: PendingStages) -> list[str]:
    if not pending.again:
        return []
    return [f"{len(pending.again)} finished stages are trained again: their weights are needed and were not kept"]


def _same_arms(plan: Plan) -> list[str]:
    return [
        f"arm {' / '.join(plan.arms[dropped].key)} trains the same as {' / '.join(plan.arms[kept].key)}: reported once"
        for dropped, kept in plan.graph.same_arms
    ]


def summary_text(summary: Summary) -> str:
    """Return the summary as text."""
    stages, cost = summary["stages"], summary["image_epochs"]
    lines = [
        f"study        {summary['study']}",
        f"compares     {summary['arms']} arms, {summary['cells']} cells, {summary['replicates']} replicates",
        f"stages       {stages['naive']:,} if every replicate trained its whole chain; {stages['unique']:,} unique; "
        f"{stages['finished']:,} finished; {stages['to_run']:,} to run",
        *(
            f"unresolved   {entry['stages']:,} stages from {entry['initial_weights']} weights of {entry['backbone']}: "
            "their digests change once the content of the weights is known"
            for entry in summary["unresolved"]
        ),
        f"image-epochs {cost['naive']:,} naive; {cost['unique']:,} unique; {cost['to_run']:,} to run",
        f"tasks        {_counts(summary['tasks'])}",
        f"data         {_counts(summary['data'])} (stages)",
        *(f"volumes      {name}: {text}" for name, text in summary["volumes"].items()),
        *(f"annotated    {name}, images by class: {text}" for name, text in summary["annotated"].items()),
        *(
            f"recipe       {entry['stage']}, {entry['recipe']}: {text_of(entry['values']).strip('{}')}"
            for entry in summary["recipes"]
        ),
        *(
            f"augment      {_augmented(entry)}, {entry['preset']}: {text_of(entry['values']).strip('{}')}"
            for entry in summary["augment"]
        ),
        *(f"weights      {name} for {text}" for name, rules in summary["weights"].items() for text in rules),
        *_image_lines(summary["cell_images"]),
        *([f"distances    in {summary['distances']}"] if summary["distances"] else []),
        *_with_heading("weak labels", weak_image_lines(summary["weak_labels"])),
        *_with_heading("pseudo-label", pseudo_label_lines(summary["pseudo_labels"], summary["teacher_runs"])),
        *_annotator_lines(summary["annotators"]),
        *_annotation_lines(summary["annotation"]),
        f"baseline     {'; '.join(summary['baselines']) or 'none: no arm is tested against another'}",
        *detectable_lines(summary["detectable"], summary["alternatives"]),
    ]
    if "search" in summary:
        lines += _search_lines(summary["search"], stages["after_search"])
    lines += forecast_lines(summary["forecast"])
    for excluded in summary["excluded"]:
        images = f"{len(excluded['images'])} images of {excluded['data']}"
        lines.append(f"left out     {images} that show a case of the target")
    return "\n".join([*lines, *(f"warning      {warning}" for warning in summary["warnings"])])


def _augmented(entry: Mapping[str, Any]) -> str:
    """Return the stage that is augmented, with the key of its strong views."""
    return entry["stage"] if entry["key"] == "augment" else f"{entry['stage']}.{entry['key']}"


def _image_lines(cells: list[dict[str, Any]]) -> list[str]:
    """Return the numbers of images for each amount of labelled data; they are the same for every arm."""
    lines = []
    for sizes in {(cell["labelled"], cell["validation"], cell["test"]): cell for cell in cells}.values():
        amount = sizes.get("labelled_images") or f"{100 * sizes['labelled_fraction']:g} %"
        validation = f"{sizes['validation']:g} of them validate" if sizes["validation"] else "none of them validates"
        note = "" if sizes["validation"] else " (the last epoch is taken)"
        lines.append(f"{amount}: {sizes['labelled']:g} labelled, {validation}{note}; {sizes['test']:g} test")
    return _with_heading("images", lines)


def _with_heading(heading: str, lines: Sequence[str]) -> list[str]:
    return [f"{heading if number == 0 else '':13}{line}" for number, line in enumerate(lines)]


def _annotator_lines(annotators: dict[str, Any] | None) -> list[str]:
    if annotators is None:
        return []
    others = ", ".join(f"{name} ({images:,} test images)" for name, images in annotators["test_images"].items())
    return [f"annotators   trained on {annotators['trained']}; also scored against {others}"]


def _annotation_lines(annotation: dict[str, Any] | None) -> list[str]:
    if annotation is None:
        return []
    lines = hours_lines(annotation["cells"])
    lines += [
        f"budget of {budget['hours']:g} h: {budget['arms']} of {budget['of']} arms can be compared"
        for budget in annotation["budgets"]
    ]
    if annotation["annotated_already"]:
        lines.append(f"annotated already, at no cost: {', '.join(annotation['annotated_already'])}")
    return _with_heading("annotation", lines)


def _search_lines(search: Summary, waiting: int) -> list[str]:
    lines = [
        f"search       {search['searches']} searches, {search['finished']} finished; {search['settled']:,} of "
        f"{search['trials']:,} trials done; at most {search['image_epochs']:,} image-epochs; {waiting:,} of the stages "
        "wait for it"
    ]
    if search["cells_at_stake"]:
        lines.append(f"             a changed best would train {search['cells_at_stake']:,} compared cells again")
    return lines


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {number:,}" for name, number in counts.items())


def write_plan(plan: Plan, store: Store, searches: "ArmSearches | None") -> None:
    """Write `plan.json`, the stages and the searches of a study, into its folder."""
    stages = {name: node.step.stage for name, node in plan.nodes.items()}
    content: Summary = {"study": plan.spec.name, "stages": stages}
    if searches is not None:
        content |= {
            "after_search": len(plan.graph.after_search),
            "searches": searches.summaries(),
            "journal_lines": searches.journal_lines(),
        }
    write_signed(store.study(plan.spec.name) / PLAN, content)
