"""Synthetic chest radiographs with all kinds of annotation."""

from collections.abc import Collection, Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from datasets.settings import ImageSettings, SourceSettings
from datasets.source import BACKGROUND, Box, Index, Pixels, Point, ProgressCallback, Source, class_bits
from datasets.sources.common.tables import choose, digest
from datasets.sources.phantom.anatomy import Patient, draw_opacities, draw_patient, draw_pose, draw_tube
from datasets.weak.points import mask_points
from datasets.weak.scribbles import mask_scribbles

if TYPE_CHECKING:
    from datasets.sources.phantom.drawing import Scene

VERSION = 1
"""Increased when the same settings give different images or annotations."""

CLASSES = ("right_lung", "left_lung", "heart", "opacity", "tube")
LABELS = ("opacity", "cardiomegaly", "tube")
BOXED = ("right_lung", "left_lung", "heart", "opacity")
CENTRED = ("right_lung", "left_lung", "heart")
MAX_IMAGES = 100_000
"""Indexing more would take minutes."""
UNCERTAIN = 0.06
"""Fraction of labels that are NaN."""


class PhantomSettings(SourceSettings):
    """`images` images of `size` pixels, distributed evenly over `patients`.

    Styles: a (upright, digital), b (portable: flat, bright, noisy, tilted, collimated), c (scanned film: hard,
    grainy, uneven). Every image is determined by these settings and its row.
    """

    source: Literal["phantom"] = "phantom"
    images: Annotated[int, Field(ge=1, le=MAX_IMAGES)] = 60
    patients: Annotated[int, Field(ge=1, le=MAX_IMAGES)] = 20
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    style: Literal["a", "b", "c"] = "a"
    size: Annotated[int, Field(ge=32, le=4096)] = 256

    @model_validator(mode="after")
    def _enough_images(self) -> Self:
        if self.patients > self.images:
            raise ValueError(f"patients is {self.patients}; allowed: 1 to images ({self.images}); lower it")
        return self

    @property
    def collection(self) -> str:
        """Namespace of patients: phantoms with different images have different patients."""
        return f"phantom-{digest(VERSION, self.images, self.patients, self.seed, self.style, self.size)}"


