"""Random augmentation of training images, determined by a key. Only this module imports albumentations."""

import math
import os
import random
from hashlib import blake2b
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from datasets.settings import AugmentSettings
from datasets.source import Pixels
from datasets.targets import Target, TargetArray

# Keeps the import from checking for a newer version online.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as A
import cv2
from albumentations.augmentations.geometric.functional import keypoints_affine

cv2.setNumThreads(0)

ELASTIC_SIGMA: Final = 0.08
"""Standard deviation of the smoothing filter, as a fraction of the shorter side."""
POINTS: Final = ("centre", "box")
BORDERS: Final = {"constant": cv2.BORDER_CONSTANT, "reflect": cv2.BORDER_REFLECT_101}
OPENCV_CHANNELS: Final = 4
"""Maximum number of channels that OpenCV moves at once."""
PIXEL_CENTRE: Final = 0.5
"""In albumentations the origin is the centre of the first pixel, in targets its corner."""


class Augmenter:
    """Augments a training image of `shape` (height, width) and its target. Not thread-safe.

    Masks are transformed with nearest-neighbour interpolation; centres and boxes are transformed as points and
    clipped to the image; labels are unchanged.
    """

    def __init__(self, settings: AugmentSettings, target: Target, shape: tuple[int, int]) -> None:
        geometric, photometric = _geometric_transforms(settings, shape), _photometric_transforms(settings)
        self._moved_target = target if geometric else "image"
        points = A.KeypointParams(format="xy", remove_invisible=False) if self._moved_target in POINTS else None
        # Images and masks of `Batches` have the same size.
        self._pipeline = (
            A.Compose([*geometric, *photometric], keypoint_params=points, is_check_shapes=False)
            if geometric or photometric
            else None
        )
        # One generator for all transforms: seeding would give each transform the same random stream, and is slower.
        self._bit_generator, self._random = np.random.Philox(key=0), random.Random()
        self._initial_state = self._bit_generator.state
        if self._pipeline is not None:
            self._pipeline.set_random_state(np.random.Generator(self._bit_generator), self._random)

    @property
    def active(self) -> bool:
        """Whether any transform is enabled."""
        return self._pipeline is not None

    def __call__(
        self, image: Pixels, target: TargetArray | None, key: tuple[int, ...]
    ) -> tuple[Pixels, TargetArray | None]:
        """Augment an image (height, width, channels) and its target; equal keys give equal results in any process."""
        if self._pipeline is None:
            return image, target
        self._seed(key)
        if target is None or self._moved_target in ("image", "labels"):
            return self._pipeline(image=image)["image"], target
        if self._moved_target not in POINTS:
            name = "mask" if target.ndim == 2 else "masks"
            changed = self._pipeline(image=image, **{name: target})
            return changed["image"], changed[name]
        if np.isnan(target).any():
            return self._pipeline(image=image)["image"], target
        sides = np.array(image.shape[1::-1])
        changed = self._pipeline(image=image, keypoints=_corners(target) * sides - PIXEL_CENTRE)
        moved = (np.asarray(changed["keypoints"]) + PIXEL_CENTRE) / sides
        return changed["image"], _from_corners(np.clip(moved, 0, 1), target.shape[0])

    def _seed(self, key: tuple[int, ...]) -> None:
        digest = blake2b(" ".join(map(str, key)).encode(), digest_size=16).digest()
        # Equivalent to `Philox(key=int.from_bytes(digest))` but ten times as fast.
        self._initial_state["state"]["key"] = np.frombuffer(digest, ">u8")[::-1].astype(np.uint64)
        self._bit_generator.state = self._initial_state
        self._random.seed(digest)


def _geometric_transforms(settings: AugmentSettings, shape: tuple[int, int]) -> list[Any]:
    height, width = shape
    transforms: list[Any] = []
    if settings.flip:
        transforms.append(A.HorizontalFlip(p=settings.flip))
    if settings.vertical_flip:
        transforms.append(A.VerticalFlip(p=settings.vertical_flip))
    if settings.rotate or settings.scale or settings.shift or settings.shear:
        transforms.append(
            _Affine(
                rotate=(-settings.rotate, settings.rotate),
                scale=(1 - settings.scale, 1 + settings.scale),
                translate_percent=(-settings.shift, settings.shift),
                shear=(-settings.shear, settings.shear),
                keep_ratio=True,
                interpolation=cv2.INTER_LINEAR,
                mask_interpolation=cv2.INTER_NEAREST,
                border_mode=BORDERS[settings.border],
                p=1,
            )
        )
    low, high = settings.crop_range
    if high:
        areas = (1 - high) ** 2, (1 - low) ** 2  # albumentations counts the area
        transforms.append(
            A.RandomResizedCrop(
                shape,
                scale=areas,
                ratio=(width / height, width / height),
                mask_interpolation=cv2.INTER_NEAREST_EXACT,
                p=1,
            )
        )
    if settings.elastic:
        side = min(shape)
        transforms.append(_elastic(settings.elastic * side, side, BORDERS[settings.border]))
    return transforms


