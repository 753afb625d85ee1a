"""What a stage learns from, batch by batch, as this worker gets it on its device."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from datasets.loading.batches import Batches, RankBatch
from models.distributed import present
from models.tasks.base import Batch

Report = Callable[[Mapping[str, float]], None]
CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class WorkerContext:
    """Where this process stands among the workers of a stage, and whom it tells how training goes."""

    report: Report
    rank: int = 0
    world: int = 1
    device: torch.device = CPU
    compiles: bool = False
    """Whether networks are compiled first."""


@dataclass(frozen=True, kw_only=True)
class StageData:
    """What a stage learns from. `validation` None: nothing validates, the last epoch is taken."""

    training: Batches
    validation: Batches | None = None
    unlabelled: Batches | None = None


class DeviceLoader:
    """A stage's material for one of its workers."""

    def __init__(self, data: StageData, context: WorkerContext) -> None:
        self.data, self.context = data, context

    @property
    def validates(self) -> bool:
        """Return whether any images validate."""
        return self.data.validation is not None

    def training(self, epoch: int, updates: int) -> Iterator[Sequence[Batch]]:
        """Yield an epoch's batches, each in the parts it is learned from; `updates` were made before."""
        context = self.context
        drawn = self.data.training.epoch(epoch, context.rank, context.world)
        for update, (shares, others) in enumerate(zip(drawn, self._unlabelled(updates), strict=False), updates):
            yield [self._batch(share, others, update) for share in shares]

    def validation(self) -> Iterator[Batch]:
        """Yield the validation images once over all workers, where there are any."""
        if self.data.validation is not None:
            for (share,) in self.data.validation.epoch(0, self.context.rank, self.context.world, shuffle=False):
                yield self._batch(share)

    def shown(self, epoch: int) -> Iterator[Tensor]:
        """Yield an epoch's training images alone, in the same parts."""
        for shares in self.data.training.epoch(epoch, self.context.rank, self.context.world):
            for share in shares:
                with present(share.counts):
                    yield to_images(torch.from_numpy(share.images), self.context.device)

    def _batch(self, share: RankBatch, others: RankBatch | None = None, update: int = 0) -> Batch:
        device = self.context.device
        images = to_images(torch.from_numpy(share.images), device)
        target = images if share.targets is None else on_device(torch.from_numpy(share.targets), device)
        return Batch(
            images=images,
            target=target,
            unlabelled=None if others is None else to_images(torch.from_numpy(others.images), device),
            unlabelled_counts=others is None or others.counts,
            update=update,
            size=share.size,
            counts=share.counts,
        )

    def _unlabelled(self, updates: int) -> Iterator[RankBatch | None]:
        """Yield a batch of images an update, from where training stands on."""
        pool, context = self.data.unlabelled, self.context
        if pool is None:
            yield from itertools.repeat(None)
            return
        for (share,) in pool.stream(updates, context.rank, context.world):
            yield share


class UnusableGpu(RuntimeError):  # noqa: N818 - an expected state
    """Ray has counted a GPU that torch cannot use."""


def own_device(gpus: float) -> torch.device:
    """Return the GPU of a process that was given so much of one, else the processor: Ray hides none of the others.

    Raises `UnusableGpu`.
    """
    if not gpus:
        return CPU
    if not torch.cuda.is_available():
        raise UnusableGpu(
            f"cannot use its GPU with torch {torch.__version__}, built for CUDA {torch.version.cuda}; allowed: a "
            "driver and a torch that fit each other; install them, or set resources.gpus: 0"
        )
    return torch.device("cuda")


def to_images(pixels: Tensor, device: torch.device) -> Tensor:
    """Map (N, S, S, channels) bytes to (N, channels, S, S) floats in 0..1 on the device."""
    return on_device(pixels, device).permute(0, 3, 1, 2).float().div_(255.0)


def on_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy to the device; to a GPU from pinned memory, while the processor goes on."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
