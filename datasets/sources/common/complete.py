"""Which classes of the masks the other annotation of each row is complete for."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isnan

from datasets.cache.manifest import Manifest
from datasets.source import BACKGROUND, AnnotationKind, class_bits
from datasets.sources.common.class_ids import ScribbleIds
from datasets.sources.common.masks import values_in
from datasets.sources.common.published import PublishedCase
from datasets.sources.common.rows import SourceRow


@dataclass(frozen=True, kw_only=True)
class CompleteClasses:
    """The classes of a data set and where their annotation is found.

    Attributes:
        files: The manifest.
        classes: The selected classes.
        labels: Positions of the labels in `PublishedCase.labels` that have the names of classes.
        scribbles: Values in scribbles.
    """

    files: Manifest
    classes: tuple[str, ...]
    labels: Mapping[str, int]
    scribbles: ScribbleIds

    def by_kind(self, rows: Sequence[SourceRow]) -> dict[AnnotationKind, Sequence[str]]:
        """Return `Index.complete`."""
        columns: dict[AnnotationKind, list[set[str]]] = {
            "labels": [self._labelled(row) for row in rows],
            "boxes": [self._boxed(row.case) for row in rows],
            "scribbles": [self._scribbled(row) for row in rows],
            "points": [{point.name for point in row.case.points} for row in rows],
        }
        return {
            kind: [class_bits((*self.classes, BACKGROUND), names) if names else "" for names in column]
            for kind, column in columns.items()
            if any(column)
        }

    def _labelled(self, row: SourceRow) -> set[str]:
        """Return the classes with a label; what a volume shows need not be on all of its slices."""
        values = row.case.labels
        if row.volume:
            return {name for name, position in self.labels.items() if values and values[position] == 0}
        return {name for name, position in self.labels.items() if values and not isnan(values[position])}

    def _boxed(self, case: PublishedCase) -> set[str]:
        boxed = self.classes if case.boxed else [box.name for box in case.boxes]
        return set(boxed) - case.partly_boxed

    def _scribbled(self, row: SourceRow) -> set[str]:
        """Return the classes with a scribble, and the background: in exclusive classes, or beside each class."""
        outside = _bits(self.scribbles.outside)
        drawn = {mask.name: values_in(mask, self.files, row.number) & ~outside for mask in row.case.scribbles}
        if "" in drawn:
            bits_of = {name: _bits(values) for name, values in self.scribbles.classes.items() if name in self.classes}
            names = {name for name, bits in bits_of.items() if drawn[""] & bits}
            others = drawn[""] & ~sum(bits_of.values())  # also ids of classes that are not selected
            return names | ({BACKGROUND} if others else set())
        by_class = {name: bits for name, bits in drawn.items() if bits and name in self.classes}
        names = {name for name, bits in by_class.items() if bits > 1}
        return names | ({BACKGROUND} if by_class and all(bits & 1 for bits in by_class.values()) else set())


def _bits(values: Iterable[int]) -> int:
    return sum(1 << value for value in values)
