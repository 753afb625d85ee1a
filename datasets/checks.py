"""Is a data set fit for training? What is wrong with it, before anything trains."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from datasets.sample import Index


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something wrong (error: these images cannot be used as they are) or odd (warning), with the images' ids."""

    severity: Literal["error", "warning"]
    ids: tuple[str, ...]
    message: str


def check(index: Index) -> list[Finding]:
    """Return everything wrong or odd, errors first."""
    found = [*_no_image(index), *_faults(index), *_repeats(index), *_remarks(index), *_unused_classes(index)]
    return sorted(found, key=lambda finding: finding.severity != "error")


def _no_image(index: Index) -> Iterator[Finding]:
    if not len(index):
        yield Finding(
            severity="error",
            ids=(),
            message="there is no image (0); allowed: at least one; check `root` and the names of its folders",
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
