"""Global batches in a seeded order, and one worker's share of each."""

import itertools
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from datasets.source import Pixels
from datasets.targets import Array

if TYPE_CHECKING:
    from datasets.loading.augment import Augmenter

Rows = NDArray[np.int64]


class RankBatch(NamedTuple):
    """What one worker gets of a part of a batch: images (n, S, S, channels) and targets, arrays of its own.

    `size` counts the part's images over all workers. `counts` is false where these are fewer than the workers and
    none is left for this one: it gets another's, for its company only.
    """

    images: Pixels
    targets: Array | None
    size: int
    counts: bool


class Batches:
    """Batches of some rows of prepared arrays.

    `batch_size` counts the images of all workers together, so what is learned from does not depend on their
    number. A last batch of one image is merged into the one before it. `parts`: each training batch comes in so
    many parts; a smaller one in fewer, so that none has one image alone where whole batches' have more.
    """

    def __init__(
        self,
        images: Pixels,
        targets: Array | None,
        rows: Sequence[int],
        *,
        batch_size: int,
        seed: int,
        parts: int = 1,
        augmenter: "Augmenter | None" = None,
    ) -> None:
        self._images, self._targets = images, targets
        self._rows: Rows = np.asarray(rows, dtype=np.int64)
        self._batch_size, self._seed, self._parts = batch_size, seed, parts
        self._least = min(2, batch_size // parts)
        self._augmenter = augmenter if augmenter is not None and augmenter.active else None

    @property
    def updates_per_epoch(self) -> int:
        """How many batches a training epoch has, whatever the number of workers."""
        return len(self._starts(merge=True))

    def epoch(
        self, epoch: int, rank: int = 0, world: int = 1, *, shuffle: bool = True, start: int = 0
    ) -> Iterator[Sequence[RankBatch]]:
        """Yield this rank's share of every part of every batch.

        Training (`shuffle`): the order depends on seed and epoch; images are augmented. Evaluation: rows in order,
        unchanged, each counted once, batches whole. The first `start` batches are left out. Raises `ValueError`
        for more workers than a batch has images.
        """
        if self._batch_size < world:
            raise ValueError(
                f"batch_size is {self._batch_size} for {world} workers; allowed: at least one image a worker; "
                "raise batch_size or lower resources.workers"
            )
        order = self._shuffled(epoch) if shuffle else np.arange(len(self._rows))
        for first, stop in list(pairwise([*self._starts(merge=shuffle), len(order)]))[start:]:
            batch = order[first:stop]
            parts = max(1, min(self._parts, len(batch) // self._least)) if shuffle else 1
            yield [self._share(part, rank, world, epoch if shuffle else None) for part in np.array_split(batch, parts)]

    def _share(self, part: Rows, rank: int, world: int, epoch: int | None) -> RankBatch:
        own = np.array_split(part, world)[rank]
        places = own if len(own) else part[-1:]
        images, targets = self._read(places) if epoch is None else self._augmented(places, epoch)
        return RankBatch(images, targets, size=len(part), counts=bool(len(own)))

    def stream(self, update: int, rank: int = 0, world: int = 1) -> Iterator[Sequence[RankBatch]]:
        """Yield training batches without end, epoch after epoch, from the given update of a run on."""
        epoch, place = divmod(update, self.updates_per_epoch)
        for number in itertools.count(epoch):
            yield from self.epoch(number, rank, world, start=place if number == epoch else 0)

    def _starts(self, *, merge: bool) -> list[int]:
        """Return where each batch starts."""
        count, size = len(self._rows), self._batch_size
        last_is_alone = count > size and count % size == 1
        return list(range(0, count - 1 if merge and last_is_alone else count, size))

    def _shuffled(self, epoch: int) -> Rows:
        key = np.array([self._seed, epoch], dtype=np.uint64)
        return np.random.Generator(np.random.Philox(key=key)).permutation(len(self._rows))

    def _read(self, places: Rows) -> tuple[Pixels, Array | None]:
        rows = self._rows[places]
        # A view would save the copy, but torch warns of read-only arrays.
        return self._images[rows], None if self._targets is None else self._targets[rows]

    def _augmented(self, places: Rows, epoch: int) -> tuple[Pixels, Array | None]:
        """Read and augment. Keys count within the stage's own rows: cases it does not read change nothing."""
        images, targets = self._read(places)
        if self._augmenter is None:
            return images, targets
        for at, place in enumerate(places.tolist()):
            target = None if targets is None else targets[at]
            image, changed = self._augmenter(images[at], target, (self._seed, epoch, place))
            images[at] = image
            if targets is not None:
                targets[at] = changed
        return images, targets
