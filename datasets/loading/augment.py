"""Random augmentation of training images, determined by a key."""

import random
from hashlib import blake2b
from typing import Final

import albumentations as A
import cv2
import numpy as np
from numpy.typing import NDArray

from datasets.augment_settings import AugmentSettings
from datasets.loading.transforms.geometric import geometric_transforms
from datasets.loading.transforms.photometric import photometric_transforms
from datasets.source import Pixels
from datasets.targets import Target, TargetArray, keep_unannotated

cv2.setNumThreads(0)

POINTS: Final = ("centre", "box")
QUADRILATERALS: Final = 3
"""Dimensions of a target of quadrilaterals (n, 4, 2), in place of one box."""
PIXEL_CENTRE: Final = 0.5
"""In albumentations the origin is the centre of the first pixel, in targets its corner."""


class Augmenter:
    """Augments a training image of `shape` (height, width) and its target. Not thread-safe.

    Masks are transformed with nearest-neighbour interpolation, and what is moved in from outside of the image has the
    value `outside`, but `IGNORE` in overlapping classes that are not annotated; centres and boxes are transformed as
    points and clipped to the image, quadrilaterals in place of a box as points; labels are unchanged.
    """

    def __init__(self, settings: AugmentSettings, target: Target, shape: tuple[int, int], *, outside: int = 0) -> None:
        self._outside = np.uint8(outside)
        geometric, photometric = geometric_transforms(settings, shape), photometric_transforms(settings)
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
            return self._with_masks(image, target)
        if target.ndim == QUADRILATERALS:
            return self._with_quadrilaterals(image, target)
        if np.isnan(target).any():
            return self._pipeline(image=image)["image"], target
        sides = np.array(image.shape[1::-1], np.float32)
        image, moved = self._with_points(image, _corners(target) * sides)
        return image, _from_corners(np.clip(moved / sides, 0, 1), target.shape[0])

    def _with_masks(self, image: Pixels, masks: TargetArray) -> tuple[Pixels, TargetArray]:
        """Augment an image and its masks (height, width) or (classes, height, width)."""
        assert self._pipeline is not None, "only an active pipeline is called"
        name = "mask" if masks.ndim == 2 else "masks"
        # The transforms fill with 0, so that 0 stands for the value outside of the image, modulo 256.
        changed = self._pipeline(image=image, **{name: masks - self._outside if self._outside else masks})
        moved = changed[name] + self._outside if self._outside else changed[name]
        keep_unannotated(masks, moved)
        return changed["image"], moved

    def _with_quadrilaterals(self, image: Pixels, target: TargetArray) -> tuple[Pixels, TargetArray]:
        """Augment an image and move the corners of quadrilaterals (n, 4, 2), also out of the image; NaN stays."""
        sides = np.array(image.shape[1::-1], np.float32)
        known = ~np.isnan(target).any(axis=(1, 2))
        image, points = self._with_points(image, target[known].reshape(-1, 2).astype(np.float64) * sides)
        moved = target.copy()
        moved[known] = (points / sides).reshape(-1, 4, 2)
        return image, moved

    def _with_points(self, image: Pixels, points: NDArray[np.floating]) -> tuple[Pixels, NDArray[np.float64]]:
        """Augment an image, and move points (n, 2) that are given in pixels from its corner."""
        assert self._pipeline is not None, "only an active pipeline is called"
        changed = self._pipeline(image=image, keypoints=points - PIXEL_CENTRE)
        return changed["image"], np.asarray(changed["keypoints"], np.float64).reshape(-1, 2) + PIXEL_CENTRE

    def _seed(self, key: tuple[int, ...]) -> None:
        digest = blake2b(" ".join(map(str, key)).encode(), digest_size=16).digest()
        # Equivalent to `Philox(key=int.from_bytes(digest))` but ten times as fast.
        self._initial_state["state"]["key"] = np.frombuffer(digest, ">u8")[::-1].astype(np.uint64)
        self._bit_generator.state = self._initial_state
        self._random.seed(digest)


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
