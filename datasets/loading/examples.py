"""The examples of a stage: what a position in its order of training or evaluation stands for."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from datasets.source import Pixels
from datasets.targets import TargetArray

if TYPE_CHECKING:
    from datasets.loading.augment import Augmenter

Positions = NDArray[np.int64]
Example = tuple[Pixels, TargetArray | None]
"""Images (n, height, width, channels) and their targets (n, ...)."""


class Examples(ABC):
    """Images of equal size and their targets, by position. Positions are those of a stage, not rows of the index."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of examples."""

    def rows(self, positions: Positions) -> Positions | None:
        """Return the rows of the index that are the examples, None if an example is only a part of one or random."""
        return None

    @abstractmethod
    def read(self, positions: Positions) -> Example:
        """Return copies of the examples at some positions, unchanged in every epoch."""

    @abstractmethod
    def draw(self, positions: Positions, key: tuple[int, int], view: int = 0) -> Example:
        """Return random versions of the examples for training.

        Args:
            positions: Positions of the examples.
            key: Seed of the stage and epoch; equal keys give equal results in any process.
            view: Number of the view. All views of an example show the same part of the image, augmented independently.
        """


def augmentation_key(key: tuple[int, int], position: int, view: int) -> tuple[int, ...]:
    """Return the key that determines how one view of an example is augmented."""
    return (*key, position, view) if view else (*key, position)


class WholeImages(Examples):
    """Rows of prepared arrays.

    Args:
        images: (N, height, width, channels) of all rows.
        targets: (N, ...) of all rows; None if the target is the image or there is none.
        rows: The rows of the examples.
        augmenter: Changes the examples that are drawn.
        target_rows: The row of `targets` of each example; None if they are those of the images.
    """

    def __init__(
        self,
        images: Pixels,
        targets: TargetArray | None,
        rows: Sequence[int],
        augmenter: "Augmenter | None" = None,
        *,
        target_rows: Sequence[int] | None = None,
    ) -> None:
        self._images, self._targets = images, targets
        self._rows: Positions = np.asarray(rows, dtype=np.int64)
        self._target_rows = self._rows if target_rows is None else np.asarray(target_rows, dtype=np.int64)
        self._augmenter = augmenter if augmenter is not None and augmenter.active else None

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._rows)

    def rows(self, positions: Positions) -> Positions | None:
        """Return the rows of the index unless the images are augmented."""
        return None if self._augmenter is not None else self._rows[positions]

    def read(self, positions: Positions) -> Example:
        """Return the prepared images and targets."""
        rows = self._rows[positions]
        # A view would save the copy, but torch warns of read-only arrays.
        return self._images[rows], None if self._targets is None else self._targets[self._target_rows[positions]]

    def draw(self, positions: Positions, key: tuple[int, int], view: int = 0) -> Example:
        """Return augmented images and targets. Keys are positions, so results do not depend on other rows."""
        images, targets = self.read(positions)
        if self._augmenter is None:
            return images, targets
        for number, position in enumerate(positions.tolist()):
            target = None if targets is None else targets[number]
            image, changed = self._augmenter(images[number], target, augmentation_key(key, position, view))
            images[number] = image
            if targets is not None:
                targets[number] = changed
        return images, targets
