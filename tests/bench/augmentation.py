"""What augmentation costs an image."""

from collections.abc import Callable, Iterator

import numpy as np

from datasets.augment import Augmenter
from datasets.settings import AugmentSettings
from tests.bench.figure import Figure, cpu_seconds

EVERYTHING = AugmentSettings(
    flip=0.5, rotate=10, scale=0.1, shift=0.05, brightness=0.2, contrast=0.2, gamma=0.2, noise=0.02
)


def augmentation(*, quick: bool) -> Iterator[Figure]:
    """Measure milliseconds an image with every change switched on and two masks that move along."""
    count = 50 if quick else 200
    for side in (64, 256):
        augment = _augment(side, count)
        augment()
        values = [1000 * cpu_seconds(augment) / count for _ in range(3 if quick else 7)]
        yield Figure(name=f"augmentation of an image, {side} px, two masks", unit="CPU ms", values=values, goal=5.0)


def _augment(side: int, count: int) -> Callable[[], None]:
    augmenter = Augmenter(EVERYTHING, "mask", 128)
    image = np.random.default_rng(0).integers(0, 256, (side, side, 1), dtype=np.uint8)
    masks = np.zeros((2, side, side), np.uint8)

    def augment() -> None:
        for number in range(count):
            augmenter(image, masks, (0, 0, number))

    return augment
