"""Common representation of the tables of all layouts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from datasets.source import Box, Point


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskFile:
    """A mask file. `name` is its class, "" for a mask of class ids. `place` is the position (x, y, width, height) of a
    cropped mask, None if it covers the image."""

    path: str
    name: str = ""
    place: tuple[int, int, int, int] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskRuns:
    """A mask of one class given in a table, for overlapping classes; `runs` as in `datasets.sources.common.runs`.
    Empty runs mean that the class is absent."""

    name: str
    runs: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedCase:
    """One image or volume of a layout. `labels` are in the order of `PublishedDataset.labels`, or empty.

    Without `patient`, the PatientID of the DICOM file is used, else the image counts as a separate patient.
    """

    id: str
    path: str
    patient: str = ""
    category: str = ""
    official: Literal["train", "validation", "test", ""] = ""
    """The split defined by the publisher."""
    size: tuple[int, int] | None = None
    """(width, height) in pixels, if given in the tables."""
    labels: tuple[float, ...] = ()
    boxes: tuple[Box, ...] = ()
    boxed: bool = False
    """Whether the image was annotated with boxes; without a box it then is a negative example."""
    partly_boxed: frozenset[str] = frozenset()
    """Classes of which objects may lack a box although the image was annotated with boxes."""
    centres: tuple[tuple[str, float, float], ...] = ()
    masks: tuple[MaskFile | MaskRuns, ...] = ()
    not_annotated: frozenset[str] = frozenset()
    """Overlapping classes without an annotation in this image: they have no masks, and are not absent."""
    partly_annotated: frozenset[str] = frozenset()
    """Overlapping classes of whose foreground only a part is annotated: pixels outside of their masks are unknown."""
    scribbles: tuple[MaskFile, ...] = ()
    """Files with ids, or of overlapping classes with 0, 1 and the value of pixels outside."""
    points: tuple[Point, ...] = ()
    other_masks: tuple[MaskFile, ...] = ()
    """Masks of other annotators, which are not read but share the class ids."""
    remark: str = ""
    spacing: tuple[float, ...] = ()
    """Size of the pixels in mm, if a file beside the image states it: of pages (distance of pages, height, width) or of
    a single image (height, width)."""
    channels: tuple[str, ...] = ()
    """Paths of files with further channels of the image."""
    fault: str = ""
    """Why the layout says that the image cannot be used, "" if it can."""

    @property
    def paths(self) -> tuple[str, ...]:
        """Return the paths of all image files."""
        return (self.path, *self.channels)

    @property
    def all_paths(self) -> tuple[str, ...]:
        """Return the paths of images, masks and scribbles."""
        masks = (*self.masks, *self.other_masks, *self.scribbles)
        return (*self.paths, *(mask.path for mask in masks if isinstance(mask, MaskFile)))


@dataclass(frozen=True, kw_only=True)
class PublishedDataset:
    """The tables of a layout. `classes` None: exclusive classes without names, class_1, class_2, ..."""

    cases: Sequence[PublishedCase]
    classes: tuple[str, ...] | None = ()
    overlapping: bool = True
    labels: tuple[str, ...] = ()
    regions: tuple[tuple[int, ...], ...] = ()
    """For overlapping classes in masks of ids: the ids that each class consists of."""
    ignored: tuple[int, ...] = ()
    """Ids of unlabelled pixels that the layout states."""
    is_excerpt: bool = False
    """Whether files that belong to no case are left unread."""
    class_list: str = "classes.txt"
    """The file that lists the classes, for messages."""

    def region(self, name: str) -> tuple[int, ...]:
        """Return the ids that a class of `regions` consists of."""
        return self.regions[(self.classes or ()).index(name)]
