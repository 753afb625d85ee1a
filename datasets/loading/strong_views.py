"""Weak and strong views of unlabelled examples, for tasks that compare predictions of them."""

import cv2
import numpy as np
from numpy.typing import NDArray

from datasets.keyed_random import generator_of
from datasets.loading.augment import Augmenter
from datasets.loading.examples import Example, Examples, Positions
from datasets.loading.mixing import partner_of, rectangle
from datasets.loading.views import VALIDATION_EPOCH
from datasets.source import Pixels

PASTED = 0.5
"""Share of the area of an image that a pasted rectangle has (French et al. 2020)."""


class StrongViews(Examples):
    """Views of examples without targets: images (n, views, height, width, channels).

    The first view is the weak one, the example as it is drawn. Strong views follow: the weak view, changed further. All
    of them show the same pixels.

    With `cutmix` each example has a partner, another one of them. In a strong view a rectangle may be that of the
    partner, of its strong view with the same number. It covers half of the image, at a uniform position within it; its
    height is log-uniform between half and all of that of the image (French et al. 2020). The weak view of the partner
    is then the last view, and the targets are the pasted regions (n, strong views, height, width), bool. Where nothing
    is pasted, the last view is the first one. Everything depends on the key of an example and nothing else: as in
    `datasets.loading.mixing`, a partner looks as in its own place in the epoch.

    Args:
        examples: The examples.
        augmenter: Makes strong views of weak ones; moves no pixels.
        strong: Number of strong views.
        cutmix: Probability that a rectangle is pasted, for each strong view.
    """

    def __init__(self, examples: Examples, augmenter: Augmenter, *, strong: int, cutmix: float) -> None:
        self._examples, self._augmenter = examples, augmenter
        self._strong, self._cutmix = strong, cutmix

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self._examples)

    def read(self, positions: Positions) -> Example:
        """Return the views of the examples that are the same in every epoch."""
        return self.draw(positions, (0, VALIDATION_EPOCH))

    def draw(self, positions: Positions, key: tuple[int, int], view: int = 0) -> Example:
        """Return random views of the examples, and the pasted regions, None without `cutmix`."""
        weak, _ = self._examples.draw(positions, key, view)
        if not self._cutmix:
            views = [
                self._views(image, position, key) for image, position in zip(weak, positions.tolist(), strict=True)
            ]
            return np.stack(views), None
        drawn = [
            self._mixed(image, position, key, view) for image, position in zip(weak, positions.tolist(), strict=True)
        ]
        return np.stack([views for views, _ in drawn]), np.stack([regions for _, regions in drawn])

    def _views(self, weak: Pixels, position: int, key: tuple[int, int]) -> Pixels:
        """Return the weak view and the strong ones."""
        return np.stack([weak, *(self._strong_view(weak, position, key, number) for number in range(self._strong))])

    def _strong_view(self, weak: Pixels, position: int, key: tuple[int, int], number: int) -> Pixels:
        # No key of `augmentation_key` has a 0 after the position.
        strong, _ = self._augmenter(weak, None, (*key, position, 0, number))
        return strong

    def _mixed(self, weak: Pixels, position: int, key: tuple[int, int], view: int) -> tuple[Pixels, NDArray[np.bool_]]:
        """Return the views with pasted regions and the weak view of the partner, and the regions."""
        random = generator_of("paste", *key, position)
        partner = partner_of(position, len(self), random)
        regions = np.stack([self._region((weak.shape[0], weak.shape[1]), random) for _ in range(self._strong)])
        regions &= partner != position
        views = self._views(weak, position, key)
        if not regions.any():
            return np.concatenate([views, weak[None]]), regions
        other = self._examples.draw(np.array([partner]), key, view)[0][0]
        for number, region in enumerate(regions):
            if region.any():
                pasted = self._strong_view(other, partner, key, number)
                cv2.copyTo(pasted, region.view(np.uint8), views[1 + number])
        return np.concatenate([views, other[None]]), regions

    def _region(self, shape: tuple[int, int], random: np.random.Generator) -> NDArray[np.bool_]:
        """Return the pasted pixels (height, width) of a strong view."""
        is_pasted, height = random.random() < self._cutmix, PASTED ** random.random()
        return rectangle(shape, (height, PASTED / height), random) & is_pasted
