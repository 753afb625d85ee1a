"""What is told of a plan: by `study plan`, and to those who read a study's folder."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.analysis.detectable import alternatives, detectable, detectable_lines
from study.monitoring.forecast import Load, forecast, forecast_lines
from study.planning.baselines import family_name
from study.planning.graph import Plan, image_epochs
from study.planning.pending import PendingStages, pending_stages
from study.planning.pretrained import missing_weights
from study.store.atomic import write_signed
from study.store.paths import PLAN
from study.store.store import Store

if TYPE_CHECKING:
    from study.search.arm_search import ArmSearch, ArmSearches

Told = dict[str, Any]


def summary(plan: Plan, store: Store, cache: Path) -> Told:
    """Count arms, cells, replicates, stages and image-epochs, and forecast; more keys may follow."""
    left = pending_stages(plan, store)
    nodes = plan.nodes | plan.after_search
    cost = {digest: image_epochs(plan, node) for digest, node in nodes.items()}
    replicates = [*plan.replicates, *(row for rows in plan.waiting.values() for row in rows)]
    told = {
        "study": plan.spec.name,
        "arms": len({one.arm for one in replicates}),
        "cells": len({(one.arm, one.labelled) for one in replicates}),
        "replicates": len(replicates),
        "stages": {
            "naive": sum(len(one.chain) for one in replicates),
            "unique": len(nodes),
            "finished": len(left.finished),
            "to_run": len(left.stages),
            "after_search": len(plan.after_search),
        },
        "image_epochs": {
            "naive": sum(cost[digest] for one in replicates for digest in one.chain),
            "unique": sum(cost.values()),
            "to_run": sum(cost[digest] for digest in left.stages if digest not in left.scored),
        },
        "tasks": dict(Counter(node.recipe.step.settings.task for node in nodes.values())),
        "data": dict(Counter(node.draw.data for node in nodes.values())),
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
        "baselines": [family_name(rule) for rule in plan.spec.compare.baseline],
        "warnings": [*plan.warnings, *_same_arms(plan), *missing_weights(plan, left, store), *_again(left)],
    }
    trained = [digest for digest in dict.fromkeys([*left.stages, *plan.after_search]) if digest not in left.scored]
    loads = [Load(node=nodes[digest], image_epochs=cost[digest]) for digest in trained]
    if plan.searches is not None:
        tried = _tried(plan, plan.searches)
        told["search"] = _search(plan.searches, tried, store)
        loads += tried.values()
    reads = [nodes[digest] for digest in left.stages] + [load.node for load in loads]
    entries = detectable(plan, store)
    more = alternatives(plan, max(entry["comparisons"] for entry in entries))
    told |= {"detectable": entries, "alternatives": more, "cell_images": _cell_images(plan)}
    return told | {"forecast": forecast(plan, store, cache, loads, reads)}


def _cell_images(plan: Plan) -> list[dict[str, object]]:
    """Return for each cell its mean numbers of images that are labelled, validate and test, over folds and seeds."""
    sizes = {labelled: _mean_images(plan, labelled) for labelled in plan.spec.compare.labelled}
    replicates = [*plan.replicates, *(row for rows in plan.waiting.values() for row in rows)]
    cells = dict.fromkeys((replicate.arm, replicate.labelled) for replicate in replicates)
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


def _tried(plan: Plan, searches: "ArmSearches") -> "dict[ArmSearch, Load]":
    """Return the costliest stage that each search may try, as often as it still tries one."""
    found: dict[ArmSearch, Load] = {}
    for one in searches.all:
        base = [plan.node(searches.planner.candidate(plan.arms[number], one.fold)[-1]) for number in one.arms]
        node = max(base, key=lambda node: image_epochs(plan, node))
        left = max(searches.search.trials - one.trials.settled, 0)
        found[one] = Load(node=node, image_epochs=image_epochs(plan, node), times=left, tried=True)
    return found


def _search(searches: "ArmSearches", tried: "dict[ArmSearch, Load]", store: Store) -> Told:
    """Count searches, their trials, and what a changed best would train again."""
    return {
        "searches": len(searches.all),
        "finished": sum(one.trials.finished for one in searches.all),
        "trials": searches.search.trials * len(searches.all),
        "settled": sum(min(one.trials.settled, searches.search.trials) for one in searches.all),
        "image_epochs": sum(load.image_epochs * searches.search.trials for load in tried.values()),
        "cells_at_stake": searches.at_stake(store.scored),
    }


def _again(left: PendingStages) -> list[str]:
    if not left.again:
        return []
    return [f"{len(left.again)} finished stages are trained again: their weights are needed and were not kept"]


def _same_arms(plan: Plan) -> list[str]:
    return [
        f"arm {' / '.join(plan.arms[away].key)} trains the same as {' / '.join(plan.arms[kept].key)}: reported once"
        for away, kept in plan.same_arms
    ]


def summary_text(told: Told) -> str:
    """Return the summary as a person reads it."""
    stages, cost = told["stages"], told["image_epochs"]
    lines = [
        f"study        {told['study']}",
        f"compares     {told['arms']} arms, {told['cells']} cells, {told['replicates']} replicates",
        f"stages       {stages['naive']:,} if every replicate trained its whole chain; {stages['unique']:,} unique; "
        f"{stages['finished']:,} finished; {stages['to_run']:,} to run",
        f"image-epochs {cost['naive']:,} naive; {cost['unique']:,} unique; {cost['to_run']:,} to run",
        f"tasks        {_counts(told['tasks'])}",
        f"data         {_counts(told['data'])} (stages)",
        *_image_lines(told["cell_images"]),
        f"baseline     {'; '.join(told['baselines']) or 'none: no arm is tested against another'}",
        *detectable_lines(told["detectable"], told["alternatives"]),
    ]
    if "search" in told:
        lines += _search_lines(told["search"], stages["after_search"])
    lines += forecast_lines(told["forecast"])
    for leak in told["excluded"]:
        lines.append(f"left out     {len(leak['images'])} images of {leak['data']} that show a case of the target")
    return "\n".join([*lines, *(f"warning      {warning}" for warning in told["warnings"])])


def _image_lines(cells: list[dict[str, Any]]) -> list[str]:
    """Return the images of each level of labelled data; they are the same for every arm."""
    lines = []
    for sizes in {(cell["labelled"], cell["validation"], cell["test"]): cell for cell in cells}.values():
        amount = sizes.get("labelled_images") or f"{100 * sizes['labelled_fraction']:g} %"
        validation = f"{sizes['validation']:g} of them validate" if sizes["validation"] else "none of them validates"
        last = "" if sizes["validation"] else " (the last epoch is taken)"
        lines.append(f"{amount}: {sizes['labelled']:g} labelled, {validation}{last}; {sizes['test']:g} test")
    return [("images       " if number == 0 else "             ") + line for number, line in enumerate(lines)]


def _search_lines(search: Told, waiting: int) -> list[str]:
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


def write_plan(plan: Plan, store: Store) -> None:
    """Write which stages a study plans with, and what it searches, into its folder."""
    stages = {name: node.recipe.step.stage for name, node in plan.nodes.items()}
    told: Told = {"study": plan.spec.name, "stages": stages}
    if plan.searches is not None:
        told |= {
            "after_search": len(plan.after_search),
            "searches": plan.searches.told(),
            "journal_lines": plan.searches.journal_lines(),
        }
    write_signed(store.study(plan.spec.name) / PLAN, told)
