"""Mix pairs of training examples with masks: CutMix and copy-paste."""

import math
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from datasets.keyed_random import generator_of
from datasets.loading.examples import Example, Examples, Positions
from datasets.source import IGNORE, Pixels
from datasets.targets import TargetArray

PASTED: Final = 0.5
"""Probability that a region of the partner is pasted."""


class MixedExamples(Examples):
    """Examples that are mixed with others of the same epoch, image and mask alike.

    A pixel that is taken from the partner brings its whole annotation: its id, or its value in every overlapping
    class; a pixel without a label stays without one. Both examples are augmented before, as the partner is in its own
    place in the epoch. Whether, with which example and where an example is mixed depends on its key and nothing else.

    Args:
        examples: The examples, with masks (n, height, width) of ids or (n, classes, height, width) of 0, 1, `IGNORE`.
        cutmix: Probability that a rectangle of another example replaces the same part of an example. Its area is
            uniform between none and all of the image (Yun et al. 2019), and it lies inside the image with the
            proportions of the image (French et al. 2020 place it so, too).
        copy_paste: Probability that objects of another example replace what is at their place (Ghiasi et al. 2021,
            without jitter of scale and blending of edges). An object is a connected region of a class; each is pasted
            with the probability `PASTED`, at least one of them.
    """

    def __init__(self, examples: Examples, *, cutmix: float, copy_paste: float) -> None:
        self._examples, self._cutmix, self._copy_paste = examples, cutmix, copy_paste

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self._examples)

    def read(self, positions: Positions) -> Example:
        """Return the examples, unchanged."""
        return self._examples.read(positions)

    def draw(self, positions: Positions, key: tuple[int, int], view: int = 0) -> Example:
        """Return random versions of the examples, some of them mixed."""
        images, masks = self._examples.draw(positions, key, view)
        assert masks is not None, "only labelled examples are mixed"
        for number, position in enumerate(positions.tolist()):
            self._mix(images[number], masks[number], position, key, view)
        return images, masks

    def _mix(self, image: Pixels, mask: TargetArray, position: int, key: tuple[int, int], view: int) -> None:
        """Mix one example in place."""
        random = generator_of("mix", *key, position)
        for probability, taken in ((self._copy_paste, _objects), (self._cutmix, _rectangle)):
            # A partner is drawn in any case, so that one probability does not change what the other one does.
            partner, is_mixed = partner_of(position, len(self), random), random.random() < probability
            if is_mixed and partner != position:
                images, masks = self._examples.draw(np.array([partner]), key, view)
                assert masks is not None, "only labelled examples are mixed"
                pixels = taken(masks[0], random)
                cv2.copyTo(images[0], pixels.view(np.uint8), image)  # as np.copyto, but many times as fast
                np.copyto(mask, masks[0], where=pixels)


def partner_of(position: int, examples: int, random: np.random.Generator) -> int:
    """Return the position of another one of some number of examples; the same position if there is no other."""
    return (position + 1 + int(random.integers(max(examples - 1, 1)))) % examples


def _rectangle(mask: TargetArray, random: np.random.Generator) -> NDArray[np.bool_]:
    """Return the pixels (height, width) of a random rectangle.

    Its area is uniform between none and all of the image, and it has the proportions of the image.
    """
    ratio = math.sqrt(random.random())
    return rectangle(mask.shape[-2:], (ratio, ratio), random)


def rectangle(shape: tuple[int, ...], shares: tuple[float, float], random: np.random.Generator) -> NDArray[np.bool_]:
    """Return the pixels of a rectangle at a random place in an image (height, width), whose sides it has shares of."""
    pixels = np.zeros(shape, dtype=np.bool_)
    sides = [round(share * length) for share, length in zip(shares, shape, strict=True)]
    top, left = (int(random.integers(length - side + 1)) for length, side in zip(shape, sides, strict=True))
    pixels[top : top + sides[0], left : left + sides[1]] = True
    return pixels


def _objects(mask: TargetArray, random: np.random.Generator) -> NDArray[np.bool_]:
    """Return the pixels (height, width) of random connected regions of classes."""
    pixels = np.zeros(mask.shape[-2:], dtype=np.bool_)
    numbered = [cv2.connectedComponents(plane.astype(np.uint8)) for plane in _planes(mask)]  # 0 is the background
    regions = [count - 1 for count, _ in numbered]
    if not any(regions):
        return pixels
    pasted = random.random(sum(regions)) < PASTED
    pasted[random.integers(len(pasted))] |= not pasted.any()
    for (_, labels), of_plane in zip(numbered, np.split(pasted, np.cumsum(regions)[:-1]), strict=True):
        pixels |= np.concatenate([[False], of_plane])[labels]
    return pixels


def _planes(mask: TargetArray) -> TargetArray:
    """Return the pixels of each class, (classes, height, width)."""
    if mask.ndim == 3:
        return np.asarray(mask == 1)
    present = np.flatnonzero(np.bincount(mask.ravel(), minlength=IGNORE + 1)[:IGNORE])
    planes: TargetArray = mask == present[present > 0][:, None, None]
    return planes
