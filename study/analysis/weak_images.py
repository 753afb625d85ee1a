"""Numbers of images with weak labels, from the data set or derived from hidden masks, and with pseudo-labels."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from models.task_settings.pseudo_labels import pseudo_labels_of
from results.schema import SIZES
from study.planning.graph import Plan, PlannedStage


def weak_images(plan: Plan) -> list[dict[str, Any]]:
    """Return the mean numbers of images with weak labels over replicates, by stage, kind and amount of labelled data.

    `own` are those with annotation of the data set, `derived` those whose labels are derived from masks.
    """
    nodes = {**plan.graph.after_search, **plan.nodes}
    counts: dict[tuple[str, str, float | int], dict[str, tuple[int, int]]] = {}
    used = dict.fromkeys(
        (digest, replicate.labelled) for replicate in plan.all_replicates for digest in replicate.chain
    )
    for digest, labelled in used:
        selection = nodes[digest].selection
        if selection.weak is not None:
            rows = plan.views[selection.data].weak_rows(selection)
            key = (nodes[digest].step.stage, selection.weak, labelled)
            counts.setdefault(key, {})[digest] = len(rows.own), len(rows.derived)
    entries = []
    for (stage, kind, labelled), by_digest in counts.items():
        own, derived = (round(sum(column) / len(column), 1) for column in zip(*by_digest.values(), strict=True))
        entries.append({
            "stage": stage, "rest": kind, plan.spec.compare.level: labelled, "own": own, "derived": derived,
        })  # fmt: skip
    return entries


def pseudo_labelled_images(plan: Plan) -> list[dict[str, Any]]:
    """Return the mean numbers of images with pseudo-labels over replicates, by stage and amount of labelled data.

    `networks` are the different numbers of networks that label an image.
    """
    nodes = {**plan.graph.after_search, **plan.nodes}
    students: dict[tuple[str, float | int], dict[str, PlannedStage]] = {}
    for replicate in plan.all_replicates:
        for digest in replicate.chain:
            step = nodes[digest].step
            if pseudo_labels_of(step.settings) is not None:
                students.setdefault((step.stage, replicate.labelled), {})[digest] = nodes[digest]
    entries = []
    for (stage, labelled), by_digest in students.items():
        images = [
            len(plan.views[node.selection.data].stage_rows(node.selection).unlabelled) if node.teachers else 0
            for node in by_digest.values()
        ]
        networks = sorted({len(node.teachers) for node in by_digest.values() if node.teachers})
        entries.append({
            "stage": stage, plan.spec.compare.level: labelled, "images": round(sum(images) / len(images), 1),
            "networks": networks,
        })  # fmt: skip
    return entries


def teacher_runs(plan: Plan) -> int:
    """Return the number of stages that are trained for pseudo-labels alone: the further members of ensembles."""
    nodes = {**plan.graph.after_search, **plan.nodes}
    links = {digest for replicate in plan.all_replicates for digest in replicate.chain}
    return len({teacher for node in nodes.values() for teacher in node.teachers} - links)


def pseudo_label_lines(entries: Sequence[Mapping[str, Any]], runs: int) -> list[str]:
    """Return the lines of `study plan`: one for each stage, and one for the `runs` of `teacher_runs`."""
    texts: dict[str, list[str]] = {}
    networks: dict[str, set[int]] = {}
    for entry in entries:
        images = f"{entry['images']:g} images" if entry["images"] else "none"
        texts.setdefault(entry["stage"], []).append(f"{images} at {_amount(entry)}")
        networks.setdefault(entry["stage"], set()).update(entry["networks"])
    lines = [f"{stage}: {', '.join(parts)}{_by_networks(networks[stage])}" for stage, parts in texts.items()]
    return lines + ([f"{runs:,} further run{'' if runs == 1 else 's'} as teachers"] if runs else [])


def _by_networks(numbers: Collection[int]) -> str:
    """Return how many networks label an image, as text."""
    if not numbers:
        return ""
    return f"; by {' or '.join(map(str, sorted(numbers)))} network{'' if set(numbers) == {1} else 's'}"


def _amount(entry: Mapping[str, Any]) -> str:
    """Return the amount of labelled data of an entry as text."""
    level = next(name for name in SIZES if name in entry)
    return f"{entry[level]:g} images" if level == "labelled_images" else f"{100 * entry[level]:g} %"


def weak_image_lines(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the lines of `study plan`, one for each stage and kind."""
    texts: dict[str, list[str]] = {}
    for entry in entries:
        parts = [
            f"{entry[name]:g} {text}"
            for name, text in (("own", "of the data set"), ("derived", "derived from masks"))
            if entry[name]
        ]
        texts.setdefault(f"{entry['stage']}, {entry['rest']}", []).append(
            f"{' and '.join(parts) or 'none'} at {_amount(entry)}"
        )
    return [f"{stage}: {', '.join(parts)}" for stage, parts in texts.items()]
