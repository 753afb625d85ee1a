"""Section of the report on data, splits and leaks."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from datasets.source import AnnotationKind
from results.report.page import Block, Collapsible, Column, Entry, Grid, Items, Text
from study.monitoring.units import count, percent, spread
from study.planning.dataset_view import DatasetView
from study.planning.graph import Plan
from study.report.facts import Facts


def data_blocks(facts: Facts) -> Iterator[Block]:
    """Yield the data sets, the sizes of the splits, leaks and exclusions."""
    if facts.plan is None:
        yield Text(text=f"Counts of images and patients are not available: {facts.no_plan_reason}.")
        yield _images_by_stage(facts)
        return
    plan = facts.plan
    yield _data_grid(plan)
    yield _split_grid(plan)
    yield Items(items=list(_leaks(plan)))
    if plan.warnings:
        yield Collapsible(title=f"Warnings about the data ({len(plan.warnings)})", blocks=[Items(items=plan.warnings)])


def _data_grid(plan: Plan) -> Grid:
    offers: tuple[AnnotationKind, ...] = ("masks", "boxes", "centres", "labels")
    rows = []
    for name, view in plan.views.items():
        index = view.index
        sound = [row for row in range(len(index)) if not index.fault(row)]
        rows.append([
            Entry(name),
            Entry("target" if name == plan.target else "pretraining"),
            Entry(view.spec.data.source),
            count(len(index)),
            count(len({index.patients[row] for row in sound})),
            *(count(sum(bool(value) for value in index.offers.get(offer, ()))) for offer in offers),
            count(len(index) - len(sound)),
            count(len(view.spec.excluded)),
        ])  # fmt: skip
    names = ("images", "patients", *(f"with {offer}" for offer in offers), "unusable", "left out")
    columns = [Column(name="data"), Column(name="used as"), Column(name="source")]
    caption = "Data sets. Unusable images have a fault; images are left out where they show a case of the target."
    return Grid(caption=caption, columns=[*columns, *(Column(name=name, number=True) for name in names)], rows=rows)


def _split_grid(plan: Plan) -> Grid:
    view, rows = plan.views[plan.target], []
    for labelled in plan.spec.compare.labelled:
        splits = plan.splits(labelled)
        amount = f"{labelled} images" if isinstance(labelled, int) else percent(labelled)
        rows.append([
            Entry(amount, float(labelled)),
            spread([split.labelled_images for split in splits]),
            spread([len(split.validation) for split in splits]),
            spread([_patients(view, (*split.labelled, *split.validation)) for split in splits]),
            spread([len(split.unlabelled) for split in splits]),
            spread([len(split.test) for split in splits]),
            spread([_patients(view, split.test) for split in splits]),
        ])  # fmt: skip
    fixed = "All runs share one fixed test set" if plan.test_is_fixed else "Each fold has its own test images"
    caption = f"Images of {plan.target} in each run, lowest to highest over folds and seeds. {fixed}."
    names = ("labelled", "of these validating", "labelled patients", "masks not used", "test images", "test patients")
    columns = [Column(name="asked for"), *(Column(name=name, number=True) for name in names)]
    return Grid(caption=caption, columns=columns, rows=rows)


def _patients(view: DatasetView, rows: Sequence[int]) -> int:
    return len({view.index.patients[row] for row in rows})


def _leaks(plan: Plan) -> Iterator[str]:
    handling = {"exclude": "they were left out of pretraining", "report": "they were not left out"}
    for leak in plan.leaks:
        yield (
            f"Leak: {len(leak.images)} images of {leak.data} share a {leak.kind} with {leak.target}; "
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
        [Entry(name), Entry(data), *(spread([record[part] for record in records]) for part in ("train", "validation"))]
        for (name, data), records in data_by_stage.items()
    ]
    columns = [Column(name="stage"), Column(name="data"), Column(name="training images", number=True)]
    columns.append(Column(name="validation images", number=True))
    return Grid(caption="Images that finished stages read, lowest to highest.", columns=columns, rows=rows)
