"""Which classes the masks of each row show and annotate, from the values that their files hold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from datasets.cache.manifest import Manifest
from datasets.source import class_bits
from datasets.sources.common.class_ids import used_ids
from datasets.sources.common.masks import annotated_classes, is_masked, values_in
from datasets.sources.common.published import PublishedDataset
from datasets.sources.common.rows import SourceRow


@dataclass(frozen=True, kw_only=True)
class ShownClasses:
    """The classes in the masks of a data set.

    Attributes:
        layout: The layout.
        files: The manifest.
        classes: The selected classes.
        ids: Ids of exclusive classes.
        ignored: Ids of unlabelled pixels.
    """

    layout: PublishedDataset
    files: Manifest
    classes: tuple[str, ...]
    ids: Mapping[str, int]
    ignored: Sequence[int]

    def shown(self, row: SourceRow) -> str:
        """Return an entry of `Index.shown`."""
        masks = row.case.masks
        if not is_masked(row.case, self.files, self.classes, self.ignored):
            return ""
        if not self.layout.overlapping:
            return f"{used_ids(self.ids, values_in(masks[0], self.files, row.number)):x}"
        if self.layout.regions:
            bits = values_in(masks[0], self.files, row.number)
            drawn = {name for name in self.classes if bits & sum(1 << number for number in self.layout.region(name))}
        else:
            ignored = sum(1 << value for value in self.ignored)
            drawn = {mask.name for mask in masks if values_in(mask, self.files, row.number) & ~ignored > 1}
        return class_bits(self.classes, drawn)

    def annotated(self, rows: Sequence[SourceRow]) -> Sequence[str]:
        """Return `Index.annotated`."""
        if not self.layout.overlapping:
            return ()
        annotated = [
            annotated_classes(row.case, self.files, self.classes, self.ignored, row.number)
            if is_masked(row.case, self.files, self.classes, self.ignored)
            else None
            for row in rows
        ]
        if all(names is None or len(names) == len(self.classes) for names in annotated):
            return ()
        return ["" if names is None else class_bits(self.classes, names) for names in annotated]

    def unused(self, shown: Sequence[str]) -> tuple[str, ...]:
        """Return the classes that occur in no mask; none for data without masks."""
        shown_bits = [int(bits, 16) for bits in shown if bits]
        return tuple(
            name
            for number, name in enumerate(self.classes)
            if shown_bits and not any(bits >> number & 1 for bits in shown_bits)
        )
