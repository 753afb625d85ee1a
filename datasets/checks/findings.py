"""Checks of a data set before training."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from datasets.decoding.decode import SUFFIXES, VOLUME_SUFFIXES
from datasets.source import AnnotationKind, Index

READ_SUFFIXES = " ".join(sorted(SUFFIXES | VOLUME_SUFFIXES))
LISTED, MOST_FAULTS = 5, 10
"""Maximum number of names in a message, and of faults reported individually."""


@dataclass(frozen=True, kw_only=True)
class DataFinding:
    """An error (these images cannot be used as they are) or a warning, with the ids of the images."""

    severity: Literal["error", "warning"]
    ids: tuple[str, ...]
    message: str


def check(index: Index, annotation_kinds: Collection[AnnotationKind] | None = None) -> list[DataFinding]:
    """Return all findings, errors first; if given, only annotation of the kinds in `annotation_kinds` is checked."""
    findings = [
        *_no_image(index),
        *_faults(index, annotation_kinds),
        *_repeated_files(index),
        *_look_alikes(index),
        *_remarks(index),
        *_mixed_axes(index),
    ]
    findings += [*_unused_classes(index), *_unread(index)]
    if annotation_kinds is None or "masks" in annotation_kinds:
        findings += _repeated_masks(index)
    return sorted(findings, key=lambda finding: finding.severity != "error")


def listed(names: Sequence[str], limit: int = LISTED) -> str:
    """Join the first names and the number of the remaining ones."""
    remainder = [f"{len(names) - limit} more"] if len(names) > limit else []
    return ", ".join([*names[:limit], *remainder])


def _no_image(index: Index) -> Iterator[DataFinding]:
    if not len(index):
        yield DataFinding(
            severity="error",
            ids=(),
            message=(
                f"there is no image (0); allowed: at least one, {READ_SUFFIXES}; check `root`, the names "
                "of its folders, and what the files are"
            ),
        )


def _faults(index: Index, annotation_kinds: Collection[AnnotationKind] | None) -> Iterator[DataFinding]:
    kinds = [
        index.faults,
        *(
            faults
            for kind, faults in index.annotation_faults.items()
            if annotation_kinds is None or kind in annotation_kinds
        ),
    ]
    faulty = [(index.case(row), fault) for faults in kinds for row, fault in enumerate(faults) if fault]
    faulty = list(dict.fromkeys(faulty))  # all slices of a volume have its fault
    unlisted = list(dict.fromkeys(image for image, _ in faulty[MOST_FAULTS:]))
    for number, (image, fault) in enumerate(faulty[:MOST_FAULTS], start=1):
        last = unlisted and number == MOST_FAULTS
        ids = (image, *unlisted) if last else (image,)
        message = f"{fault} ({len(unlisted)} more images have faults: {listed(unlisted)})" if last else fault
        yield DataFinding(severity="error", ids=ids, message=message)


def _repeated_files(index: Index) -> Iterator[DataFinding]:
    ids_by_content: dict[str, list[str]] = defaultdict(list)
    for image, content in zip(index.ids, index.content, strict=True):
        if content:
            ids_by_content[content].append(image)
    cases = len({index.case(row) for row in range(len(index))})
    for ids in _one_slice_per_volume(index, ids_by_content).values():
        if len(ids) * 2 > cases > 2:
            yield DataFinding(
                severity="error",
                ids=tuple(ids),
                message=(
                    f"{len(ids)} of {cases} images are the same file ({ids[0]}, {ids[1]}, ...); allowed: "
                    "different images; the loader or download repeats one image: get the data again"
                ),
            )
        elif len(ids) > 1:
            yield DataFinding(
                severity="warning",
                ids=tuple(ids),
                message=f"{listed(ids)} are the same file; allowed: each image once; keep one of them",
            )


def _one_slice_per_volume(index: Index, ids_by_content: Mapping[str, list[str]]) -> Mapping[str, list[str]]:
    """Return groups of ids without those of further slices of the same volumes."""
    case_by_id = {image: index.case(row) for row, image in enumerate(index.ids)}
    groups: dict[tuple[str, ...], tuple[str, list[str]]] = {}
    for content, ids in ids_by_content.items():
        groups.setdefault(tuple(case_by_id[image] for image in ids), (content, ids))
    return dict(groups.values())


def _look_alikes(index: Index) -> Iterator[DataFinding]:
    """Report one image stored in different files; identical files are reported by `_repeated_files`."""
    ids = _most_frequent(index, index.thumbnails)
    if ids and not _most_frequent(index, index.content):
        yield DataFinding(
            severity="error",
            ids=ids,
            message=(
                f"{len(ids)} of {len(index)} images look the same ({ids[0]}, {ids[1]}, ...); allowed: different "
                "images; the loader or download repeats one image: get the data again"
            ),
        )


def _repeated_masks(index: Index) -> Iterator[DataFinding]:
    """Report masks that are equal and not empty."""
    digests = index.annotation_digests["masks"]
    ids = _most_frequent(index, digests)
    if ids and index.shows(index.ids.index(ids[0])):
        yield DataFinding(
            severity="error",
            ids=ids,
            message=(
                f"{len(ids)} of {sum(map(bool, digests))} masks are equal ({ids[0]}, {ids[1]}, ...); "
                "allowed: masks that follow their images; the export repeats one mask: get the masks again"
            ),
        )


def _most_frequent(index: Index, values: Sequence[str]) -> tuple[str, ...]:
    """Return the ids with the most frequent value, if more than half of the non-empty values (at least 3) are equal."""
    rows = [row for row, value in enumerate(values) if value and not index.fault(row)]
    value, count = next(iter(Counter(values[row] for row in rows).most_common(1)), ("", 0))
    return tuple(index.ids[row] for row in rows if values[row] == value) if count * 2 > len(rows) > 2 else ()


def _remarks(index: Index) -> Iterator[DataFinding]:
    by_text: dict[str, list[str]] = defaultdict(list)
    for image, remarks in zip(index.ids, index.remarks or ("",) * len(index), strict=True):
        for text in filter(None, remarks.split("\n")):
            by_text[text].append(image)
    for text, ids in by_text.items():
        subject = ids[0] if len(ids) == 1 else f"{len(ids)} images ({listed(ids)})"
        yield DataFinding(severity="warning", ids=tuple(ids), message=f"{subject}: {text}")


def _mixed_axes(index: Index) -> Iterator[DataFinding]:
    """Report volumes whose slices are perpendicular to different axes."""
    volumes_by_axis: dict[int, dict[str, None]] = defaultdict(dict)
    for row, axis in enumerate(index.axes):
        if index.volume(row):
            volumes_by_axis[axis][index.volume(row)] = None
    if len(volumes_by_axis) > 1:
        counts = ", ".join(f"{axis} in {len(names)}" for axis, names in sorted(volumes_by_axis.items()))
        few = min(volumes_by_axis.values(), key=len)
        message = (
            f"slices are perpendicular to different axes of the volumes ({counts} volumes; {listed(list(few))}); "
            "allowed: one axis; set `axis`, unless the volumes are meant to be cut differently"
        )
        yield DataFinding(severity="warning", ids=tuple(few), message=message)


def _unread(index: Index) -> Iterator[DataFinding]:
    if index.unread:
        message = (
            f"{len(index.unread)} files are not read ({listed(index.unread)}); allowed: {READ_SUFFIXES}; "
            "convert them or move them elsewhere"
        )
        yield DataFinding(severity="warning", ids=(), message=message)


def _unused_classes(index: Index) -> Iterator[DataFinding]:
    if index.unused_classes:
        yield DataFinding(
            severity="warning",
            ids=(),
            message=(
                f"no mask shows the classes {listed(index.unused_classes)}; allowed: classes that occur; leave them "
                "out with `classes`"
            ),
        )
