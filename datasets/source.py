"""The interface of data sources: an index of the images, and access to single images and annotations."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from datasets.errors import DataError
from datasets.settings import FileChannels, ImageSettings

AnnotationKind = Literal["labels", "boxes", "centres", "masks", "scribbles", "points"]
Pixels = NDArray[np.uint8]
IGNORE: Final = 255
"""Value of pixels that are not annotated: as a class id, which limits exclusive classes to 254, or in the mask of a
class that overlaps others."""
BACKGROUND: Final = "background"
"""Name of points that lie in no class."""
ProgressCallback = Callable[[int, int], None]
"""Callback with the numbers of files read and files to read."""


@dataclass(frozen=True, kw_only=True)
class Box:
    """A bounding box in pixels of the original image; (x, y) is its upper left corner."""

    name: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, kw_only=True)
class Point:
    """A point in pixels of the original image that lies in a class, or in none (`BACKGROUND`)."""

    name: str
    x: float
    y: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Index:
    """The index of a data set: every sequence has one entry per image, ordered by id.

    `patients` are namespaced by collection ("collection/patient"). `content` holds hashes of the image files and
    `annotation_digests[kind]` hashes of the annotation of each kind, "" for images without it; together they identify
    exactly what a training run reads. `thumbnails` are perceptual hashes for duplicate detection.
    `faults` gives the reason why an image cannot be used, "" if it can; `annotation_faults[kind]` the same for its
    annotation of that kind.
    """

    ids: Sequence[str]
    patients: Sequence[str]
    categories: Sequence[str]
    official: Sequence[str]
    """The split defined by the publisher: "train", "validation", "test" or ""."""
    content: Sequence[str]
    thumbnails: Sequence[str]
    faults: Sequence[str]
    annotation_digests: Mapping[AnnotationKind, Sequence[str]]
    classes: tuple[str, ...]
    """Foreground classes of the masks; class id k+1 of an exclusive mask is classes[k]."""
    overlapping: bool
    """Whether a pixel may belong to several classes (multilabel) or to one (multiclass)."""
    labels: tuple[str, ...]
    structures: tuple[str, ...] = ()
    """Names of structures with a centre point or a box."""
    remarks: Sequence[str] = ()
    """Warnings about images that can be used, one per line, "" without a warning. Empty, or one entry per row."""
    annotation_faults: Mapping[AnnotationKind, Sequence[str]] = field(default_factory=dict)
    """By kind of annotation: empty, or one entry per row."""
    shown: Sequence[str] = ()
    """Classes present in the masks of a row, as a hexadecimal number whose bit k stands for classes[k].

    "" for images without masks. Empty, or one entry per row.
    """
    annotated: Sequence[str] = ()
    """Overlapping classes that are annotated in the masks of a row, at least in some of its pixels, in the format of
    `shown`; the masks of the other classes are `IGNORE` everywhere.

    "" for images without masks. Empty if all masks are of all classes, else one entry per row.
    """
    complete: Mapping[AnnotationKind, Sequence[str]] = field(default_factory=dict)
    """By kind of annotation: classes of the masks that the annotation of a row is complete for, in the format of
    `shown`, "" for none. One entry per row; no class of kinds that are left out.

    Classes with a label; with a box of each object, or without objects; with a scribble; with a point. The labels of a
    volume are complete for its slices only where they are 0. Of scribbles and points, the bit after those of the
    classes stands for the background.
    """
    unused_classes: tuple[str, ...] = ()
    """Classes that occur in no mask of this index."""
    unread: tuple[str, ...] = ()
    """Files next to the images that are not read, relative to the root."""
    heights: Sequence[int] = ()
    widths: Sequence[int] = ()
    """Size of each image in pixels, 0 where it cannot be read. Empty, or one entry per row."""
    channels: Sequence[int] = ()
    """Number of channels of each image, 0 where it cannot be read. Empty, or one entry per row."""
    has_colours: bool = True
    """Whether images with three channels are RGB, and not, for example, three modalities."""
    volumes: Sequence[str] = ()
    """Name of the volume that a row is a slice of, "" for single images. Empty, or one entry per row.

    The slices of a volume are consecutive rows, in order, and have the same patient and size.
    """
    axes: Sequence[int] = ()
    """Axis of the volume that a slice is perpendicular to. Empty, or one entry per row."""
    spacings: Sequence[tuple[float, ...]] = ()
    """Size of a pixel in mm: (height, width), of slices (distance of slices, height, width), () where it is unknown.

    Empty, or one entry per row.
    """
    excluded_from_training: Sequence[bool] = ()
    """Whether stages that learn from masks do not train on a row. Empty, or one entry per row."""
    collection: str = ""
    """Namespace of `patients` if it may be a path; splits do not depend on it."""

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.ids)

    def shape(self, row: int) -> tuple[int, int]:
        """Return height and width of an image in pixels."""
        return self.heights[row], self.widths[row]

    def volume(self, row: int) -> str:
        """Return the name of the volume that a row is a slice of, "" for a single image."""
        return self.volumes[row] if self.volumes else ""

    def case(self, row: int) -> str:
        """Return the name of the volume that a row is a slice of, or the id of a single image."""
        return self.volume(row) or self.ids[row]

    def spacing(self, row: int) -> tuple[float, ...]:
        """Return the size of a pixel in mm as in `spacings`, () if it is unknown."""
        return self.spacings[row] if self.spacings else ()

    @property
    def has_spacing(self) -> bool:
        """Whether the size of the pixels of all usable images with masks is known, so that distances are in mm."""
        masks = self.annotation_digests.get("masks", ())
        rows = [row for row, mask in enumerate(masks) if mask and not self.faults[row]]
        return bool(rows) and all(self.spacing(row) for row in rows)

    def shows(self, row: int) -> frozenset[str]:
        """Return the classes that are known to occur in the masks of a row."""
        return self._named(int(self.shown[row] or "0", 16) if self.shown else 0)

    def annotates(self, row: int) -> frozenset[str]:
        """Return the classes that are annotated in the masks of a row; none for an image without masks."""
        if not self.annotation_digests["masks"][row]:
            return frozenset()
        return self._named(int(self.annotated[row] or "0", 16) if self.annotated else -1)

    def completes(self, row: int, kind: AnnotationKind) -> frozenset[str]:
        """Return the classes of the masks that the annotation of a row is complete for; see `complete`."""
        return self._named(int(self.complete[kind][row] or "0", 16) if kind in self.complete else 0)

    def has_background(self, row: int, kind: AnnotationKind) -> bool:
        """Return whether scribbles or points of a row lie in the background."""
        return kind in self.complete and bool(int(self.complete[kind][row] or "0", 16) >> len(self.classes))

    def _named(self, bits: int) -> frozenset[str]:
        return frozenset(name for number, name in enumerate(self.classes) if bits >> number & 1)

    def fault(self, row: int) -> str:
        """Return why a row or any of its annotations cannot be used, "" without a fault."""
        return next(filter(None, (self.faults[row], *(faults[row] for faults in self.annotation_faults.values()))), "")


def class_bits(classes: Sequence[str], names: Collection[str]) -> str:
    """Return some of the classes as a hexadecimal number whose bit k stands for classes[k]."""
    return f"{sum(1 << number for number, name in enumerate(classes) if name in names):x}"


def file_contents(content: str) -> list[str]:
    """Return the hashes of the files in an entry of `Index.content`: one per channel.

    After a space the entry may have a stated spacing and channels, and that of a slice its axis, number and window.
    """
    return content.partition(" ")[0].split("+")


class Source(ABC):
    """Base class of data sources. Rows are positions in the index; images are returned in their original size."""

    @abstractmethod
    def index(
        self, cache: Path, progress: ProgressCallback | None = None, fits: Collection[ImageSettings] = ()
    ) -> Index:
        """Return the index; files that are unchanged since they were hashed are looked up in `cache`.

        Args:
            cache: Folder for manifests and decoded images.
            progress: Called while files are read.
            fits: Image settings that will be used later; images are resized to them while they are decoded anyway.

        Raises:
            DataError: Root or tables are missing or broken. An unreadable image is a fault of its row instead.
        """

    @abstractmethod
    def image(self, row: int) -> Pixels:
        """Decode one image or slice of 8 bits: (height, width) grey or (height, width, channels), of which 3 are RGB.

        Large images and masks may be memory-mapped, and are processed as described in `datasets.large`.
        """

    def fitted(self, row: int, settings: ImageSettings) -> tuple[Pixels, tuple[int, int]] | None:
        """Return the output of `fit_image` for one image and its original (height, width), None if it is not cached."""
        return None

    def forget_fitted(self, settings: ImageSettings) -> None:  # noqa: B027
        """Delete the cached images of `fitted`, once the prepared arrays contain them."""

    @property
    def channel_files(self) -> tuple[int, ...]:
        """Numbers of the files, `NAME_0000`, `NAME_0001`, ..., that an image consists of; empty for one file."""
        return ()

    @property
    def file_channels(self) -> FileChannels | None:
        """Channels along the fourth axis of each file, None if images have three dimensions."""
        return None

    def release(self) -> None:  # noqa: B027
        """Free decoded volumes, once the rows that are needed have been read."""

    @abstractmethod
    def masks(self, row: int) -> Pixels:
        """Return (classes, height, width) of 0/1 if classes overlap, else (height, width) of class ids.

        Pixels that are not annotated, of a class that overlaps others or of the image, are `IGNORE`.

        Raises `DataError` if the image has no masks.
        """

    def scribbles(self, row: int) -> Pixels:
        """Return the annotation of a few pixels in the format of `masks`; all others are `IGNORE`.

        Raises `DataError` if the image has no scribbles.
        """
        raise DataError(
            f"row {row} has no scribbles; allowed: rows whose annotation_digests['scribbles'] is not empty; leave it "
            "out"
        )

    def points(self, row: int) -> tuple[Point, ...]:
        """Return all points of one image: several in a class, and in the background."""
        return ()

    @abstractmethod
    def labels(self, row: int) -> NDArray[np.float32]:
        """Return (labels,): 1 present, 0 absent, NaN uncertain or unknown."""

    @abstractmethod
    def boxes(self, row: int) -> tuple[Box, ...]:
        """Return all boxes of one image."""

    @abstractmethod
    def centres(self, row: int) -> Mapping[str, tuple[float, float]]:
        """Return the centre (x, y) of each structure in pixels of the original image."""
