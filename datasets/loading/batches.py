"""Global batches in a seeded order, and one worker's share of each."""

import itertools
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from datasets.loading.examples import Examples, Positions
from datasets.source import Pixels
from datasets.targets import TargetArray


class RankBatch(NamedTuple):
    """One worker's images (n, height, width, channels) and targets of one part of a batch.

    Images with several views are (n, views, height, width, channels); those of `datasets.loading.strong_views` have the
    pasted regions as targets. `positions` (n,) are those of the examples.

    `size` is the number of images of the part over all workers. `counts` is False if the part has fewer images than
    there are workers and none is left for this one; its image is then padding and must not contribute. `keys` are
    64-bit integers for further random numbers of each image: of seed, epoch and position in training, of the position
    alone in evaluation.
    """

    images: Pixels
    targets: TargetArray | None
    size: int
    counts: bool
    positions: Positions
    rows: Positions | None
    """The rows of the index that the images are; None for augmented images and patches."""
    keys: tuple[int, ...]


class Batches:
    """Iterates over batches of examples.

    `batch_size` counts the images of all workers together, so training does not depend on the number of workers.
    A last batch of one image is merged into the previous one. Each training batch is divided into `parts` (gradient
    accumulation), a smaller batch into fewer, so that no part has a single image unless `batch_size` requires it.
    """

    def __init__(self, examples: Examples, *, batch_size: int, seed: int, parts: int = 1) -> None:
        self._examples = examples
        self._batch_size, self._seed, self._parts = batch_size, seed, parts
        self._min_part_size = min(2, batch_size // parts)

    @property
    def updates_per_epoch(self) -> int:
        """Number of batches per training epoch, independent of the number of workers."""
        return updates_per_epoch(len(self._examples), self._batch_size)

    def epoch(
        self, epoch: int, rank: int = 0, world: int = 1, *, shuffle: bool = True, start: int = 0
    ) -> Iterator[Sequence[RankBatch]]:
        """Yield this rank's share of every part of each batch.

        For training (`shuffle`) the order depends on seed and epoch, and examples are drawn. For evaluation they are
        read in order, each exactly once, and batches are not divided into parts. The first `start` batches
        are skipped. Raises `ValueError` if there are more workers than images in a batch.
        """
        if self._batch_size < world:
            raise ValueError(
                f"batch_size is {self._batch_size} for {world} workers; allowed: at least one image a worker; "
                "raise batch_size or lower resources.workers"
            )
        order = self._shuffled(epoch) if shuffle else np.arange(len(self._examples))
        for first, stop in list(pairwise([*self._starts(merge=shuffle), len(order)]))[start:]:
            batch = order[first:stop]
            parts = max(1, min(self._parts, len(batch) // self._min_part_size)) if shuffle else 1
            yield [self._share(part, rank, world, epoch if shuffle else None) for part in np.array_split(batch, parts)]

    def _share(self, part: Positions, rank: int, world: int, epoch: int | None) -> RankBatch:
        share = np.array_split(part, world)[rank]
        positions = share if len(share) else part[-1:]
        examples = self._examples
        images, targets = examples.read(positions) if epoch is None else examples.draw(positions, (self._seed, epoch))
        drawn = "evaluation" if epoch is None else f"{self._seed} {epoch}"
        return RankBatch(
            images,
            targets,
            size=len(part),
            counts=bool(len(share)),
            positions=positions,
            rows=examples.rows(positions),
            keys=tuple(_key(f"{drawn} {position}") for position in positions.tolist()),
        )

    def stream(self, update: int, rank: int = 0, world: int = 1) -> Iterator[Sequence[RankBatch]]:
        """Yield training batches indefinitely, epoch by epoch, starting at the given update of a run."""
        epoch, start = divmod(update, self.updates_per_epoch)
        for number in itertools.count(epoch):
            yield from self.epoch(number, rank, world, start=start if number == epoch else 0)

    def _starts(self, *, merge: bool) -> list[int]:
        """Return the start position of each batch."""
        count, size = len(self._examples), self._batch_size
        return list(range(0, count, size))[: updates_per_epoch(count, size) if merge else None]

    def _shuffled(self, epoch: int) -> Positions:
        key = np.array([self._seed, epoch], dtype=np.uint64)
        return np.random.Generator(np.random.Philox(key=key)).permutation(len(self._examples))


def _key(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest())


def updates_per_epoch(examples: int, batch_size: int) -> int:
    """Return the number of batches of a training epoch; a last batch of one image is merged into the previous one."""
    batches = -(-examples // batch_size)
    return batches - 1 if examples > batch_size and examples % batch_size == 1 else batches
