"""Section of the report on data, splits and leaks."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from datasets.checks.classes import class_images
from datasets.checks.volumes import distance_unit, volumes_text
from datasets.source import AnnotationKind
from results.report.page import Block, Collapsible, Grid, GridCell, Items, Text, number_columns, text_columns
from study.analysis.weak_images import pseudo_label_lines, pseudo_labelled_images, teacher_runs, weak_images
from study.monitoring.units import count, percent, spread
from study.planning.dataset_view import DatasetView
from study.planning.graph import Plan
from study.report.facts import Facts

WEAK: tuple[AnnotationKind, ...] = ("scribbles", "points")
"""Kinds of annotation with a column if a data set has them."""
SHARED = {"patient": "a patient", "file": "a file", "picture": "an identical image"}
"""What images of a leak share with the target, by its kind."""


def data_blocks(facts: Facts) -> Iterator[Block]:
    """Yield the data sets, the sizes of the splits, leaks and exclusions."""
    if facts.plan is None:
        yield Text(text=f"Counts of images and patients are not available: {facts.no_plan_reason}.")
        yield _images_by_stage(facts)
        return
    plan = facts.plan
    yield _data_grid(plan)
    yield from _class_grids(plan)
    yield _split_grid(plan)
    yield from _weak_label_grid(plan)
    yield Items(items=[*_volumes(plan), *_pseudo_labels(plan), *_leaks(plan)])
    if plan.warnings:
        yield Collapsible(title=f"Warnings about the data ({len(plan.warnings)})", blocks=[Items(items=plan.warnings)])


def _data_grid(plan: Plan) -> Grid:
    kinds: tuple[AnnotationKind, ...] = ("masks", "boxes", "centres", "labels")
    kinds += tuple(kind for kind in WEAK if any(any(_hashes(view, kind)) for view in plan.views.values()))
    rows = []
    for name, view in plan.views.items():
        index = view.index
        sound = [row for row in range(len(index)) if not index.fault(row)]
        rows.append([
            GridCell(name),
            GridCell("target" if name == plan.target else "pretraining"),
            GridCell(view.spec.data.source),
            count(len(index)),
            count(len({index.patients[row] for row in sound})),
            *(count(sum(map(bool, _hashes(view, kind)))) for kind in kinds),
            count(len(index) - len(sound)),
            count(len(view.spec.excluded)),
        ])  # fmt: skip
    columns = [
        *text_columns("data", "used as", "source"),
        *number_columns("images", "patients", *(f"with {kind}" for kind in kinds), "unusable", "excluded"),
    ]
    caption = "Data sets. Unusable images have a fault; excluded images show a case of the target."
    return Grid(caption=caption, columns=columns, rows=rows)


def _hashes(view: DatasetView, kind: AnnotationKind) -> Sequence[str]:
    return view.index.annotation_digests.get(kind, ())


def _class_grids(plan: Plan) -> Iterator[Grid]:
    """Yield the numbers of images by class of each data set whose images are annotated for different classes."""
    for name, view in plan.views.items():
        rows = [[GridCell(part.name), count(part.annotated), count(part.present)] for part in class_images(view.index)]
        if rows:
            caption = f"Images of {name} in which each class is annotated, and in which it is present."
            yield Grid(
                caption=caption, columns=[*text_columns("class"), *number_columns("annotated", "present")], rows=rows
            )


def _volumes(plan: Plan) -> Iterator[str]:
    """Yield the volumes of each data set, and the unit of distances."""
    for name, view in plan.views.items():
        text = volumes_text(view.index)
        if text:
            yield f"{name}: {text}. Images are slices; per-case metrics are those of whole volumes."
    if plan.spec.metrics.shape is not None:
        tolerance, unit = plan.spec.metrics.tolerance, distance_unit(plan.views[plan.target].index)
        yield f"Distances between contours or surfaces, and the tolerance of {tolerance:g}, are in {unit}."


def _split_grid(plan: Plan) -> Grid:
    view, rows = plan.views[plan.target], []
    for labelled in plan.spec.compare.labelled:
        splits = plan.splits(labelled)
        amount = f"{labelled} images" if isinstance(labelled, int) else percent(labelled)
        rows.append([
            GridCell(amount, float(labelled)),
            spread([split.labelled_images for split in splits]),
            spread([len(split.validation) for split in splits]),
            spread([_patients(view, (*split.labelled, *split.validation)) for split in splits]),
            spread([len(split.unlabelled) for split in splits]),
            spread([len(split.test) for split in splits]),
            spread([_patients(view, split.test) for split in splits]),
        ])  # fmt: skip
    fixed = "All runs share one fixed test set" if plan.test_is_fixed else "Each fold has its own test images"
    caption = f"Images of {plan.target} in each run, lowest to highest over folds and seeds. {fixed}."
    names = ("labelled", "of these for validation", "labelled patients", "unlabelled", "test images", "test patients")
    return Grid(caption=caption, columns=[*text_columns("setting"), *number_columns(*names)], rows=rows)


def _patients(view: DatasetView, rows: Sequence[int]) -> int:
    return len({view.index.patients[row] for row in rows})


def _weak_label_grid(plan: Plan) -> Iterator[Grid]:
    """Yield the numbers of images with weak labels, which may be derived from masks, if there are any."""
    level = plan.spec.compare.level
    rows = [
        [
            *(GridCell(str(entry[name])) for name in ("stage", "rest", level)),
            *(GridCell(f"{entry[name]:g}", entry[name]) for name in ("own", "derived")),
        ]
        for entry in weak_images(plan)
    ]
    if rows:
        caption = (
            "Images with weak labels: annotation of the data set or derived from masks; means over folds and seeds."
        )
        columns = [
            *text_columns("stage", "rest", level.replace("_", " ")),
            *number_columns("of the data set", "derived"),
        ]
        yield Grid(caption=caption, columns=columns, rows=rows)


def _pseudo_labels(plan: Plan) -> Iterator[str]:
    """Yield the numbers of images with pseudo-labels, of the networks that predict them, and of their further runs."""
    for line in pseudo_label_lines(pseudo_labelled_images(plan), runs=0):
        yield f"Images with pseudo-labels, mean over folds and seeds: {line}."
    runs = teacher_runs(plan)
    if runs:
        yield f"Stages that are trained to predict pseudo-labels alone: {runs:,}."


def _leaks(plan: Plan) -> Iterator[str]:
    handling = {"exclude": "they were excluded from pretraining", "report": "they were not excluded"}
    for leak in plan.leaks:
        yield (
            f"Leak: {len(leak.images)} images of {leak.data} share {SHARED[leak.kind]} with {leak.target}; "
            f"{handling.get(plan.spec.leaks, 'the study was refused')}."
        )
    if not plan.leaks:
        yield "No pretraining image shares a patient, a file or an identical image with the target's cases."
    for name, view in plan.views.items():
        faults = Counter(fault for fault in view.index.faults if fault)
        for fault, number in faults.most_common(3):
            yield f"{name}: {number} unusable, such as: {fault}"


def _images_by_stage(facts: Facts) -> Grid:
    data_by_stage: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for stage in facts.finished:
        record = facts.record(stage.digest)
        if record:
            data_by_stage.setdefault((stage.name, stage.data), []).append(record["data"])
    rows = [
        [
            GridCell(name),
            GridCell(data),
            *(spread([record[part] for record in records]) for part in ("train", "validation")),
        ]
        for (name, data), records in data_by_stage.items()
    ]
    columns = [*text_columns("stage", "data"), *number_columns("training images", "validation images")]
    return Grid(caption="Images that finished stages read, lowest to highest.", columns=columns, rows=rows)
