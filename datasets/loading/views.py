"""Several augmented views of each example, for tasks that compare them."""

from collections.abc import Sequence

import numpy as np

from datasets.loading.examples import Example, Examples, Positions

VALIDATION_EPOCH = -1
"""Stands for the epoch in the keys of views that are the same in every epoch."""


class Views(Examples):
    """Examples with several views: images (n, views, height, width, channels), and the target of the first view.

    Views that are read are augmented too, as a task cannot compare equal images, but in the same way in every epoch.

    Args:
        examples: The examples that each view is drawn from. The same positions stand for the same images in all of
            them; they may differ in how they are augmented.
        seed: Seed of the stage.
    """

    def __init__(self, examples: Sequence[Examples], *, seed: int) -> None:
        self._examples, self._seed = examples, seed

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self._examples[0])

    def read(self, positions: Positions) -> Example:
        """Return the views of the examples that are the same in every epoch."""
        return self.draw(positions, (self._seed, VALIDATION_EPOCH))

    def draw(self, positions: Positions, key: tuple[int, int], view: int = 0) -> Example:
        """Return random views of the examples, numbered from `view` on."""
        drawn = [examples.draw(positions, key, number) for number, examples in enumerate(self._examples, start=view)]
        return np.stack([images for images, _ in drawn], axis=1), drawn[0][1]
