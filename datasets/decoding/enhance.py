"""Preprocessing of an image before it is resized: grey range, local contrast, gamma."""

import numpy as np

from datasets.large import by_bands, copy_into, release
from datasets.settings import PrepareSettings
from datasets.source import Pixels


def enhance(pixels: Pixels, settings: PrepareSettings) -> Pixels:
    """Return (height, width) grey, (height, width, 3) RGB or (height, width, C) after preprocessing.

    Colour images are processed in the lightness channel (L of CIE L*a*b*) only, any other channels each on its own.
    """
    if settings == PrepareSettings():
        return pixels
    if pixels.ndim == 2:
        return _grey(pixels, settings)
    if pixels.shape[2] != 3:
        planes = [_grey(np.ascontiguousarray(pixels[..., channel]), settings) for channel in range(pixels.shape[2])]
        return np.stack(planes, axis=2)
    import cv2

    lab = by_bands(lambda part: np.asarray(cv2.cvtColor(part, cv2.COLOR_RGB2LAB), np.uint8), pixels)
    lightness = np.ascontiguousarray(lab[..., 0])
    release(lab)
    copy_into(lab[..., 0], _grey(lightness, settings))
    return by_bands(lambda part: np.asarray(cv2.cvtColor(part, cv2.COLOR_LAB2RGB), np.uint8), lab)


def _grey(pixels: Pixels, settings: PrepareSettings) -> Pixels:
    if settings.normalise:
        pixels = _stretched(pixels)
    if settings.equalise is not None:
        import cv2

        tiles = (settings.equalise.tiles, settings.equalise.tiles)
        pixels = np.asarray(cv2.createCLAHE(settings.equalise.clip, tiles).apply(pixels), np.uint8)
    if settings.gamma != 1:
        curve = np.rint(255 * (np.arange(256) / 255) ** settings.gamma).astype(np.uint8)
        pixels = by_bands(lambda part: curve[part], pixels)
    return pixels


def _stretched(pixels: Pixels) -> Pixels:
    low, high = int(pixels.min()), int(pixels.max())
    if low == high:
        return pixels
    return by_bands(
        lambda part: np.rint((part.astype(np.float32) - low) * (255 / (high - low))).astype(np.uint8), pixels
    )
