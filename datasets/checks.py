"""Is a data set fit for training? What is wrong with it, before anything trains."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from datasets.decode import SUFFIXES
from datasets.sample import Index, Source


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something wrong (error: these images cannot be used as they are) or odd (warning), with the images' ids."""

    severity: Literal["error", "warning"]
    ids: tuple[str, ...]
    message: str


def check(index: Index, source: Source | None = None) -> list[Finding]:
    """Return everything wrong or odd, errors first. Masks that never change are found with their `source` only."""
    found = [*_no_image(index), *_faults(index), *_repeats(index), *_alike(index), *_remarks(index)]
    found += [*_unused_classes(index), *(_same_masks(index, source) if source is not None else ())]
    return sorted(found, key=lambda finding: finding.severity != "error")


def _no_image(index: Index) -> Iterator[Finding]:
    if not len(index):
        yield Finding(
            severity="error",
            ids=(),
            message=(
                f"there is no image (0); allowed: at least one, {' '.join(sorted(SUFFIXES))}; check `root`, the names "
                "of its folders, and what the files are"
            ),
        )


def _faults(index: Index) -> Iterator[Finding]:
    for image, fault in zip(index.ids, index.faults, strict=True):
        if fault:
            yield Finding(severity="error", ids=(image,), message=fault)


def _repeats(index: Index) -> Iterator[Finding]:
    same: dict[str, list[str]] = defaultdict(list)
    for image, content in zip(index.ids, index.content, strict=True):
        if content:
            same[content].append(image)
    for ids in same.values():
        if len(ids) * 2 > len(index) > 2:
            yield Finding(
                severity="error",
                ids=tuple(ids),
                message=(
                    f"{len(ids)} of {len(index)} images are the same file ({ids[0]}, {ids[1]}, ...); allowed: "
                    "different images; the loader or download repeats one image: get the data again"
                ),
            )
        elif len(ids) > 1:
            yield Finding(
                severity="warning",
                ids=tuple(ids),
                message=f"{', '.join(ids)} are the same file; allowed: each image once; keep one of them",
            )


def _alike(index: Index) -> Iterator[Finding]:
    """One picture in files that differ; where it is the same file, `_repeats` tells."""
    ids = _most_frequent(index, index.thumbnails)
    if ids and not _most_frequent(index, index.content):
        yield Finding(
            severity="error",
            ids=ids,
            message=(
                f"{len(ids)} of {len(index)} images look the same ({ids[0]}, {ids[1]}, ...); allowed: different "
                "images; the loader or download repeats one image: get the data again"
            ),
        )


def _same_masks(index: Index, source: Source) -> Iterator[Finding]:
    """Masks that are equal and not empty; which ones are empty only reading one of them tells."""
    ids = _most_frequent(index, index.offers["masks"])
    if ids and source.masks(index.ids.index(ids[0])).any():
        yield Finding(
            severity="error",
            ids=ids,
            message=(
                f"{len(ids)} of {sum(map(bool, index.offers['masks']))} masks are equal ({ids[0]}, {ids[1]}, ...); "
                "allowed: masks that follow their images; the export repeats one mask: get the masks again"
            ),
        )


def _most_frequent(index: Index, values: Sequence[str]) -> tuple[str, ...]:
    """Return the ids that share one value, where more than half of those with a value do; none of one or two."""
    rows = [row for row, value in enumerate(values) if value and not index.faults[row]]
    value, times = next(iter(Counter(values[row] for row in rows).most_common(1)), ("", 0))
    return tuple(index.ids[row] for row in rows if values[row] == value) if times * 2 > len(rows) > 2 else ()


def _remarks(index: Index) -> Iterator[Finding]:
    for image, remark in zip(index.ids, index.remarks or ("",) * len(index), strict=True):
        if remark:
            yield Finding(severity="warning", ids=(image,), message=remark)


def _unused_classes(index: Index) -> Iterator[Finding]:
    if index.unused_classes:
        yield Finding(
            severity="warning",
            ids=(),
            message=(
                f"no mask shows the classes {list(index.unused_classes)}; allowed: classes that occur; leave them "
                "out with `classes`"
            ),
        )
