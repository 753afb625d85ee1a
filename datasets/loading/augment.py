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
PIXEL_CENTRE: Final = 0.5
"""In albumentations the origin is the centre of the first pixel, in targets its corner."""


class Augmenter:
    """Augments a training image of `shape` (height, width) and its target. Not thread-safe.

    Masks are transformed with nearest-neighbour interpolation, and what is moved in from outside of the image is
    background, except for overlapping classes that are not annotated; centres and boxes are transformed as points and
    clipped to the image; labels are unchanged.
    """

    def __init__(self, settings: AugmentSettings, target: Target, shape: tuple[int, int]) -> None:
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
            name = "mask" if target.ndim == 2 else "masks"
            changed = self._pipeline(image=image, **{name: target})
            keep_unannotated(target, changed[name])
            return changed["image"], changed[name]
        if np.isnan(target).any():
            return self._pipeline(image=image)["image"], target
        sides = np.array(image.shape[1::-1], np.float32)
        changed = self._pipeline(image=image, keypoints=_corners(target) * sides - PIXEL_CENTRE)
        moved = (np.asarray(changed["keypoints"]) + PIXEL_CENTRE) / sides
        return changed["image"], _from_corners(np.clip(moved, 0, 1), target.shape[0])

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
