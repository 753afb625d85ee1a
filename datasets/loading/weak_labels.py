"""Weak labels of the rows of an index, as training reads them."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from datasets.cache.arrays import PREPARED, CachedArray, Layout, open_entry
from datasets.loading.prepare import BUDGET_BYTES, prepared_entries, run_in_threads
from datasets.settings import ImageSettings
from datasets.source import IGNORE, Box, Index, Pixels, Source
from datasets.splits.weak_rows import WeakName, WeakRows, weak_fingerprint, weak_rows
from datasets.targets import Fit, clipped_corners, fit_masks, target_layout
from datasets.versions import VERSIONS, WEAK
from datasets.weak.boxes import mask_boxes
from datasets.weak.discs import point_discs
from datasets.weak.fitting import agreeing, fit_scribbles
from datasets.weak.points import mask_points
from datasets.weak.presence import fully_annotated, mask_presence
from datasets.weak.scribbles import mask_scribbles

MASKS: Final = "masks"
PRESENT: Final = "present"
PixelLabels = tuple[Pixels, NDArray[np.float32]]
"""Annotated pixels of an image, and which classes (classes,) are known to be present, see `WeakLabels`."""


@dataclass(frozen=True, kw_only=True)
class WeakLabelSpec:
    """What determines the weak labels of a stage.

    Attributes:
        name: Their kind.
        seed: Seed of the split, which determines labels derived from masks.
        image: Settings of the images.
        points: Number of points that are derived from each component of a mask, and from the background.
        radius: Radius of the discs around points in pixels of the input.
    """

    name: WeakName
    seed: int
    image: ImageSettings
    points: int = 1
    radius: float = 0.0


@dataclass(frozen=True, kw_only=True, eq=False)
class WeakLabels:
    """Weak labels of the training images that have them.

    Attributes:
        masks: Annotated pixels in the format of masks; None for labels of whole images.
        mask_rows: The row of `masks` of each image; None if `masks` has the rows of the index.
        present: (images, classes) in the order of the images: 1 for classes that are known to be present, 0 for absent
            ones, NaN for others; None if nothing is known of whole images.
        boxes: Corners (rows of the index, boxes, 4, 2) as fractions of width and height of the input, in the order of a
            walk around each box, NaN for no box; None for other labels.
        box_classes: Numbers of the classes of the boxes, (images, boxes) in the order of the images.
    """

    masks: CachedArray | None = None
    mask_rows: Sequence[int] | None = None
    present: NDArray[np.float32] | None = None
    boxes: NDArray[np.float32] | None = None
    box_classes: NDArray[np.int64] | None = None


def weak_labels(
    source: Source,
    index: Index,
    rows: Sequence[int],
    spec: WeakLabelSpec,
    *,
    shapes: NDArray[np.int32],
    cache: Path,
    budget_bytes: int = BUDGET_BYTES,
) -> WeakLabels:
    """Return the weak labels of some rows. Raises `DataError` for a file that cannot be decoded.

    `shapes` are those of `Prepared`.
    """
    if spec.name == "class":
        return WeakLabels(present=_presence(source, index, weak_rows(index, rows, "class")))
    if spec.name == "box":
        return _boxes(source, index, weak_rows(index, rows, "box"), spec, shapes)
    cached = _cached(source, index, spec, shapes=shapes, cache=cache, budget_bytes=budget_bytes)
    present = cached[PRESENT][list(rows)] if spec.name == "points" else None
    return WeakLabels(masks=cached[MASKS], present=present)


def _presence(source: Source, index: Index, rows: WeakRows) -> NDArray[np.float32]:
    """Return which classes are present, from labels with the names of classes or from masks."""
    present = np.full((len(index), len(index.classes)), np.nan, np.float32)

    def read_labels(row: int) -> None:
        values, complete = dict(zip(index.labels, source.labels(row), strict=True)), index.completes(row, "labels")
        present[row] = [values[name] if name in complete else np.nan for name in index.classes]

    def read_masks(row: int) -> None:
        present[row] = mask_presence(source.masks(row), len(index.classes))

    run_in_threads(rows.own, read_labels)
    run_in_threads(rows.derived, read_masks)
    source.release()
    return present[list(rows.all)]


def _boxes(source: Source, index: Index, rows: WeakRows, spec: WeakLabelSpec, shapes: NDArray[np.int32]) -> WeakLabels:
    """Return the boxes of classes, from the data set or around each component of masks.

    Components that are smaller than a pixel of the input have no box, and neither have objects outside of the image.
    Classes are known to be present or absent where all their boxes are known, unless they have none for these reasons.
    """
    classes = index.classes
    present = np.full((len(index), len(classes)), np.nan, np.float32)
    boxes: dict[int, Sequence[Box]] = {}
    fits = {row: Fit.of(spec.image, int(shapes[row, 0]), int(shapes[row, 1])) for row in rows.all}

    def read_boxes(row: int) -> None:
        read = [box for box in source.boxes(row) if box.name in classes]
        boxes[row] = [box for box in read if (np.diff(clipped_corners(box, fits[row]), axis=0) > 0).all()]
        named = {box.name for box in boxes[row]}
        known = index.completes(row, "boxes") - ({box.name for box in read} - named)
        present[row] = [float(name in named) if name in known else np.nan for name in classes]

    def read_masks(row: int) -> None:
        masks, fit = source.masks(row), fits[row]
        _, _, height, width = fit.inner
        boxes[row] = mask_boxes(masks, classes, min_pixels=math.ceil(fit.height * fit.width / (height * width)))
        shown, named = mask_presence(masks, len(classes)), {box.name for box in boxes[row]}
        is_known = fully_annotated(masks, len(classes)) & ((shown == 0) | [name in named for name in classes])
        present[row] = np.where(is_known, shown, np.nan)

    run_in_threads(rows.own, read_boxes)
    run_in_threads(rows.derived, read_masks)
    source.release()
    most = max((1, *map(len, boxes.values())))
    corners = np.full((len(index), most, 4, 2), np.nan, np.float32)
    numbers = np.zeros((len(index), most), np.int64)
    for row, of_row in boxes.items():
        for position, box in enumerate(of_row):
            numbers[row, position] = classes.index(box.name)
            (left, top), (right, bottom) = clipped_corners(box, fits[row])
            corners[row, position] = [[left, top], [right, top], [right, bottom], [left, bottom]]
    kept = list(rows.all)
    return WeakLabels(present=present[kept], boxes=corners, box_classes=numbers[kept])


def _cached(
    source: Source,
    index: Index,
    spec: WeakLabelSpec,
    *,
    shapes: NDArray[np.int32],
    cache: Path,
    budget_bytes: int,
) -> Mapping[str, CachedArray]:
    """Return annotated pixels of all rows of an index, from the cache; they are those of any stage with this seed."""
    rows = weak_rows(index, [row for row, fault in enumerate(index.faults) if not fault], spec.name)
    derived = frozenset(rows.derived)

    def fill(arrays: Mapping[str, CachedArray]) -> None:
        def fill_row(row: int) -> None:
            read = _points if spec.name == "points" else _scribbles
            height, width = (int(side) for side in shapes[row])
            labels = read(source, index, spec, row, shape=(height, width), derived=row in derived)
            arrays[MASKS][row], arrays[PRESENT][row] = labels

        run_in_threads(rows.all, fill_row)
        source.release()

    shape, dtype = target_layout(index, "mask", spec.image.shape)
    layout: Layout = {
        MASKS: ((len(index), *shape), dtype),
        PRESENT: ((len(index), len(index.classes)), np.float32),
    }
    keep = prepared_entries(index, "mask", spec.image, structure=None, cache=cache)
    return open_entry(cache / PREPARED / _key(index, rows, spec), layout, fill, budget_bytes=budget_bytes, keep=keep)


def pseudo_label_layout(index: Index, images: int, shape: tuple[int, int], *, probabilities: bool) -> Layout:
    """Return the arrays of the pseudo-labels of a number of images whose inputs have `shape` (height, width).

    They have the format of masks, `probabilities` that of masks of overlapping classes.
    """
    of_image, dtype = target_layout(index, "mask", shape)
    if probabilities:
        of_image = (len(index.classes), *shape)
    return {MASKS: ((images, *of_image), dtype)}


def _scribbles(
    source: Source, index: Index, spec: WeakLabelSpec, row: int, *, shape: tuple[int, int], derived: bool
) -> PixelLabels:
    """Return the scribbles of an image of (height, width) pixels."""
    unknown = np.full(len(index.classes), np.nan, np.float32)
    if not derived:
        return fit_scribbles(source.scribbles(row), spec.image), unknown
    masks = source.masks(row)
    drawn = mask_scribbles(masks, index.classes, (spec.seed, index.ids[row]))
    return agreeing(fit_scribbles(drawn, spec.image), fit_masks(masks, spec.image)), unknown


def _points(
    source: Source, index: Index, spec: WeakLabelSpec, row: int, *, shape: tuple[int, int], derived: bool
) -> PixelLabels:
    """Return the discs around the points of an image of (height, width) pixels, and the classes with a point."""
    classes, masks, annotated = index.classes, None, None
    if derived:
        masks, key, count = source.masks(row), (spec.seed, index.ids[row]), spec.points
        points = mask_points(masks, classes, key, per_component=count, background=count)
        annotated = index.annotates(row)
    else:
        points = source.points(row)
    fit, sides = Fit.of(spec.image, *shape), np.array(spec.image.shape[::-1])
    places = [(point.name, fit.to_input(np.array([point.x, point.y])) * sides) for point in points]
    discs_of = partial(
        point_discs, places, classes, spec.image.shape, overlapping=index.overlapping, annotated=annotated
    )
    discs = discs_of(radius=spec.radius)
    if masks is not None:  # only the pixels of the points themselves may lie beside narrow structures
        centres = discs_of(radius=0.0)
        discs = np.where(centres == IGNORE, agreeing(discs, fit_masks(masks, spec.image)), centres)
    in_image = np.full_like(discs, IGNORE)  # discs at the border reach into the padding
    fit.crop(in_image)[...] = fit.crop(discs)
    named = {point.name for point in points}
    return in_image, np.array([1.0 if name in named else np.nan for name in classes], np.float32)


def _key(index: Index, rows: WeakRows, spec: WeakLabelSpec) -> str:
    """Return a hash of everything that the arrays depend on."""
    parts = {
        "versions": [VERSIONS["preparation"], WEAK],
        "name": spec.name,
        "image": [spec.image.size, spec.image.fit],
        "points": [spec.points, spec.radius] if spec.name == "points" else [],
        "classes": index.classes,
        "overlapping": index.overlapping,
        "content": weak_fingerprint(index, rows, spec.name, spec.seed),
        "rows": [rows.own, rows.derived],
        "ids": index.ids,
    }
    return blake2b(json.dumps(parts, sort_keys=True, default=list).encode(), digest_size=16).hexdigest()
