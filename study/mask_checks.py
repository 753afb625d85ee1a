"""Whether masks show their classes where a study needs them: at its sizes, in its training and its test images."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from datasets.checks import Finding, listed
from datasets.leakage import repeats
from datasets.sample import Index
from datasets.settings import ImageSettings
from datasets.visible import classes_at
from study.arms import Arm
from study.cohort import Cohort
from study.reading import telling
from study.spec import StudySpec


def size_findings(arms: Iterable[Arm], cohorts: Mapping[str, Cohort], cache: Path) -> Iterator[tuple[str, Finding]]:
    """Yield by data set which classes vanish when masks are fitted: an error where no image keeps one."""
    steps = {
        (step.settings.data, step.image.model_copy(update={"prepare": type(step.image.prepare)()}))
        for arm in arms
        for step in arm.chain
        if step.settings.target == "mask" and step.settings.data in cohorts
    }
    for name, image in sorted(steps, key=lambda step: (step[0], step[1].size, step[1].fit)):
        cohort = cohorts[name]
        if any(cohort.index.shown):
            kept = classes_at(cohort.source, cohort.index, image, cache, telling(name))
            yield from ((name, finding) for finding in _vanished(cohort.index, kept, image))


def _vanished(index: Index, kept: list[frozenset[str]], image: ImageSettings) -> Iterator[Finding]:
    shown: Counter[str] = Counter()
    lost: dict[str, list[str]] = {}
    for row, image_id in enumerate(index.ids):
        for name in index.shows(row) if not index.fault(row) else ():
            shown[name] += 1
            if name not in kept[row]:
                lost.setdefault(name, []).append(image_id)
    for name, ids in lost.items():
        yield Finding(
            severity="error" if len(ids) == shown[name] else "warning",
            ids=tuple(ids),
            message=(
                f"masks of {name} vanish at {image.size} pixels in {len(ids)} of the {shown[name]} images that show it "
                f"({listed(ids)}); allowed: structures of a pixel and more; raise image.size"
            ),
        )


def presence_warnings(spec: StudySpec, cohort: Cohort) -> Iterator[str]:
    """Yield classes that no training or no test image of some replicates shows."""
    index, compare = cohort.index, spec.compare
    used = [name for name in index.classes if name not in index.unused_classes]
    if not any(index.shown):
        return
    drawn = {cohort.split_seed(seed): seed for seed in compare.seeds}.values()
    for labelled in compare.labelled:
        splits = [
            cohort.split(fold=fold, seed=seed, labelled=labelled) for seed in drawn for fold in range(compare.folds)
        ]
        at = f" at {compare.level} {labelled:g}"
        yield from _absent(index, used, [split.labelled for split in splits], f"training images{at}", "cannot learn it")
    # Test images are the same at every amount of labels.
    means = "means over classes leave it out there"
    yield from _absent(index, used, [split.test for split in splits], "test images", means)


def _absent(index: Index, names: list[str], parts: list[tuple[int, ...]], what: str, consequence: str) -> Iterator[str]:
    lacking: Counter[str] = Counter()
    for rows in parts:
        there = frozenset[str]().union(*(index.shows(row) for row in rows))
        lacking.update(name for name in names if name not in there)
    for name, times in lacking.items():
        images = sum(name in index.shows(row) for row in range(len(index)))
        yield (
            f"{times} of {len(parts)} replicates have no {what} that show {name}, and {consequence} ({images} of "
            f"{len(index)} images show it)"
        )


def repeat_messages(cohort: Cohort, name: str) -> Iterator[str]:
    """Yield the target's pictures that two patients have: one could train and the other test."""
    index = cohort.index
    found = repeats(index, [row for row, held in enumerate(index.offers["masks"]) if held])
    if found:
        pairs = [f"{index.ids[first]} and {index.ids[second]}" for first, second in found]
        yield (
            f"{len(pairs)} pairs of images of different patients are the same picture in {name} ({listed(pairs)}); "
            "allowed: one patient a picture; give both one patient or remove one, or set leaks: report"
        )
