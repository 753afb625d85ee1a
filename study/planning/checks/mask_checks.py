"""Whether masks show their classes where a study needs them: at its sizes, in its training and its test images."""

from collections import Counter
from collections.abc import Iterable, Iterator
from functools import reduce
from operator import or_
from pathlib import Path

from datasets.checks.findings import Finding, listed
from datasets.checks.leakage import repeats
from datasets.checks.visible import classes_at
from datasets.settings import ImageSettings
from datasets.source import Index
from study.config.schema import StudySpec
from study.planning.arms import Arm
from study.planning.dataset_view import DatasetView
from study.planning.read_progress import telling


def size_findings(arms: Iterable[Arm], name: str, view: DatasetView, cache: Path) -> Iterator[Finding]:
    """Yield which classes of a data set vanish when masks are fitted: an error where no image keeps one.

    Raises `DataError` where a mask changed since it was indexed.
    """
    if not any(view.index.shown):
        return
    images = {
        step.image.model_copy(update={"prepare": type(step.image.prepare)()})
        for arm in arms
        for step in arm.chain
        if step.settings.target == "mask" and step.settings.data == name
    }
    for image in sorted(images, key=lambda image: (image.size, image.fit)):
        kept = classes_at(view.source, view.index, image, cache, telling(name))
        yield from _vanished(view.index, kept, image)


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


def presence_warnings(spec: StudySpec, view: DatasetView) -> Iterator[str]:
    """Yield classes that no training or no test image of some replicates shows."""
    index, compare = view.index, spec.compare
    used = [name for name in index.classes if name not in index.unused_classes]
    if not any(index.shown):
        return
    shown = [int(bits or "0", 16) for bits in index.shown]
    drawn = {view.split_seed(seed): seed for seed in compare.seeds}.values()
    for labelled in compare.labelled:
        splits = [
            view.split(fold=fold, seed=seed, labelled=labelled) for seed in drawn for fold in range(compare.folds)
        ]
        at = f" at {compare.level} {labelled:g}"
        training = [split.labelled for split in splits]
        yield from _absent(index, shown, used, training, f"training images{at}", "cannot learn it")
    # Test images are the same at every amount of labels.
    means = "means over classes leave it out there"
    yield from _absent(index, shown, used, [split.test for split in splits], "test images", means)


def _absent(
    index: Index, shown: list[int], names: list[str], parts: list[tuple[int, ...]], what: str, consequence: str
) -> Iterator[str]:
    """Yield the classes that no row of some parts shows; bits of `shown` are classes, as in `Index.shown`."""
    present = [reduce(or_, (shown[row] for row in rows), 0) for rows in parts]
    for name in names:
        bit = 1 << index.classes.index(name)
        lacking = sum(not bits & bit for bits in present)
        if lacking:
            images = sum(bool(bits & bit) for bits in shown)
            yield (
                f"{lacking} of {len(parts)} replicates have no {what} that show {name}, and {consequence} ({images} of "
                f"{len(index)} images show it)"
            )


def repeat_messages(view: DatasetView, name: str) -> Iterator[str]:
    """Yield the target's pictures that two patients have: one could train and the other test."""
    index = view.index
    found = repeats(index, [row for row, held in enumerate(index.offers["masks"]) if held])
    if found:
        pairs = [f"{index.ids[first]} and {index.ids[second]}" for first, second in found]
        images = "1 image repeats an image" if len(pairs) == 1 else f"{len(pairs)} images repeat images"
        yield (
            f"{images} of another patient in {name} ({listed(pairs)}); allowed: one patient per picture; assign both "
            "to one patient or remove one, or set leaks: report"
        )
