"""Is a data set fit for training? What is wrong with it, before anything trains."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from datasets.decoding.decode import SUFFIXES
from datasets.source import Index, Offer

LISTED, MOST_FAULTS = 5, 10
"""Names in a message, and faults with a message of their own."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something wrong (error: these images cannot be used as they are) or odd (warning), with the images' ids."""

    severity: Literal["error", "warning"]
    ids: tuple[str, ...]
    message: str


def check(index: Index, offers: Collection[Offer] | None = None) -> list[Finding]:
    """Return everything wrong or odd, errors first; of annotation only the kinds in `offers`, if given."""
    found = [*_no_image(index), *_faults(index, offers), *_repeats(index), *_alike(index), *_remarks(index)]
    found += [*_unused_classes(index), *_unread(index)]
    if offers is None or "masks" in offers:
        found += _same_masks(index)
    return sorted(found, key=lambda finding: finding.severity != "error")


def listed(names: Sequence[str], most: int = LISTED) -> str:
    """Return the first names, and how many more there are."""
    more = [f"{len(names) - most} more"] if len(names) > most else []
    return ", ".join([*names[:most], *more])


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


def _faults(index: Index, offers: Collection[Offer] | None) -> Iterator[Finding]:
    kinds = [index.faults, *(faults for kind, faults in index.offer_faults.items() if offers is None or kind in offers)]
    found = [(image, fault) for faults in kinds for image, fault in zip(index.ids, faults, strict=True) if fault]
    more = list(dict.fromkeys(image for image, _ in found[MOST_FAULTS:]))
    for number, (image, fault) in enumerate(found[:MOST_FAULTS], start=1):
        last = more and number == MOST_FAULTS
        ids = (image, *more) if last else (image,)
        message = f"{fault} ({len(more)} more images have faults: {listed(more)})" if last else fault
        yield Finding(severity="error", ids=ids, message=message)


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
                message=f"{listed(ids)} are the same file; allowed: each image once; keep one of them",
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


def _same_masks(index: Index) -> Iterator[Finding]:
    """Masks that are equal and not empty."""
    ids = _most_frequent(index, index.offers["masks"])
    if ids and index.shows(index.ids.index(ids[0])):
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
    rows = [row for row, value in enumerate(values) if value and not index.fault(row)]
    value, times = next(iter(Counter(values[row] for row in rows).most_common(1)), ("", 0))
    return tuple(index.ids[row] for row in rows if values[row] == value) if times * 2 > len(rows) > 2 else ()


def _remarks(index: Index) -> Iterator[Finding]:
    by_text: dict[str, list[str]] = defaultdict(list)
    for image, remarks in zip(index.ids, index.remarks or ("",) * len(index), strict=True):
        for text in filter(None, remarks.split("\n")):
            by_text[text].append(image)
    for text, ids in by_text.items():
        who = ids[0] if len(ids) == 1 else f"{len(ids)} images ({listed(ids)})"
        yield Finding(severity="warning", ids=tuple(ids), message=f"{who}: {text}")


def _unread(index: Index) -> Iterator[Finding]:
    if index.unread:
        message = (
            f"{len(index.unread)} files are not read ({listed(index.unread)}); allowed: {' '.join(sorted(SUFFIXES))}; "
            "convert them or move them elsewhere"
        )
        yield Finding(severity="warning", ids=(), message=message)


def _unused_classes(index: Index) -> Iterator[Finding]:
    if index.unused_classes:
        yield Finding(
            severity="warning",
            ids=(),
            message=(
                f"no mask shows the classes {listed(index.unused_classes)}; allowed: classes that occur; leave them "
                "out with `classes`"
            ),
        )
