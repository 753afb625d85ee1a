"""Pretraining cases that are also the target's: found over whole pathways, refused or left out."""

from dataclasses import dataclass, replace

from datasets.checks.leakage import matches
from study.config.schema import StudySpec
from study.errors import Problem
from study.planning.dataset_view import DatasetView


@dataclass(frozen=True, kw_only=True)
class Leak:
    """Images of a pretraining set that show a target's patient or picture."""

    data: str
    target: str
    kind: str
    """"patient", "file" or "picture"."""
    images: tuple[str, ...]


def find_leaks(spec: StudySpec, views: dict[str, DatasetView], target: str) -> list[Leak]:
    """Compare every other data set with the target's cases; with `leaks: exclude` leave out what matches."""
    leaks = []
    for name, view in views.items():
        if name == target:
            continue
        found = matches(view.index, views[target].index)
        for kind in sorted({match.kind for match in found}):
            rows = sorted({match.row for match in found if match.kind == kind})
            images = tuple(view.index.ids[row] for row in rows)
            leaks.append(Leak(data=name, target=target, kind=kind, images=images))
        if found and spec.leaks == "exclude":
            spec_without = replace(view.spec, excluded=frozenset(match.row for match in found))
            views[name] = DatasetView(spec=spec_without, source=view.source, index=view.index)
    return leaks


def leak_problems(spec: StudySpec, leaks: list[Leak]) -> list[Problem]:
    """Return the refusals of `leaks: refuse`."""
    if spec.leaks != "refuse":
        return []
    return [Problem(path=f"data.{leak.data}", message=leak_message(leak)) for leak in leaks]


def leak_message(leak: Leak) -> str:
    """Return the line that tells a leak and its remedies."""
    shown = ", ".join(leak.images[:5]) + (", ..." if len(leak.images) > 5 else "")
    share = "image shares" if len(leak.images) == 1 else "images share"
    return (
        f"{len(leak.images)} {share} a {leak.kind} with target {leak.target} ({shown}); allowed: none; "
        "leaks: exclude leaves them out, leaks: report only tells"
    )
