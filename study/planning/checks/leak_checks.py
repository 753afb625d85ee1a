"""Detect pretraining cases that also occur in the target; reject or exclude them."""

from collections.abc import Set
from dataclasses import dataclass, replace

from datasets.checks.leakage import matches
from datasets.source import Index
from study.config.schema import StudySpec
from study.errors import Problem
from study.planning.dataset_view import DatasetView


@dataclass(frozen=True, kw_only=True)
class Leak:
    """Images of a pretraining set that share a patient, a file or their pixels with the target."""

    data: str
    target: str
    kind: str
    """`patient`, `file` or `picture` (equal pixels)."""
    images: tuple[str, ...]


def find_leaks(spec: StudySpec, views: dict[str, DatasetView], target: str) -> list[Leak]:
    """Compare every other data set with the target; with `leaks: exclude` exclude the matching rows."""
    leaks = []
    for name, view in views.items():
        if name == target:
            continue
        matching = matches(view.index, views[target].index)
        for kind in sorted({match.kind for match in matching}):
            rows = _whole_volumes(view.index, {match.row for match in matching if match.kind == kind})
            images = tuple(view.index.ids[row] for row in sorted(rows))
            leaks.append(Leak(data=name, target=target, kind=kind, images=images))
        if matching and spec.leaks == "exclude":
            excluded = _whole_volumes(view.index, {match.row for match in matching})
            spec_without = replace(view.spec, excluded=excluded)
            views[name] = DatasetView(spec=spec_without, source=view.source, index=view.index)
    return leaks


def _whole_volumes(index: Index, rows: Set[int]) -> frozenset[int]:
    """Return the rows and all further slices of their volumes, of which only one is compared by its look."""
    volumes = {index.volume(row) for row in rows} - {""}
    return frozenset(rows) | {row for row, volume in enumerate(index.volumes) if volume in volumes}


def leak_problems(spec: StudySpec, leaks: list[Leak]) -> list[Problem]:
    """Return a problem for each leak with `leaks: refuse`."""
    if spec.leaks != "refuse":
        return []
    return [Problem(path=f"data.{leak.data}", message=leak_message(leak)) for leak in leaks]


def leak_message(leak: Leak) -> str:
    """Return the message about a leak, with its remedies."""
    shown = ", ".join(leak.images[:5]) + (", ..." if len(leak.images) > 5 else "")
    share = "image shares" if len(leak.images) == 1 else "images share"
    return (
        f"{len(leak.images)} {share} a {leak.kind} with target {leak.target} ({shown}); allowed: none; "
        "leaks: exclude leaves them out, leaks: report only reports them"
    )
