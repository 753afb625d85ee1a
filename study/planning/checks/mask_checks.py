"""Check that masks show their classes at the image sizes and in the training and test images of a study."""

from collections import Counter
from collections.abc import Iterable, Iterator
from functools import reduce
from operator import or_
from pathlib import Path

from datasets.checks.findings import DataFinding, listed
from datasets.checks.leakage import repeats
from datasets.checks.visible import classes_at
from datasets.settings import ImageSettings
from datasets.source import Index
from models.catalog.registry import size_text
from study.config.schema import StudySpec
from study.planning.arms import Arm
from study.planning.dataset_view import DatasetView
from study.planning.read_progress import progress_line


def size_findings(arms: Iterable[Arm], name: str, view: DatasetView, cache: Path) -> Iterator[DataFinding]:
    """Yield classes of a data set that vanish when masks are resized; an error if they vanish from every image.

    Raises `DataError` if a mask changed since it was indexed.
    """
    if not any(view.index.shown):
        return
    images = {
        step.image.model_copy(update={"prepare": type(step.image.prepare)()})
        for arm in arms
        for step in arm.chain
        if step.settings.target == "mask" and step.settings.data == name and step.image.fit != "patch"
    }
    for image in sorted(images, key=lambda image: (image.shape, image.fit)):
        kept = classes_at(view.source, view.index, image, cache, progress_line(name))
        yield from _vanished(view.index, kept, image)


def _vanished(index: Index, kept: list[frozenset[str]], image: ImageSettings) -> Iterator[DataFinding]:
    shown: Counter[str] = Counter()
    vanished_ids: dict[str, list[str]] = {}
    for row, image_id in enumerate(index.ids):
        for name in index.shows(row) if not index.fault(row) else ():
            shown[name] += 1
            if name not in kept[row]:
                vanished_ids.setdefault(name, []).append(image_id)
    for name, ids in vanished_ids.items():
        yield DataFinding(
            severity="error" if len(ids) == shown[name] else "warning",
            ids=tuple(ids),
            message=(
                f"masks of {name} vanish at {size_text(image.shape)} pixels in {len(ids)} of the {shown[name]} images "
                f"that show it ({listed(ids)}); allowed: structures of a pixel and more; raise image.size"
            ),
        )


def presence_warnings(spec: StudySpec, view: DatasetView) -> Iterator[str]:
    """Yield classes that appear in no training or no test image of some replicates."""
    index, compare = view.index, spec.compare
    used = [name for name in index.classes if name not in index.unused_classes]
    if not any(index.shown):
        return
    shown = [int(bits or "0", 16) for bits in index.shown]
    distinct_seeds = {view.split_seed(seed): seed for seed in compare.seeds}.values()
    for labelled in compare.labelled:
        splits = [
            view.split(fold=fold, seed=seed, labelled=labelled)
            for seed in distinct_seeds
            for fold in range(compare.folds)
        ]
        amount = f" at {compare.level} {labelled:g}"
        training = [split.labelled for split in splits]
        yield from _absent(index, shown, used, training, f"training images{amount}", "cannot learn it")
    # Test images are the same at every amount of labels.
    consequence = "means over classes leave it out there"
    yield from _absent(index, shown, used, [split.test for split in splits], "test images", consequence)


def _absent(
    index: Index,
    shown: list[int],
    names: list[str],
    row_sets: list[tuple[int, ...]],
    images_name: str,
    consequence: str,
) -> Iterator[str]:
    """Yield the classes that are absent from some of the row sets; bits of `shown` are classes, as in `Index.shown`."""
    present = [reduce(or_, (shown[row] for row in rows), 0) for rows in row_sets]
    for name in names:
        bit = 1 << index.classes.index(name)
        absent = sum(not bits & bit for bits in present)
        if absent:
            images = sum(bool(bits & bit) for bits in shown)
            annotated = f", {sum(bool(int(bits or '0', 16) & bit) for bits in index.annotated)} annotate it"
            yield (
                f"{absent} of {len(row_sets)} replicates have no {images_name} that show {name}, and {consequence} "
                f"({images} of {len(index)} images show it{annotated if index.annotated else ''})"
            )


def repeat_messages(view: DatasetView, name: str) -> Iterator[str]:
    """Yield target images that occur for two patients: one copy could be trained on and the other tested on."""
    index = view.index
    repeated = repeats(index, [row for row, annotated in enumerate(index.annotation_digests["masks"]) if annotated])
    if repeated:
        pairs = [f"{index.ids[first]} and {index.ids[second]}" for first, second in repeated]
        images = "1 image repeats an image" if len(pairs) == 1 else f"{len(pairs)} images repeat images"
        yield (
            f"{images} of another patient in {name} ({listed(pairs)}); allowed: one patient per image; assign both "
            "to one patient or remove one, or set leaks: report"
        )
