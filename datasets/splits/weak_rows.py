"""Where the weak labels of an image come from: its own annotation of their kind, or its mask."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, Literal

from datasets.source import AnnotationKind, Index
from datasets.splits.assignment import fingerprint

WeakName = Literal["box", "points", "scribble", "class"]
ANNOTATION_OF: Final[Mapping[WeakName, AnnotationKind]] = {
    "box": "boxes",
    "points": "points",
    "scribble": "scribbles",
    "class": "labels",
}
"""The kind of annotation with weak labels."""
OF_PIXELS: Final[frozenset[WeakName]] = frozenset({"points", "scribble"})
"""Labels of a few pixels, which are random where they are derived from masks."""


@dataclass(frozen=True, kw_only=True)
class WeakRows:
    """Rows with weak labels: those with annotation of their own, and those whose labels are derived from masks."""

    own: tuple[int, ...]
    derived: tuple[int, ...]

    @property
    def all(self) -> tuple[int, ...]:
        """Return all rows in ascending order."""
        return tuple(sorted((*self.own, *self.derived)))


def weak_rows(index: Index, rows: Sequence[int], name: WeakName) -> WeakRows:
    """Return which of some rows have weak labels.

    An image's own annotation is used if it is complete for the classes of its mask: for all that are annotated there;
    scribbles and points for all that it shows, as they cannot state that a class is absent, and for the background.
    Otherwise the labels are derived from its mask. Without a mask its own annotation of some classes, or of the
    background, is used. Images with neither are left out.
    """
    masks = index.annotation_digests["masks"]
    annotation = index.annotation_digests.get(ANNOTATION_OF[name]) or [""] * len(index)
    own, derived = [], []
    for row in rows:
        if annotation[row] and _is_used(index, row, name):
            own.append(row)
        elif masks[row]:
            derived.append(row)
    return WeakRows(own=tuple(own), derived=tuple(derived))


def _is_used(index: Index, row: int, name: WeakName) -> bool:
    """Return whether the annotation of a row is used, and not its mask."""
    kind = ANNOTATION_OF[name]
    complete, background = index.completes(row, kind), index.has_background(row, kind)
    if not index.annotation_digests["masks"][row]:
        return bool(complete) or background
    if name in OF_PIXELS:
        return background and complete >= index.shows(row)
    return complete >= index.annotates(row)


def weak_fingerprint(index: Index, rows: WeakRows, name: WeakName, seed: int) -> str:
    """Return a text that identifies the images and what their weak labels are made of."""
    kind = ANNOTATION_OF[name]
    parts = [fingerprint(index, rows.own, (kind,)), _complete(index, rows.own, kind)] if rows.own else [""]
    parts += [fingerprint(index, rows.derived, ("masks",))] if rows.derived else [""]
    return " ".join([*parts, str(seed) if rows.derived and name in OF_PIXELS else ""])


def _complete(index: Index, rows: Sequence[int], kind: AnnotationKind) -> str:
    """Return a hash of the classes that the annotation of some rows is complete for."""
    lines = sorted([[index.ids[row], *sorted(index.completes(row, kind))] for row in rows])
    return blake2b(json.dumps(lines).encode(), digest_size=16).hexdigest()
