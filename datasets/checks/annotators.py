"""Checks of the masks of several annotators."""

from collections.abc import Iterator, Mapping

from datasets.checks.findings import DataFinding
from datasets.source import Index


def annotator_findings(index: Index, trained: str, others: Mapping[str, Index]) -> Iterator[DataFinding]:
    """Yield the faults of the masks of annotators who are not trained on, and annotators without images in common.

    Args:
        index: The data set with the masks that are trained on.
        trained: Name of their annotator.
        others: The data set with the masks of each other annotator.
    """
    for name, other in others.items():
        faults = {(other.case(row), fault) for row, fault in enumerate(other.annotation_faults["masks"]) if fault}
        for image, fault in sorted(faults):  # all slices of a volume have its fault
            yield DataFinding(severity="error", ids=(image,), message=f"annotator {name}: {fault}")
        if not shared_rows(index, other):
            message = (
                f"annotators {trained} and {name} annotated 0 images in common; allowed: at least one; correct the "
                "names of the masks, or remove an annotator"
            )
            yield DataFinding(severity="error", ids=(), message=message)


def shared_rows(index: Index, other: Index) -> list[int]:
    """Return the rows with usable masks of both annotators."""
    masks = [part.annotation_digests["masks"] for part in (index, other)]
    return [
        row for row in range(len(index)) if all(part[row] for part in masks) and not index.fault(row) + other.fault(row)
    ]
