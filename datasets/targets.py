"""Resize images and annotations to the input of a network, and map results back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray

from datasets.decoding.decode import channels_of, luma
from datasets.decoding.enhance import enhance
from datasets.errors import DataError
from datasets.large import row_bands
from datasets.resampling import resized, sampled
from datasets.settings import AnnotationName, ImageSettings
from datasets.source import IGNORE, AnnotationKind, Box, Index, Pixels

Target = Literal["image", "labels", "centre", "box", "mask", "box_mask"]
TargetArray = NDArray[Any]

_ANNOTATION_KINDS: Final[Mapping[Target, AnnotationKind | None]] = {
    "image": None,
    "labels": "labels",
    "centre": "centres",
    "box": "boxes",
    "mask": "masks",
    "box_mask": "boxes",
}
_ANNOTATION_NAMES: Final[Mapping[AnnotationKind, AnnotationName]] = {
    "labels": "class",
    "boxes": "box",
    "centres": "points",
    "masks": "mask",
    "scribbles": "scribble",
    "points": "points",
}


def annotation_kind_of(target: Target) -> AnnotationKind | None:
    """Return the kind of annotation that a target is derived from, None for the image itself."""
    return _ANNOTATION_KINDS[target]


def annotation_name_of(kind: AnnotationKind) -> AnnotationName:
    """Return what annotators draw for a kind of annotation: its key in `AnnotationMinutes`."""
    return _ANNOTATION_NAMES[kind]


def names(index: Index, target: Target) -> tuple[str, ...]:
    """Return the names of a target's channels or values: classes, labels or structures."""
    if target == "mask":
        return index.classes
    if target == "labels":
        return index.labels
    return () if target == "image" else index.structures


def chosen_structure(index: Index, target: Target, structure: str | None) -> str:
    """Return the structure of a centre or box target, "" for other targets.

    Raises `DataError` if it is unknown, or not given although there are several.
    """
    if target not in ("centre", "box"):
        return ""
    known = index.structures
    if structure is None and len(known) == 1:
        return known[0]
    if structure is None or structure not in known:
        raise DataError(
            f"structure is {structure}; allowed: {', '.join(known) or 'none, the data has no structures'}; "
            "name one of them"
        )
    return structure


@dataclass(frozen=True, kw_only=True)
class Fit:
    """The position of an image of (height, width) pixels in an input of `shape`, (height, width).

    `stretch` fills the input. `letterbox` keeps the aspect ratio and pads with 0 on both sides.
    Points are continuous: (0, 0) is the upper left corner of the upper left pixel.
    """

    height: int
    width: int
    shape: tuple[int, int]
    fit: Literal["stretch", "letterbox"]

    @classmethod
    def of(cls, settings: ImageSettings, height: int, width: int) -> Self:
        """Return the fit of an image with these settings. Raises `ValueError` for patches."""
        if settings.fit == "patch":
            raise ValueError("patches are not fitted")
        return cls(height=height, width=width, shape=settings.shape, fit=settings.fit)

    @property
    def inner(self) -> tuple[int, int, int, int]:
        """Return top, left, height and width of the image within the input, in its pixels."""
        rows, columns = self.shape
        if self.fit == "stretch":
            return 0, 0, rows, columns
        # The side that limits the enlargement fills the input exactly.
        if self.height * columns >= self.width * rows:
            height, width = rows, max(1, round(rows * self.width / self.height))
        else:
            height, width = max(1, round(columns * self.height / self.width)), columns
        return (rows - height) // 2, (columns - width) // 2, height, width

    def to_input(self, points: NDArray[np.floating]) -> NDArray[np.floating]:
        """Map (..., 2) points (x, y) from pixels of the image to fractions of width and height of the input."""
        top, left, height, width = self.inner
        scale = np.array([width / self.width, height / self.height])
        return np.asarray((points * scale + np.array([left, top])) / self.shape[::-1])

    def crop(self, fitted: TargetArray) -> TargetArray:
        """Return a view of (..., height, width) of an input without the padding."""
        top, left, height, width = self.inner
        return fitted[..., top : top + height, left : left + width]


