"""Resize images and annotations to the square input of a network, and map results back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray

from datasets.decoding.enhance import enhance
from datasets.errors import DataError
from datasets.settings import ImageSettings
from datasets.source import AnnotationKind, Box, Index, Pixels

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


def annotation_kind_of(target: Target) -> AnnotationKind | None:
    """Return the kind of annotation that a target is derived from, None for the image itself."""
    return _ANNOTATION_KINDS[target]


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
    """The position of an image of (height, width) pixels in a square of (size, size).

    `stretch` fills the square. `letterbox` keeps the aspect ratio and pads with 0 on both sides.
    Points are continuous: (0, 0) is the upper left corner of the upper left pixel.
    """

    height: int
    width: int
    size: int
    fit: Literal["stretch", "letterbox"]

    @classmethod
    def of(cls, settings: ImageSettings, height: int, width: int) -> Self:
        """Return the fit of an image with these settings. Raises `ValueError` for patches."""
        if settings.fit == "patch":
            raise ValueError("patches are not fitted")
        return cls(height=height, width=width, size=settings.size, fit=settings.fit)

    @property
    def inner(self) -> tuple[int, int, int, int]:
        """Return top, left, height and width of the image within the square, in its pixels."""
        if self.fit == "stretch":
            return 0, 0, self.size, self.size
        longest = max(self.height, self.width)
        height = max(1, round(self.size * self.height / longest))
        width = max(1, round(self.size * self.width / longest))
        return (self.size - height) // 2, (self.size - width) // 2, height, width

    def to_square(self, points: NDArray[np.floating]) -> NDArray[np.floating]:
        """Map (..., 2) points (x, y) from pixels of the image to 0..1 of the square."""
        top, left, height, width = self.inner
        scale = np.array([width / self.width, height / self.height])
        return np.asarray((points * scale + np.array([left, top])) / self.size)

    def crop(self, square: TargetArray) -> TargetArray:
        """Return a view of (..., size, size) without the padding."""
        top, left, height, width = self.inner
        return square[..., top : top + height, left : left + width]


def fit_image(pixels: Pixels, settings: ImageSettings) -> Pixels:
    """Fit (height, width) grey or (height, width, 3) RGB into (size, size, channels).

    Applies `datasets.settings.PrepareSettings` first. Downsamples by area averaging, upsamples linearly. RGB is
    converted to grey by luma (ITU-R BT.601); grey is repeated for RGB.
    """
    import cv2

    pixels = _enhanced(pixels, settings)
    fit = Fit.of(settings, pixels.shape[0], pixels.shape[1])
    top, left, height, width = fit.inner
    shrinks = height < fit.height or width < fit.width
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    resized = cv2.resize(pixels, (width, height), interpolation=method)
    square = np.zeros((settings.size, settings.size, settings.channels), dtype=np.uint8)
    square[top : top + height, left : left + width] = resized.reshape(height, width, -1)
    return square


def scaled_shape(shape: tuple[int, int], settings: ImageSettings) -> tuple[int, int]:
    """Return height and width of an image after scaling by `ImageSettings.scale`."""
    height, width = shape
    return max(1, round(height * settings.scale)), max(1, round(width * settings.scale))


def scaled_image(pixels: Pixels, settings: ImageSettings) -> Pixels:
    """Convert (height, width) grey or (height, width, 3) RGB to (height, width, channels) and scale it.

    Prepares and converts as `fit_image` does.
    """
    import cv2

    pixels = _enhanced(pixels, settings)
    height, width = scaled_shape((pixels.shape[0], pixels.shape[1]), settings)
    if pixels.shape[:2] != (height, width):
        method = cv2.INTER_AREA if settings.scale < 1 else cv2.INTER_LINEAR
        pixels = np.asarray(cv2.resize(pixels, (width, height), interpolation=method), np.uint8)
    return np.broadcast_to(pixels.reshape(height, width, -1), (height, width, settings.channels))


def scaled_masks(masks: Pixels, settings: ImageSettings) -> Pixels:
    """Scale (height, width) ids or (classes, height, width) of 0/1 by nearest neighbour, as `fit_masks` does."""
    import cv2

    height, width = scaled_shape((masks.shape[-2], masks.shape[-1]), settings)
    if masks.shape[-2:] == (height, width):
        return masks
    planes = masks.reshape(-1, *masks.shape[-2:])
    scaled = [cv2.resize(plane, (width, height), interpolation=cv2.INTER_NEAREST_EXACT) for plane in planes]
    return np.stack(scaled).astype(np.uint8).reshape(*masks.shape[:-2], height, width)


def _enhanced(pixels: Pixels, settings: ImageSettings) -> Pixels:
    """Convert RGB to grey for one channel, and apply `datasets.settings.PrepareSettings`."""
    import cv2

    if settings.channels == 1 and pixels.ndim == 3:
        pixels = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
    return enhance(pixels, settings.prepare)


def fit_masks(masks: Pixels, settings: ImageSettings) -> Pixels:
    """Fit (height, width) ids or (classes, height, width) of 0/1 into the square; `IGNORE` is treated as any other id.

    Nearest neighbour by pixel centres (OpenCV's INTER_NEAREST_EXACT, the same pixels as Pillow's NEAREST).
    """
    import cv2

    fit = Fit.of(settings, masks.shape[-2], masks.shape[-1])
    _, _, height, width = fit.inner
    planes = masks.reshape(-1, fit.height, fit.width)
    square = np.zeros((len(planes), settings.size, settings.size), dtype=np.uint8)
    for plane, place in zip(planes, fit.crop(square), strict=True):
        place[:] = cv2.resize(plane, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    return square.reshape(*masks.shape[:-2], settings.size, settings.size)


def target_layout(index: Index, target: Target, size: int) -> tuple[tuple[int, ...], type[np.generic]]:
    """Return shape and dtype of the target of one image.

    labels (L,), centre (2,) and box (4,) are float32, NaN if unknown. mask is uint8: (S, S) of class ids or
    `IGNORE`, or (K, S, S) of 0/1 if classes overlap; box_mask is uint8 (K, S, S) of 0/1.
    """
    if target == "labels":
        return (len(index.labels),), np.float32
    if target in ("centre", "box"):
        return (2 if target == "centre" else 4,), np.float32
    if target == "mask" and not index.overlapping:
        return (size, size), np.uint8
    return (len(names(index, target)), size, size), np.uint8


def centre_target(centres: Mapping[str, tuple[float, float]], structure: str, fit: Fit) -> NDArray[np.float32]:
    """Return (x, y) in 0..1 of the square, NaN if the structure has no centre."""
    return fit.to_square(np.array(centres.get(structure, (np.nan, np.nan)))).astype(np.float32)


def box_target(boxes: Sequence[Box], structure: str, fit: Fit) -> NDArray[np.float32]:
    """Return (x, y, width, height) in 0..1 of the square, (x, y) the upper left corner; NaN without a box.

    Boxes are clipped to the image; several boxes of one structure are merged into their enclosing box.
    """
    corners = [_corners(box, fit) for box in boxes if box.name == structure]
    if not corners:
        return np.full(4, np.nan, dtype=np.float32)
    low, high = np.min(corners, axis=(0, 1)), np.max(corners, axis=(0, 1))
    return np.concatenate([low, high - low]).astype(np.float32)


def box_masks(boxes: Sequence[Box], structures: Sequence[str], fit: Fit) -> Pixels:
    """Return (structures, size, size) of 0/1: pixels with their centre in a box, at least one pixel per box.

    Boxes of one structure are merged.
    """
    filled = np.zeros((len(structures), fit.size, fit.size), dtype=np.uint8)
    for box in boxes:
        first, last = np.ceil(_corners(box, fit) * fit.size - 0.5).astype(int)
        first = np.minimum(first, fit.size - 1)
        (left, top), (right, bottom) = first, np.maximum(last, first + 1)
        filled[structures.index(box.name), top:bottom, left:right] = 1
    return filled


def _corners(box: Box, fit: Fit) -> NDArray[np.floating]:
    """Return the upper left and lower right corner in 0..1 of the square, clipped to the image."""
    corners = np.array([[box.x, box.y], [box.x + box.width, box.y + box.height]])
    return fit.to_square(np.clip(corners, 0, [fit.width, fit.height]))
