"""Random transforms that move pixels: image, masks and points alike."""

from typing import Any, Final

import albumentations as A
import cv2
import numpy as np
from albumentations.augmentations.geometric.functional import keypoints_affine
from numpy.typing import NDArray

from datasets.augment_settings import AugmentSettings
from datasets.loading.transforms.channels import resampled
from datasets.loading.transforms.elastic import DisplacementField
from datasets.source import Pixels

BORDERS: Final = {"constant": cv2.BORDER_CONSTANT, "reflect": cv2.BORDER_REFLECT_101}


def geometric_transforms(settings: AugmentSettings, shape: tuple[int, int]) -> list[Any]:
    """Return the enabled transforms of images of `shape` (height, width), in the order in which they are applied."""
    height, width = shape
    transforms: list[Any] = []
    if settings.flip:
        transforms.append(A.HorizontalFlip(p=settings.flip))
    if settings.vertical_flip:
        transforms.append(A.VerticalFlip(p=settings.vertical_flip))
    if settings.quarter_turns:
        transforms.append(_QuarterTurn(p=settings.quarter_turns))
    low, high = settings.crop_range
    moves = settings.rotate or settings.scale or settings.shift or settings.shear
    warps_at_once = settings.elastic and not high  # a crop comes between the two
    if moves and not warps_at_once:
        transforms.append(_Affine(**_affine_arguments(settings)))
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
        field = DisplacementField(shape, settings.elastic * min(shape))
        affine = settings if warps_at_once else AugmentSettings(border=settings.border)
        transforms.append(_Warp(field, **_affine_arguments(affine)))
    return transforms


def _affine_arguments(settings: AugmentSettings) -> dict[str, Any]:
    return {
        "rotate": (-settings.rotate, settings.rotate),
        "scale": (1 - settings.scale, 1 + settings.scale),
        "translate_percent": (-settings.shift, settings.shift),
        "shear": (-settings.shear, settings.shear),
        "keep_ratio": True,
        "interpolation": cv2.INTER_LINEAR,
        "mask_interpolation": cv2.INTER_NEAREST,
        "border_mode": BORDERS[settings.border],
        "p": 1,
    }


class _QuarterTurn(A.RandomRotate90):  # type: ignore[misc]
    """Turns by 90, 180 or 270 degrees; albumentations' also draws turns by 0 degrees."""

    def get_params(self) -> dict[str, int]:
        """Return the number of quarter turns."""
        return {"factor": self.py_random.randint(1, 3)}


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
            return cv2.warpAffine(part, matrix[:2], (width, height), flags=interpolation, borderMode=self.border_mode)

        return resampled(pixels, moved)


class _Warp(A.Affine):  # type: ignore[misc]
    """An affine transform followed by an elastic one, as one interpolation.

    Pixel x of the result shows the inverse affine transform of x + displacement(x).
    """

    def __init__(self, field: DisplacementField, **affine: Any) -> None:  # noqa: ANN401 - arguments of albumentations
        super().__init__(**affine)
        self._field = field

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Return the parameters of the affine transform, and the positions (height, width) that pixels show."""
        drawn: dict[str, Any] = super().get_params_dependent_on_data(params, data)
        inverse = np.linalg.inv(drawn["matrix"])
        map_x, map_y = self._field(self.random_generator, inverse[:2])
        return drawn | {"map_x": map_x, "map_y": map_y}

    def apply(self, img: Pixels, *, map_x: NDArray[Any], map_y: NDArray[Any], **params: object) -> Pixels:
        """Move an image (height, width, channels)."""
        return self._sampled(img, map_x, map_y, self.interpolation)

    def apply_to_mask(
        self, mask: NDArray[Any], *, map_x: NDArray[Any], map_y: NDArray[Any], **params: object
    ) -> NDArray[Any]:
        """Move a mask (height, width)."""
        return self._sampled(mask, map_x, map_y, self.mask_interpolation)

    def apply_to_keypoints(
        self, keypoints: NDArray[Any], *, matrix: NDArray[np.float64], map_x: NDArray[Any], map_y: NDArray[Any],
        **params: object,
    ) -> NDArray[Any]:  # fmt: skip
        """Move each point to the pixel that shows the position nearest to it, plus the remaining offset."""
        moved = keypoints.copy()
        for point in moved:
            off_x, off_y = point[0] - map_x, point[1] - map_y
            row, column = np.unravel_index(np.argmin(off_x**2 + off_y**2), map_x.shape)
            point[:2] = matrix[:2, :2] @ [off_x[row, column], off_y[row, column]] + [column, row]
        return moved

    def _sampled(
        self, pixels: NDArray[Any], map_x: NDArray[Any], map_y: NDArray[Any], interpolation: int
    ) -> NDArray[Any]:
        def sampled(part: NDArray[Any]) -> NDArray[Any]:
            return cv2.remap(part, map_x, map_y, interpolation, borderMode=self.border_mode)

        return resampled(pixels, sampled)
