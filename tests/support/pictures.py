"""Small images with content, for generated data sets."""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from datasets.source import Pixels


def picture(seed: int, *, width: int = 64, height: int = 48) -> Pixels:
    """Return smooth random grey (height, width), different for every seed."""
    coarse = np.random.default_rng(seed).uniform(20, 235, (9, 9)).astype(np.float32)
    grown = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.rint(np.clip(grown, 0, 255)).astype(np.uint8)


def save(pixels: Pixels, path: Path, **options: int | Image.Exif) -> None:
    """Write pixels in the format of the path's suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)  # type: ignore[arg-type]


def truncate(path: Path, *, keep: float = 0.6) -> None:
    """Cut off the end of a file, like an interrupted download."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