def fit_image(pixels: Pixels, settings: ImageSettings) -> Pixels:
    """Fit (height, width) grey or (height, width, C) into an input, (*settings.shape, channels).

    Applies `datasets.settings.PrepareSettings` first. Downsamples by area averaging, upsamples linearly. RGB is
    converted to grey by luma (ITU-R BT.601); grey is repeated for RGB. Raises `DataError` for any other number of
    channels than that of the input.
    """
    pixels = _enhanced(pixels, settings)
    fit = Fit.of(settings, pixels.shape[0], pixels.shape[1])
    top, left, height, width = fit.inner
    shrinks = height < fit.height or width < fit.width
    fitted = np.zeros((*settings.shape, settings.channels), dtype=np.uint8)
    inner = resized(pixels, height, width, shrinks=shrinks)
    fitted[top : top + height, left : left + width] = inner.reshape(height, width, -1)
    return fitted


def scale_factors(settings: ImageSettings, spacing: Sequence[float]) -> tuple[float, float]:
    """Return the factors by which height and width of an image are multiplied.

    Args:
        settings: With `scale`, or `spacing` in mm.
        spacing: Size of a pixel in mm, of which the last two numbers are height and width; empty if it is unknown.

    Raises:
        DataError: `ImageSettings.spacing` is set and the spacing of the image unknown.
    """
    if settings.spacing is None:
        return settings.scale, settings.scale
    if not spacing:
        raise DataError(
            f"image.spacing is {settings.spacing:g} mm, but the image states no size of its pixels; allowed: NIfTI "
            "files, DICOM files with PixelSpacing, TIFF files of nnU-Net with a JSON file; use image.scale"
        )
    return spacing[-2] / settings.spacing, spacing[-1] / settings.spacing


def scaled_shape(shape: tuple[int, int], settings: ImageSettings, spacing: Sequence[float] = ()) -> tuple[int, int]:
    """Return height and width of an image after scaling by `scale_factors`."""
    height, width = (max(1, round(side * by)) for side, by in zip(shape, scale_factors(settings, spacing), strict=True))
    return height, width


def scaled_image(pixels: Pixels, settings: ImageSettings, spacing: Sequence[float] = ()) -> Pixels:
    """Convert (height, width) grey or (height, width, C) to (height, width, channels) and scale it.

    Prepares and converts as `fit_image` does, with the same errors; `spacing` as in `scale_factors`.
    """
    pixels = _enhanced(pixels, settings)
    height, width = scaled_shape((pixels.shape[0], pixels.shape[1]), settings, spacing)
    if pixels.shape[:2] != (height, width):
        pixels = resized(pixels, height, width, shrinks=min(scale_factors(settings, spacing)) < 1)
    return np.broadcast_to(pixels.reshape(height, width, -1), (height, width, settings.channels), subok=True)


def scaled_masks(masks: Pixels, settings: ImageSettings, spacing: Sequence[float] = ()) -> Pixels:
    """Scale (height, width) ids or (classes, height, width) of 0/1 by nearest neighbour, as `fit_masks` does."""
    height, width = scaled_shape((masks.shape[-2], masks.shape[-1]), settings, spacing)
    return masks if masks.shape[-2:] == (height, width) else sampled(masks, height, width)


def _enhanced(pixels: Pixels, settings: ImageSettings) -> Pixels:
    """Convert RGB to grey for one channel, and apply `datasets.settings.PrepareSettings`."""
    check_channels(pixels, settings, "the image")
    return enhance(luma(pixels) if settings.channels == 1 else pixels, settings.prepare)


def check_channels(pixels: Pixels, settings: ImageSettings, name: str) -> None:
    """Raise `DataError` for images that cannot become inputs because of their number of channels."""
    given, channels = channels_of(pixels), settings.channels
    if not is_convertible(given, channels):
        allowed = "1 or 3" if channels in (1, 3) else str(channels)
        message = f"{name} has {given} channel{'s' if given > 1 else ''}; allowed: {allowed}, as image.channels is"
        raise DataError(f"{message} {channels}; use other images, or another image.channels")


def is_convertible(given: int, channels: int) -> bool:
    """Return whether images with `given` channels can be inputs of `channels`: only grey and RGB are converted."""
    return given == channels or {given, channels} == {1, 3}