class _Affine(A.Affine):  # type: ignore[misc]
    """Skips the comparison with the identity for each plane, which takes as long as the transform; same output."""

    def apply(self, img: Pixels, matrix: NDArray[np.float64], **params: object) -> Pixels:
        """Move an image (height, width, channels)."""
        return self._moved(img, matrix, self.interpolation)

    def apply_to_mask(self, mask: NDArray[Any], matrix: NDArray[np.float64], **params: object) -> NDArray[Any]:
        """Move a mask (height, width)."""
        return self._moved(mask, matrix, self.mask_interpolation)

    def apply_to_keypoints(
        self, keypoints: NDArray[Any], matrix: NDArray[np.float64], scale: dict[str, float],
        *, shape: tuple[int, ...], **params: object,
    ) -> NDArray[Any]:  # fmt: skip
        """Move points as with constant borders: with reflected ones albumentations returns their reflections too."""
        moved: NDArray[Any] = keypoints_affine(keypoints, matrix, shape, scale, cv2.BORDER_CONSTANT)
        return moved

    def _moved(self, pixels: NDArray[Any], matrix: NDArray[np.float64], interpolation: int) -> NDArray[Any]:
        height, width = pixels.shape[:2]

        def moved(part: NDArray[Any]) -> NDArray[Any]:
            warped = cv2.warpAffine(part, matrix[:2], (width, height), flags=interpolation, borderMode=self.border_mode)
            return warped.reshape(part.shape)  # OpenCV drops a single channel

        if pixels.ndim == 2 or pixels.shape[2] <= OPENCV_CHANNELS:
            return moved(pixels)
        firsts = range(0, pixels.shape[2], OPENCV_CHANNELS)
        return np.concatenate([moved(pixels[..., first : first + OPENCV_CHANNELS]) for first in firsts], axis=2)


def _elastic(reach: float, side: int, border_mode: int) -> Any:  # noqa: ANN401 - albumentations has no types
    """Return an elastic transform with a maximum displacement of about `reach` pixels.

    Smoothing uniform noise of -1..1 with a deviation of sigma pixels gives a standard deviation of
    1 / (sqrt(3) x 2 sqrt(pi) sigma); three times that is taken as the maximum.
    """
    sigma = ELASTIC_SIGMA * side
    largest_noise = 3 / (math.sqrt(3) * 2 * math.sqrt(math.pi) * sigma)
    return _Elastic(
        alpha=reach / largest_noise, sigma=sigma, interpolation=cv2.INTER_LINEAR, mask_interpolation=cv2.INTER_NEAREST,
        border_mode=border_mode, p=1,
    )  # fmt: skip


class _Elastic(A.ElasticTransform):  # type: ignore[misc]
    """Elastic transform with uniform strength: albumentations' is much stronger at the border and drops keypoints."""

    def get_params_dependent_on_data(self, params: dict[str, Any], data: object) -> dict[str, Any]:
        """Return the sampling maps (height, width) of x and of y."""
        height, width = params["shape"][:2]
        margin = round(3 * self.sigma)
        noise = self.random_generator.random((height + 2 * margin, width + 2 * margin, 2), dtype=np.float32)
        field = cv2.GaussianBlur(noise, (0, 0), self.sigma)[margin:-margin, margin:-margin]
        field = self.alpha * (2 * field - 1)
        rows, columns = np.indices((height, width), dtype=np.float32)
        return {"map_x": columns + field[..., 0], "map_y": rows + field[..., 1]}

    def apply_to_keypoints(
        self, keypoints: NDArray[Any], map_x: NDArray[Any], map_y: NDArray[Any], **params: object
    ) -> NDArray[Any]:
        """Move each point to the pixel sampled nearest to it, plus the remaining offset."""
        moved = keypoints.copy()
        for point in moved:
            x, y = point[:2]
            row, column = np.unravel_index(np.argmin((map_x - x) ** 2 + (map_y - y) ** 2), map_x.shape)
            point[:2] = column + x - map_x[row, column], row + y - map_y[row, column]
        return moved


def _photometric_transforms(settings: AugmentSettings) -> list[Any]:
    transforms: list[Any] = []
    if settings.brightness or settings.contrast:
        transforms.append(
            A.RandomBrightnessContrast(brightness_limit=settings.brightness, contrast_limit=settings.contrast, p=1)
        )
    if settings.gamma:
        transforms.append(A.RandomGamma((100 * (1 - settings.gamma), 100 * (1 + settings.gamma)), p=1))
    if settings.noise:
        transforms.append(A.GaussNoise(std_range=(settings.noise, settings.noise), per_channel=False, p=1))
    return transforms


def _corners(target: TargetArray) -> NDArray[np.float64]:
    """Return the points of a target: one for a centre, four corners for a box."""
    if target.shape == (2,):
        return target.astype(np.float64)[None]
    x, y, width, height = target.astype(np.float64)
    return np.array([[x, y], [x + width, y], [x, y + height], [x + width, y + height]])


def _from_corners(points: NDArray[np.float64], numbers: int) -> NDArray[np.float32]:
    """Return a centre, or the bounding box of the points."""
    low, high = points.min(axis=0), points.max(axis=0)
    return (low if numbers == 2 else np.concatenate([low, high - low])).astype(np.float32)
