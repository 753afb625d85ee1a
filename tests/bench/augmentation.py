"""Speed of the augmentation of training images: the presets, and every setting alone."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import numpy as np

from datasets.augment_settings import PRESETS, AugmentSettings
from datasets.loading.augment import Augmenter
from datasets.loading.batches import Batches
from datasets.loading.examples import Examples, WholeImages
from datasets.loading.mixing import MixedExamples
from tests.bench.figure import Figure, cpu_seconds, interleaved

ALONE: Final[Mapping[str, Any]] = {
    "flip": 1.0, "vertical_flip": 1.0, "quarter_turns": 1.0, "rotate": 20, "scale": 0.25, "shift": 0.1, "shear": 5,
    "crop": 0.2, "elastic": 0.05, "hue": 0.03, "saturation": 0.3, "brightness": 0.2, "contrast": 0.25, "gamma": 0.3,
    "blur": 1.0, "sharpness": 1.0, "low_resolution": 2.0, "noise": 0.02, "dropout": 0.3, "cutmix": 1.0,
    "copy_paste": 1.0,
}  # fmt: skip
"""A typical value of every transform; those with a probability are always applied."""
SETS: Final[Mapping[str, Mapping[str, Any]]] = {
    "off": {}, **{name: {"preset": name} for name in PRESETS}, **{key: {key: value} for key, value in ALONE.items()}
}  # fmt: skip
SIDES, CHANNELS, BATCH = (256, 512), {"grey": 1, "RGB": 3}, 8
GOAL = 500
"""Images per second and core at 256 pixels."""


def augmentation(*, quick: bool) -> Iterator[Figure]:
    """Measure epochs of images in memory with a mask of three classes each, in seconds of one core."""
    images = 16 if quick else 64
    for side in SIDES:
        for name, channels in CHANNELS.items():
            sides = {label: _timed(AugmentSettings(**values), side, channels, images) for label, values in SETS.items()}
            for label, seconds in interleaved(sides, 3 if quick else 5).items():
                rates = [images / took for took in seconds]
                goal = GOAL if side == SIDES[0] else None
                figure = f"images a second a core, {side} px, {name}, augment {label}"
                yield Figure(name=figure, unit="1/s", values=rates, goal=goal, better="higher")


def _timed(settings: AugmentSettings, side: int, channels: int, images: int) -> Callable[[], float]:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (images, side, side, channels), dtype=np.uint8)
    masks = np.stack([_discs(random, side) for _ in range(images)])
    examples: Examples = WholeImages(pixels, masks, range(images), Augmenter(settings, "mask", (side, side)))
    if settings.cutmix or settings.copy_paste:
        examples = MixedExamples(examples, cutmix=settings.cutmix, copy_paste=settings.copy_paste)
    batches = Batches(examples, batch_size=BATCH, seed=0)
    return lambda: cpu_seconds(lambda: list(batches.epoch(0)))


def _discs(random: np.random.Generator, side: int) -> np.ndarray:
    """Return ids of three classes, two discs each."""
    rows, columns = np.indices((side, side))
    mask = np.zeros((side, side), np.uint8)
    for number, (row, column) in enumerate(random.uniform(0, side, (6, 2))):
        mask[(rows - row) ** 2 + (columns - column) ** 2 < (side / 12) ** 2] = 1 + number % 3
    return mask