def fit_masks(masks: Pixels, settings: ImageSettings) -> Pixels:
    """Fit (height, width) ids or (classes, height, width) of 0/1 into the input; `IGNORE` is treated as any other id.

    Nearest neighbour by pixel centres (OpenCV's INTER_NEAREST_EXACT, the same pixels as Pillow's NEAREST). Padding is
    background, but `IGNORE` in classes that are not annotated.
    """
    fit = Fit.of(settings, masks.shape[-2], masks.shape[-1])
    _, _, height, width = fit.inner
    planes = masks.reshape(-1, fit.height, fit.width)
    fitted = np.zeros((len(planes), *settings.shape), dtype=np.uint8)
    for plane, place in zip(planes, fit.crop(fitted), strict=True):
        place[:] = sampled(plane, height, width)
    fitted = fitted.reshape(*masks.shape[:-2], *settings.shape)
    keep_unannotated(masks, fitted)
    return fitted


def keep_unannotated(masks: Pixels, moved: Pixels) -> None:
    """Set the classes of moved or resized masks to `IGNORE` that are not annotated in the original masks.

    Args:
        masks: (classes, height, width) of overlapping classes; nothing is changed in masks of ids, (height, width).
        moved: The masks (classes, height, width) after a transform that may have moved background in.
    """
    if masks.ndim == 3:
        for plane, moved_plane in zip(masks, moved, strict=True):
            if is_unannotated(plane):
                moved_plane[...] = IGNORE


def is_unannotated(plane: Pixels) -> bool:
    """Return whether all pixels of a class are `IGNORE`."""
    # A glance at the first pixel spares most planes, of which one may be large.
    return (
        plane.size > 0
        and bool(plane[0, 0] == IGNORE)
        and all((plane[rows] == IGNORE).all() for rows in row_bands(*plane.shape))
    )


def target_layout(index: Index, target: Target, shape: tuple[int, int]) -> tuple[tuple[int, ...], type[np.generic]]:
    """Return shape and dtype of the target of one image, whose input has `shape` (height, width).

    labels (L,), centre (2,) and box (4,) are float32, NaN if unknown. mask is uint8: (height, width) of class ids, or
    (K, height, width) of 0/1 if classes overlap, `IGNORE` where pixels are not annotated; box_mask is uint8
    (K, height, width) of 0/1.
    """
    if target == "labels":
        return (len(index.labels),), np.float32
    if target in ("centre", "box"):
        return (2 if target == "centre" else 4,), np.float32
    if target == "mask" and not index.overlapping:
        return shape, np.uint8
    return (len(names(index, target)), *shape), np.uint8


def centre_target(centres: Mapping[str, tuple[float, float]], structure: str, fit: Fit) -> NDArray[np.float32]:
    """Return (x, y) as fractions of the input, NaN if the structure has no centre."""
    return fit.to_input(np.array(centres.get(structure, (np.nan, np.nan)))).astype(np.float32)


def box_target(boxes: Sequence[Box], structure: str, fit: Fit) -> NDArray[np.float32]:
    """Return (x, y, width, height) as fractions of the input, (x, y) the upper left corner; NaN without a box.

    Boxes are clipped to the image; several boxes of one structure are merged into their enclosing box.
    """
    corners = [clipped_corners(box, fit) for box in boxes if box.name == structure]
    if not corners:
        return np.full(4, np.nan, dtype=np.float32)
    low, high = np.min(corners, axis=(0, 1)), np.max(corners, axis=(0, 1))
    return np.concatenate([low, high - low]).astype(np.float32)


def box_masks(boxes: Sequence[Box], structures: Sequence[str], fit: Fit) -> Pixels:
    """Return (structures, height, width) of 0/1: pixels with their centre in a box, at least one pixel per box.

    Boxes of one structure are merged.
    """
    filled = np.zeros((len(structures), *fit.shape), dtype=np.uint8)
    limits = np.array(fit.shape[::-1])
    for box in boxes:
        first, last = np.ceil(clipped_corners(box, fit) * limits - 0.5).astype(int)
        first = np.minimum(first, limits - 1)
        (left, top), (right, bottom) = first, np.maximum(last, first + 1)
        filled[structures.index(box.name), top:bottom, left:right] = 1
    return filled


def clipped_corners(box: Box, fit: Fit) -> NDArray[np.floating]:
    """Return the upper left and lower right corner as fractions of the input, clipped to the image."""
    corners = np.array([[box.x, box.y], [box.x + box.width, box.y + box.height]])
    return fit.to_input(np.clip(corners, 0, [fit.width, fit.height]))
