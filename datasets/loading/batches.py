"""Global batches in a seeded order, and one worker's share of each."""

import itertools
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from datasets.source import Pixels
from datasets.targets import TargetArray

if TYPE_CHECKING:
    from datasets.loading.augment import Augmenter

RowArray = NDArray[np.int64]


class RankBatch(NamedTuple):
    """One worker's images (n, S, S, channels) and targets of one part of a batch, copied from the prepared arrays.

    `size` is the number of images of the part over all workers. `counts` is False if the part has fewer images than
    there are workers and none is left for this one; its image is then padding and must not contribute.
    """

    images: Pixels
    targets: TargetArray | None
    size: int
    counts: bool


class Batches:
    """Iterates over batches of selected rows of prepared arrays.

    `batch_size` counts the images of all workers together, so training does not depend on the number of workers.
    A last batch of one image is merged into the previous one. Each training batch is divided into `parts` (gradient
    accumulation), a smaller batch into fewer, so that no part has a single image unless `batch_size` requires it.
    """

    def __init__(
        self,
        images: Pixels,
        targets: TargetArray | None,
        rows: Sequence[int],
        *,
        batch_size: int,
        seed: int,
        parts: int = 1,
        augmenter: "Augmenter | None" = None,
    ) -> None:
        self._images, self._targets = images, targets
        self._rows: RowArray = np.asarray(rows, dtype=np.int64)
        self._batch_size, self._seed, self._parts = batch_size, seed, parts
        self._min_part_size = min(2, batch_size // parts)
        self._augmenter = augmenter if augmenter is not None and augmenter.active else None

    @property
    def updates_per_epoch(self) -> int:
        """Number of batches per training epoch, independent of the number of workers."""
        return len(self._starts(merge=True))

    def epoch(
        self, epoch: int, rank: int = 0, world: int = 1, *, shuffle: bool = True, start: int = 0
    ) -> Iterator[Sequence[RankBatch]]:
        """Yield this rank's share of every part of each batch.

        For training (`shuffle`) the order depends on seed and epoch, and images are augmented. For evaluation rows
        are in order, unchanged, each exactly once, and batches are not divided into parts. The first `start` batches
        are skipped. Raises `ValueError` if there are more workers than images in a batch.
        """
        if self._batch_size < world:
            raise ValueError(
                f"batch_size is {self._batch_size} for {world} workers; allowed: at least one image a worker; "
                "raise batch_size or lower resources.workers"
            )
        order = self._shuffled(epoch) if shuffle else np.arange(len(self._rows))
        for first, stop in list(pairwise([*self._starts(merge=shuffle), len(order)]))[start:]:
            batch = order[first:stop]
            parts = max(1, min(self._parts, len(batch) // self._min_part_size)) if shuffle else 1
            yield [self._share(part, rank, world, epoch if shuffle else None) for part in np.array_split(batch, parts)]

    def _share(self, part: RowArray, rank: int, world: int, epoch: int | None) -> RankBatch:
        share = np.array_split(part, world)[rank]
        positions = share if len(share) else part[-1:]
        images, targets = self._read(positions) if epoch is None else self._augmented(positions, epoch)
        return RankBatch(images, targets, size=len(part), counts=bool(len(share)))

    def stream(self, update: int, rank: int = 0, world: int = 1) -> Iterator[Sequence[RankBatch]]:
        """Yield training batches indefinitely, epoch by epoch, starting at the given update of a run."""
        epoch, start = divmod(update, self.updates_per_epoch)
        for number in itertools.count(epoch):
            yield from self.epoch(number, rank, world, start=start if number == epoch else 0)

    def _starts(self, *, merge: bool) -> list[int]:
        """Return the start position of each batch."""
        count, size = len(self._rows), self._batch_size
        last_is_alone = count > size and count % size == 1
        return list(range(0, count - 1 if merge and last_is_alone else count, size))

    def _shuffled(self, epoch: int) -> RowArray:
        key = np.array([self._seed, epoch], dtype=np.uint64)
        return np.random.Generator(np.random.Philox(key=key)).permutation(len(self._rows))

    def _read(self, positions: RowArray) -> tuple[Pixels, TargetArray | None]:
        rows = self._rows[positions]
        # A view would save the copy, but torch warns of read-only arrays.
        return self._images[rows], None if self._targets is None else self._targets[rows]

    def _augmented(self, positions: RowArray, epoch: int) -> tuple[Pixels, TargetArray | None]:
        """Read and augment. Keys are positions in the stage's rows, so results do not depend on other rows."""
        images, targets = self._read(positions)
        if self._augmenter is None:
            return images, targets
        for row, position in enumerate(positions.tolist()):
            target = None if targets is None else targets[row]
            image, changed = self._augmenter(images[row], target, (self._seed, epoch, position))
            images[row] = image
            if targets is not None:
                targets[row] = changed
        return images, targets