class PhantomSource(Source):
    """Source of `PhantomSettings`; the index is created without rendering images."""

    def __init__(self, settings: PhantomSettings) -> None:
        self._settings = settings
        self._key = settings.collection

    @cached_property
    def _classes(self) -> tuple[str, ...]:
        return choose(CLASSES, self._settings.classes, "classes", "phantom")

    @cached_property
    def _labels(self) -> tuple[str, ...]:
        return choose(LABELS, self._settings.labels, "labels", "phantom")

    def _patient(self, row: int) -> int:
        return row * self._settings.patients // self._settings.images

    def index(
        self, cache: Path, progress: ProgressCallback | None = None, fits: Collection[ImageSettings] = ()
    ) -> Index:
        """Return the index; see `Source.index`. Nothing is cached, as no files are read."""
        rows = range(self._settings.images)
        groups = [_patient(self._key, number).group for number in range(self._settings.patients)]
        boxed = tuple(name for name in self._classes if name in BOXED)
        labelled = [not np.isnan(self.labels(row)).all() for row in rows]
        drawn = (*self._classes, BACKGROUND)
        return Index(
            ids=[f"{row:07d}" for row in rows],
            patients=[f"{self._key}/{self._patient(row)}" for row in rows],
            categories=[groups[self._patient(row)] for row in rows],
            official=[""] * len(rows),
            content=[digest(self._key, row) for row in rows],
            thumbnails=[""] * len(rows),
            faults=[""] * len(rows),
            annotation_digests={
                "labels": [digest(self._key, row, self._labels) if labelled[row] else "" for row in rows],
                "boxes": [digest(self._key, row, boxed) if self._has_boxes(row) else "" for row in rows],
                "centres": [digest(self._key, row, CENTRED) for row in rows],
                "masks": [digest(self._key, row, self._classes) for row in rows],
                "scribbles": [digest(self._key, row, self._classes, "scribbles") for row in rows],
                "points": [digest(self._key, row, self._classes, "points") for row in rows],
            },
            classes=self._classes,
            overlapping=True,
            complete={
                "labels": [self._labelled(row) for row in rows],
                "boxes": [class_bits(self._classes, boxed)] * len(rows),
                "scribbles": [class_bits(drawn, drawn)] * len(rows),
                "points": [class_bits(drawn, drawn)] * len(rows),
            },
            labels=self._labels,
            structures=(*boxed, *(name for name in CENTRED if name not in boxed)),
            heights=[self._settings.size] * len(rows),
            widths=[self._settings.size] * len(rows),
            channels=[1] * len(rows),
        )

    def _labelled(self, row: int) -> str:
        """Return an entry of `Index.complete`."""
        values = dict(zip(self._labels, self.labels(row), strict=True))
        return class_bits(self._classes, [name for name, value in values.items() if not np.isnan(value)])

    def _has_boxes(self, row: int) -> bool:
        if set(CENTRED).intersection(self._classes):
            return True
        return "opacity" in self._classes and bool(_findings(self._key, row, self._patient(row))["opacity"])

    def image(self, row: int) -> Pixels:
        """Render one image: (size, size)."""
        from datasets.sources.phantom.drawing import LOOKS, show

        scene = _scene(self._settings, row, self._patient(row))
        return show(scene, LOOKS[self._settings.style], _random(self._key, "exposure", row))

    def masks(self, row: int) -> Pixels:
        """Render the masks of one image: (classes, size, size) of 0/1."""
        masks = _scene(self._settings, row, self._patient(row)).masks()
        return np.stack([masks[name] for name in self._classes])

    def scribbles(self, row: int) -> Pixels:
        """Return scribbles in the masks of one image."""
        return mask_scribbles(self.masks(row), self._classes, (self._settings.seed, row))

    def points(self, row: int) -> tuple[Point, ...]:
        """Return a point in each component of the masks of one image, and one in the background."""
        return mask_points(self.masks(row), self._classes, (self._settings.seed, row))

    def labels(self, row: int) -> NDArray[np.float32]:
        """Return the findings; a few are uncertain (NaN)."""
        findings = _findings(self._key, row, self._patient(row))
        doubt = _random(self._key, "doubt", row).random(len(LABELS)) < UNCERTAIN
        values = {name: np.nan if doubt[at] else float(findings[name]) for at, name in enumerate(LABELS)}
        return np.array([values[name] for name in self._labels], np.float32)

    def boxes(self, row: int) -> tuple[Box, ...]:
        """Return the boxes of lungs, heart and (as one box) all opacities."""
        masks = _scene(self._settings, row, self._patient(row)).masks()
        names = (name for name in self._classes if name in BOXED)
        return tuple(_box(name, masks[name]) for name in names if masks[name].any())

    def centres(self, row: int) -> Mapping[str, tuple[float, float]]:
        """Return the centroids of lungs and heart."""
        masks = _scene(self._settings, row, self._patient(row)).masks()
        return {name: _centroid(masks[name]) for name in CENTRED}


def _random(key: str, *parts: object) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=int(digest(key, *parts), 16)))


@lru_cache(maxsize=4096)
def _patient(key: str, number: int) -> Patient:
    return draw_patient(_random(key, "patient", number))


def _findings(key: str, row: int, patient: int) -> dict[str, bool]:
    """Return the findings of an image: opacities vary in diseased patients, tubes in all; cardiomegaly is constant."""
    profile = _patient(key, patient)
    present, tube = _random(key, "findings", row).random(2)
    return {
        "opacity": profile.diseased and bool(present < 0.8),
        "cardiomegaly": profile.cardiomegaly,
        "tube": bool(tube < 0.3),
    }


@lru_cache(maxsize=8)
def _scene(settings: PhantomSettings, row: int, number: int) -> "Scene":
    from datasets.sources.phantom.drawing import LOOKS, Scene

    key = settings.collection
    random = _random(key, "scene", row)
    patient, findings = _patient(key, number), _findings(key, row, number)
    pose = draw_pose(random, tilt=LOOKS[settings.style].tilt)
    return Scene(
        size=settings.size,
        patient=patient,
        pose=pose,
        blobs=draw_opacities(patient, pose, random) if findings["opacity"] else (),
        tube=draw_tube(pose, random) if findings["tube"] else None,
        pattern=int(random.integers(2**31)),
    )


def _box(name: str, mask: Pixels) -> Box:
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    x, y = int(columns[0]), int(rows[0])
    return Box(name=name, x=x, y=y, width=int(columns[-1]) + 1 - x, height=int(rows[-1]) + 1 - y)


def _centroid(mask: Pixels) -> tuple[float, float]:
    ys, xs = np.nonzero(mask)
    return float(xs.mean() + 0.5), float(ys.mean() + 0.5)
