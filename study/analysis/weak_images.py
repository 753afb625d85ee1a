"""Numbers of images with weak labels, from the data set or derived from masks that are hidden."""

from collections.abc import Mapping, Sequence
from typing import Any

from results.schema import SIZES
from study.planning.graph import Plan


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


def weak_image_lines(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the lines of `study plan`, one for each stage and kind."""
    texts: dict[str, list[str]] = {}
    for entry in entries:
        level = next(name for name in SIZES if name in entry)
        amount = f"{entry[level]:g} images" if level == "labelled_images" else f"{100 * entry[level]:g} %"
        parts = [
            f"{entry[name]:g} {text}"
            for name, text in (("own", "of the data set"), ("derived", "derived from masks"))
            if entry[name]
        ]
        texts.setdefault(f"{entry['stage']}, {entry['rest']}", []).append(
            f"{' and '.join(parts) or 'none'} at {amount}"
        )
    return [f"{stage}: {', '.join(parts)}" for stage, parts in texts.items()]
