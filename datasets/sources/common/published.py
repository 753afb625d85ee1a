"""What the tables of a published layout say of its images, in one form for all layouts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from datasets.source import Box


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskFile:
    """A mask file. `name` is its class, "" where it holds the ids of all; `place` (x, y, width, height)
    says where a cropped one belongs, None where it covers the image."""

    path: str
    name: str = ""
    place: tuple[int, int, int, int] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskRuns:
    """A mask of one class that a table holds, where classes overlap; `runs` as in `datasets.sources.common.runs`.
    Without runs the class is known to be absent."""

    name: str
    runs: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """What a layout says of one image. `labels` as `Published.labels` orders them, or none at all.

    Without `patient` the image belongs to the patient that its DICOM file names, else to one of its own.
    """

    id: str
    path: str
    patient: str = ""
    category: str = ""
    official: Literal["train", "validation", "test", ""] = ""
    """The publisher's own split."""
    size: tuple[int, int] | None = None
    """(width, height) in pixels, where the tables state it."""
    labels: tuple[float, ...] = ()
    boxes: tuple[Box, ...] = ()
    boxed: bool = False
    """Whether boxes were looked for: an image that then has none shows nothing, and is learned as such."""
    centres: tuple[tuple[str, float, float], ...] = ()
    masks: tuple[MaskFile | MaskRuns, ...] = ()
    remark: str = ""


@dataclass(frozen=True, kw_only=True)
class Published:
    """What the tables of a layout say. `classes` None: exclusive ids without names, class_1, class_2, ..."""

    cases: Sequence[Case]
    classes: tuple[str, ...] | None = ()
    overlapping: bool = True
    labels: tuple[str, ...] = ()
