"""Random transforms that change the values of an image and move nothing."""

import math
from typing import Any, Final

import albumentations as A
import cv2
import numpy as np
from numpy.typing import NDArray

from datasets.augment_settings import AugmentSettings
from datasets.resampling import in_parts
from datasets.source import Pixels

LUMA: Final = np.array([0.299, 0.587, 0.114])
"""Weights of red, green and blue in grey (ITU-R BT.601)."""
SHARPNESS_SIGMA: Final = 1.0
"""Standard deviation of the filter of the unsharp mask in pixels."""
DROPOUT_SQUARES: Final = 8
"""Number of squares of `dropout` along the shorter side."""


def photometric_transforms(settings: AugmentSettings) -> list[Any]:
    """Return the enabled transforms in the order in which they are applied."""
    transforms: list[Any] = []
    if settings.hue or settings.saturation:
        transforms.append(_Colour(settings.hue, settings.saturation))
    if settings.brightness or settings.contrast:
        transforms.append(
            A.RandomBrightnessContrast(brightness_limit=settings.brightness, contrast_limit=settings.contrast, p=1)
        )
    if settings.gamma:
        transforms.append(A.RandomGamma((100 * (1 - settings.gamma), 100 * (1 + settings.gamma)), p=1))
    if settings.blur:
        transforms.append(_Blur(settings.blur))
    if settings.sharpness:
        transforms.append(_Sharpness(settings.sharpness))
    if settings.low_resolution > 1:
        transforms.append(_LowResolution(settings.low_resolution))
    if settings.noise:
        transforms.append(_Noise(std_range=(settings.noise, settings.noise), per_channel=False, p=1))
    if settings.dropout:
        transforms.append(_Dropout(settings.dropout))
    return transforms


class _Colour(A.ImageOnlyTransform):  # type: ignore[misc]
    """Changes hue and saturation of RGB images, both as one matrix; other numbers of channels are left unchanged."""

    def __init__(self, hue: float, saturation: float) -> None:
        super().__init__(p=1)
        self._hue, self._saturation = hue, saturation

    def get_params(self) -> dict[str, Any]:
        """Return the angle of the rotation, and the factor of the distance from grey."""
        turn = self.py_random.uniform(-self._hue, self._hue)
        return {"angle": 2 * math.pi * turn, "factor": 1 + self.py_random.uniform(-self._saturation, self._saturation)}

    def apply(self, img: Pixels, angle: float, factor: float, **params: object) -> Pixels:
        """Change an image (height, width, channels)."""
        return cv2.transform(img, colour_matrix(angle, factor)).astype(np.uint8) if img.shape[2] == 3 else img


def colour_matrix(angle: float, factor: float) -> NDArray[np.float32]:
    """Return the matrix (3, 3) that rotates RGB values about the grey axis, then scales their distance from grey.

    The rotation keeps the mean of the channels; the scaling keeps luma. Grey stays as it is.
    """
    cosine, sine = math.cos(angle), math.sin(angle)
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    rotation = cosine * np.eye(3) + (1 - cosine) / 3 + sine * cross
    scaling = factor * np.eye(3) + (1 - factor) * LUMA
    return (scaling @ rotation).astype(np.float32)


class _UpToMaximum(A.ImageOnlyTransform):  # type: ignore[misc]
    """A transform with a random strength up to `maximum`."""

    def __init__(self, maximum: float) -> None:
        super().__init__(p=1)
        self._maximum = maximum


class _Blur(_UpToMaximum):
    """Gaussian filter with a standard deviation of up to `maximum` pixels."""

    def get_params(self) -> dict[str, Any]:
        """Return the standard deviation."""
        return {"sigma": self.py_random.uniform(0, self._maximum)}

    def apply(self, img: Pixels, sigma: float, **params: object) -> Pixels:
        """Change an image (height, width, channels)."""
        return _filtered(img, sigma)


