"""What a source offers: an index of its images, and one image or annotation at a time."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from datasets.settings import ImageSettings

Offer = Literal["labels", "boxes", "centres", "masks"]
Pixels = NDArray[np.uint8]
IGNORE: Final = 255
"""Class id of pixels without a label in masks of exclusive classes; so there are at most 254 of these."""
Progress = Callable[[int, int], None]
"""Called with files read so far and files to read."""


@dataclass(frozen=True, kw_only=True)
class Box:
    """A box in pixels of the original image; (x, y) is its upper left corner."""

    name: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Index:
    """One entry an image in every sequence, in a fixed order (by id).

    `patients` are namespaced by collection ("collection/patient"). `content` hashes the image's bytes,
    `offers[kind]` the annotation of that kind, "" where the image has none: together they say exactly
    what a training run reads. `thumbnails` are perceptual hashes for finding the same picture again.
    `faults` say in a line why an image cannot be used, "" where it can; `offer_faults[kind]` why its annotation of
    that kind cannot.
    """

    ids: Sequence[str]
    patients: Sequence[str]
    categories: Sequence[str]
    official: Sequence[str]
    """The publisher's own split: "train", "validation", "test" or ""."""
    content: Sequence[str]
    thumbnails: Sequence[str]
    faults: Sequence[str]
    offers: Mapping[Offer, Sequence[str]]
    classes: tuple[str, ...]
    """Foreground classes of the masks; class id k+1 of an exclusive mask is classes[k]."""
    overlapping: bool
    """Whether a pixel may belong to several classes (multilabel) or to one (multiclass)."""
    labels: tuple[str, ...]
    structures: tuple[str, ...] = ()
    """Names of structures with a centre point or a box."""
    remarks: Sequence[str] = ()
    """One a row or none at all: what is odd about an image that can still be used, a line each, "" where nothing is."""
    offer_faults: Mapping[Offer, Sequence[str]] = field(default_factory=dict)
    """One a row, or none at all, by kind of annotation."""
    shown: Sequence[str] = ()
    """One a row or none at all: the classes that its masks show, as bits of a hexadecimal number: bit k is classes[k].

    "" where the image has no masks.
    """
    unused_classes: tuple[str, ...] = ()
    """Classes that no mask of this index shows."""
    unread: tuple[str, ...] = ()
    """Files beside the images that are not read, relative to the root."""
    collection: str = ""
    """What `patients` are namespaced by where that may be a path: it has no say in who trains and who tests."""

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.ids)

    def shows(self, row: int) -> frozenset[str]:
        """Return the classes that the masks of a row show, as far as they are known."""
        bits = int(self.shown[row] or "0", 16) if self.shown else 0
        return frozenset(name for number, name in enumerate(self.classes) if bits >> number & 1)

    def fault(self, row: int) -> str:
        """Return why a row or any annotation of it cannot be used, "" where nothing is wrong."""
        return next(filter(None, (self.faults[row], *(faults[row] for faults in self.offer_faults.values()))), "")


class Source(ABC):
    """A published layout. It never trains and never resizes; positions refer to its index."""

    @abstractmethod
    def index(self, cache: Path, progress: Progress | None = None, fits: Collection[ImageSettings] = ()) -> Index:
        """Read or make the index; what was hashed before and has not changed is taken from `cache`.

        `fits` are how images will be fitted: one that is read now need not be decoded again for that.
        Raises `DataError` where root or tables are missing or broken; a bad image is a fault of its row.
        """

    @abstractmethod
    def image(self, row: int) -> Pixels:
        """Decode one image: (height, width), 8-bit grey, or (height, width, 3) RGB."""

    def fitted(self, row: int, settings: ImageSettings) -> tuple[Pixels, tuple[int, int]] | None:
        """Return one image as `fit_image` makes it, and its (height, width); None where reading did not leave it."""
        return None

    def forget_fitted(self, settings: ImageSettings) -> None:  # noqa: B027
        """Drop what `fitted` returns of all images; what is made of them is kept elsewhere."""

    @abstractmethod
    def masks(self, row: int) -> Pixels:
        """Return (classes, height, width) of 0/1 where classes overlap, else (height, width) class ids or `IGNORE`.

        Raises `DataError` where the image has no masks.
        """

    @abstractmethod
    def labels(self, row: int) -> NDArray[np.float32]:
        """Return (labels,): 1 present, 0 absent, NaN uncertain or unknown."""

    @abstractmethod
    def boxes(self, row: int) -> tuple[Box, ...]:
        """Return every box of one image."""

    @abstractmethod
    def centres(self, row: int) -> Mapping[str, tuple[float, float]]:
        """Return (x, y) in pixels of the original image by structure."""
