"""Hours of annotation: what annotators have to draw for the stages of each arm.

An image counts once for each kind of annotation that any stage of a chain reads in training or validation, as weak
labels too, whether they are annotation of the data set or derived from masks. Images that are read without annotation,
and test images, cost nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from datasets.settings import AnnotationName
from datasets.targets import annotation_name_of
from results.schema import SIZES
from study.planning.arms import annotation_read
from study.planning.dataset_view import RowSelection
from study.planning.graph import Plan, PlannedStage, Replicate

MAX_NAMED = 4
"""Above this number, arms of equal cost are counted instead of named."""
CellHours = Mapping[tuple[int, float | int], float]
"""Hours by the number of an arm and the amount of labelled data."""


class Annotated(NamedTuple):
    """Images whose annotation of one kind a stage reads, named by what selects them: see `_rows`."""

    data: str
    name: AnnotationName
    selection: RowSelection


def annotation_hours(plan: Plan) -> CellHours:
    """Return the hours of annotation of each cell, the mean over its replicates; empty if no data set states minutes.

    Data sets without `annotation_minutes` are annotated already and cost nothing.
    """
    if not plan.spec.has_annotation_cost:
        return {}
    counter = _Counter(plan)
    hours: dict[tuple[int, float | int], list[float]] = {}
    for replicate in plan.all_replicates:
        hours.setdefault((replicate.arm, replicate.labelled), []).append(counter.hours(replicate))
    return {cell: sum(values) / len(values) for cell, values in hours.items()}


def annotated_already(plan: Plan) -> list[str]:
    """Return the data sets whose annotation is read but has no stated cost."""
    return [name for name in annotation_read(plan.arms) if plan.spec.data[name].annotation_minutes is None]


class _Counter:
    """Counts the annotated images of replicates. Selections of rows, which many replicates share, are counted once."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._nodes = {**plan.graph.after_search, **plan.nodes}
        self._images: dict[frozenset[Annotated], int] = {}

    def hours(self, replicate: Replicate) -> float:
        """Return the hours of annotation that the chain of a replicate reads."""
        read: dict[tuple[str, AnnotationName], set[Annotated]] = {}
        for digest in replicate.chain:
            for annotated in annotated_by(self._nodes[digest]):
                read.setdefault((annotated.data, annotated.name), set()).add(annotated)
        minutes = 0.0
        for (data, name), parts in read.items():
            stated = self._plan.spec.data[data].annotation_minutes
            if stated is not None:
                minutes += (stated.of(name) or 0.0) * self._count(frozenset(parts))
        return minutes / 60

    def _count(self, parts: frozenset[Annotated]) -> int:
        """Return the number of different images of several parts of a data set."""
        if parts not in self._images:
            self._images[parts] = len(set().union(*(_rows(self._plan, part) for part in parts)))
        return self._images[parts]


def annotated_by(node: PlannedStage) -> Iterator[Annotated]:
    """Yield the annotation that a stage reads. Annotation of further images is added here, and its rows in `_rows`."""
    selection = node.selection
    if selection.annotation_kind is not None:
        yield Annotated(selection.data, annotation_name_of(selection.annotation_kind), selection)
    if selection.weak is not None:
        yield Annotated(selection.data, selection.weak, selection)


def _rows(plan: Plan, annotated: Annotated) -> tuple[int, ...]:
    """Return the rows of the images: those that the stage trains and validates on, or those with weak labels."""
    rows = plan.views[annotated.data].stage_rows(annotated.selection)
    if annotated.name == annotated.selection.weak:
        return rows.unlabelled
    return (*rows.train, *rows.validation)


def hours_by_cell(plan: Plan) -> list[dict[str, Any]]:
    """Return the factors, labelled data and `hours` of each cell, for `plan.json` and `hours_lines`."""
    level = plan.spec.compare.level
    return [
        {**plan.arms[arm].factors, level: labelled, "hours": round(value, 4)}
        for (arm, labelled), value in annotation_hours(plan).items()
    ]


def hours_lines(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the lines of `study plan`: the hours of each arm at each amount of labelled data, equal arms together."""
    factors = [name for name in (cells[0] if cells else ()) if name not in (*SIZES, "hours")]
    varying = [name for name in factors if len({cell[name] for cell in cells}) > 1] or ["pathway"]
    by_arm: dict[str, list[str]] = {}
    for cell in cells:
        amount = cell.get("labelled_images") or f"{100 * cell['labelled_fraction']:g} %"
        arm = " / ".join(str(cell[name]) for name in varying)
        by_arm.setdefault(arm, []).append(f"{cell['hours']:.3g} h at {amount}")
    arms_by_text: dict[str, list[str]] = {}
    for arm, texts in by_arm.items():
        arms_by_text.setdefault(", ".join(texts), []).append(arm)
    return [
        f"{', '.join(arms) if len(arms) <= MAX_NAMED else f'{len(arms)} arms'}: {text}"
        for text, arms in arms_by_text.items()
    ]


def arms_at_budgets(cells: Sequence[Mapping[str, Any]], budgets: Sequence[float]) -> list[dict[str, Any]]:
    """Return for each budget of hours how many `arms`, of how many (`of`), have it within their measured range."""
    by_arm: dict[tuple[object, ...], list[float]] = {}
    for cell in cells:
        arm = tuple(value for name, value in cell.items() if name not in (*SIZES, "hours"))
        by_arm.setdefault(arm, []).append(cell["hours"])
    ranges = [(min(hours), max(hours)) for hours in by_arm.values()]
    return [
        {"hours": budget, "arms": sum(low <= budget <= high for low, high in ranges), "of": len(ranges)}
        for budget in budgets
    ]