class _Sharpness(_UpToMaximum):
    """Unsharp mask: adds up to `maximum` times the difference from the filtered image."""

    def get_params(self) -> dict[str, Any]:
        """Return the factor of the difference."""
        return {"factor": self.py_random.uniform(0, self._maximum)}

    def apply(self, img: Pixels, factor: float, **params: object) -> Pixels:
        """Change an image (height, width, channels)."""
        filtered = _filtered(img, SHARPNESS_SIGMA)
        return cv2.addWeighted(img, 1 + factor, filtered, -factor, 0).reshape(img.shape).astype(np.uint8, copy=False)


class _LowResolution(_UpToMaximum):
    """Reduces an image by a factor of up to `maximum` and enlarges it again by cubic interpolation."""

    def get_params(self) -> dict[str, Any]:
        """Return the factor."""
        return {"factor": self.py_random.uniform(1, self._maximum)}

    def apply(self, img: Pixels, factor: float, **params: object) -> Pixels:
        """Change an image (height, width, channels)."""
        height, width = img.shape[:2]
        small = (max(1, round(width / factor)), max(1, round(height / factor)))
        # Up to a factor of 2 linear interpolation uses every pixel, and is several times as fast as averaging.
        reduction = cv2.INTER_LINEAR if factor <= 2 else cv2.INTER_AREA

        def reduced(part: Pixels) -> NDArray[Any]:
            return cv2.resize(
                cv2.resize(part, small, interpolation=reduction), (width, height), interpolation=cv2.INTER_CUBIC
            )

        return in_parts(img, reduced)


class _Noise(A.GaussNoise):  # type: ignore[misc]
    """Gaussian noise, equal in all channels and rounded towards 0, added in integers; same output, but faster."""

    def apply(self, img: Pixels, noise_map: NDArray[np.float32], **params: object) -> Pixels:
        """Change an image (height, width, channels)."""
        noise = noise_map[..., 0].astype(np.int16)
        repeated = noise if img.shape[2] == 1 else cv2.merge([noise] * img.shape[2])
        return cv2.add(img, repeated, dtype=cv2.CV_8U).reshape(img.shape).astype(np.uint8, copy=False)


class _Dropout(_UpToMaximum):
    """Fills random squares of a grid with the mean of the image, on average a share of up to `maximum` of it.

    The position of the grid is random too, so that each pixel is hidden with the same probability. Masks stay: the
    network has to infer what is hidden from its surroundings.
    """

    def get_params_dependent_on_data(self, params: dict[str, Any], data: object) -> dict[str, Any]:
        """Return which pixels (height, width) are hidden."""
        height, width = params["shape"][:2]
        share = self.py_random.uniform(0, self._maximum)
        side = max(1, round(min(height, width) / DROPOUT_SQUARES))
        top, left = self.py_random.randrange(side), self.py_random.randrange(side)
        squares = self.random_generator.random((height // side + 2, width // side + 2)) < share
        pixels = squares.repeat(side, axis=0).repeat(side, axis=1)
        return {"hidden": pixels[top : top + height, left : left + width]}

    def apply(self, img: Pixels, hidden: NDArray[np.bool_], **params: object) -> Pixels:
        """Change an image (height, width, channels)."""
        mean = cv2.reduce(cv2.reduce(img, 0, cv2.REDUCE_AVG, dtype=cv2.CV_32F), 1, cv2.REDUCE_AVG)
        filled = np.broadcast_to(np.rint(mean).astype(np.uint8).reshape(img.shape[2]), img.shape)
        changed = img.copy()
        cv2.copyTo(filled.copy(), hidden.astype(np.uint8), changed)
        return changed


def _filtered(img: Pixels, sigma: float) -> Pixels:
    """Apply a Gaussian filter to an image (height, width, channels)."""
    return in_parts(img, lambda part: cv2.GaussianBlur(part, (0, 0), sigma))
