"""Numbers of images by class, where images are annotated for different classes."""

from dataclasses import dataclass
from typing import Final

from datasets.source import Index

MAX_NAMES: Final = 16
"""Maximum number of classes in a text; of further ones only the number is given."""


@dataclass(frozen=True, kw_only=True)
class ClassImages:
    """In how many usable images a class is annotated, and in how many of these it is present."""

    name: str
    annotated: int
    present: int


def class_images(index: Index) -> list[ClassImages]:
    """Return the numbers of images of each class; empty if all masks are of all classes."""
    if not index.annotated:
        return []
    rows = [row for row in range(len(index)) if not index.fault(row)]
    annotated, present = [index.annotates(row) for row in rows], [index.shows(row) for row in rows]
    return [
        ClassImages(
            name=name,
            annotated=sum(name in names for names in annotated),
            present=sum(name in names for names in present),
        )
        for name in index.classes
    ]


def class_images_text(index: Index) -> str:
    """Return the numbers of annotated images by class as text, "" if all masks are of all classes."""
    parts = [f"{part.name} {part.annotated:,} (present in {part.present:,})" for part in class_images(index)]
    return "; ".join([*parts[:MAX_NAMES], *([f"{len(parts) - MAX_NAMES} more"] if len(parts) > MAX_NAMES else [])])
