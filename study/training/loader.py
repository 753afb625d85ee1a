"""Load the batches of a stage on the device of a worker."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cluster.protocol import ReportFunction
from datasets.loading.batches import Batches, RankBatch
from datasets.loading.examples import Positions
from models.distributed import contributing
from models.network import EncodedImages
from models.tasks.base import Batch, WeakTarget

CPU = torch.device("cpu")
FeatureReader = Callable[[Positions], EncodedImages]
"""Returns the feature maps of rows of the index."""
IMAGE_DIMENSIONS = 4
"""Dimensions of a batch of images without views."""


@dataclass(frozen=True, kw_only=True)
class WorkerContext:
    """Rank, device and progress callback of a worker process of a stage."""

    report: ReportFunction
    rank: int = 0
    world: int = 1
    device: torch.device = CPU
    compiles: bool = False
    """Whether to compile networks with `torch.compile`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageLabels:
    """Weak labels of whole images.

    Attributes:
        present: As `WeakTarget.present`, for all images of `StageData.unlabelled`; None if there are none.
        box_classes: As `WeakTarget.box_classes`, for the boxes that are the targets of `StageData.unlabelled`; None if
            these are masks.
        areas: As `WeakTarget.areas`; None if they are not used.
    """

    present: NDArray[np.float32] | None = None
    box_classes: NDArray[np.int64] | None = None
    areas: NDArray[np.float32] | None = None


@dataclass(frozen=True, kw_only=True)
class StageData:
    """The data of a stage. Without `validation`, the weights of the last epoch are used."""

    training: Batches
    features: FeatureReader | None = None
    """Reads the feature maps of rows of the index in place of computing them."""
    validation: Batches | None = None
    unlabelled: Batches | None = None
    weak: ImageLabels | None = None
    """Weak labels of the images of `unlabelled`, whose targets then are annotated pixels or boxes."""
    unlabelled_start: int = 0
    """Number of updates before the first batch of `unlabelled`."""


class DeviceLoader:
    """Loads the data of a stage for one of its workers."""

    def __init__(self, data: StageData, context: WorkerContext, *, updates: int = 0) -> None:
        """Load data for some number of updates in all, 0 if it is unknown."""
        self.data, self.context, self.updates = data, context, updates

    @property
    def validates(self) -> bool:
        """Return whether there are validation images."""
        return self.data.validation is not None

    def training(self, epoch: int, updates: int) -> Iterator[Sequence[Batch]]:
        """Yield the batches of an epoch, each as a list of accumulation parts; `updates` counts earlier updates."""
        context = self.context
        batches = self.data.training.epoch(epoch, context.rank, context.world)
        for update, (shares, unlabelled) in enumerate(zip(batches, self._unlabelled(updates), strict=False), updates):
            yield [self._batch(share, unlabelled, update) for share in shares]

    def validation(self) -> Iterator[Batch]:
        """Yield the validation images, each on one of the workers."""
        if self.data.validation is not None:
            for (share,) in self.data.validation.epoch(0, self.context.rank, self.context.world, shuffle=False):
                yield self._batch(share)

    def training_parts(self, epoch: int) -> Iterator[Batch]:
        """Yield the accumulation parts of the batches of an epoch, without images of `unlabelled`."""
        for shares in self.data.training.epoch(epoch, self.context.rank, self.context.world):
            for share in shares:
                with contributing(share.counts):
                    yield self._batch(share)

    def _batch(self, share: RankBatch, unlabelled: RankBatch | None = None, update: int = 0) -> Batch:
        device = self.context.device
        images, *_ = views = _views(to_images(torch.from_numpy(share.images), device))
        target = images if share.targets is None else on_device(torch.from_numpy(share.targets), device)
        features, rows = self.data.features, share.rows
        batch = Batch(
            images=images,
            target=target,
            encoded=None if features is None or rows is None else features(rows),
            update=update,
            updates=self.updates,
            size=share.size,
            counts=share.counts,
            keys=share.keys,
            views=views,
            positions=on_device(torch.from_numpy(share.positions), device),
        )
        if unlabelled is None:
            return batch
        return _with_unlabelled(batch, unlabelled, self.data.weak, device)

    def _unlabelled(self, updates: int) -> Iterator[RankBatch | None]:
        """Yield a batch of images without annotation, or None, for each update from the current one on."""
        pool, start, context = self.data.unlabelled, self.data.unlabelled_start, self.context
        if pool is None:
            yield from itertools.repeat(None)
            return
        yield from itertools.repeat(None, max(0, start - updates))
        for (share,) in pool.stream(max(0, updates - start), context.rank, context.world):
            yield share


def _with_unlabelled(batch: Batch, unlabelled: RankBatch, weak: ImageLabels | None, device: torch.device) -> Batch:
    """Return a batch with images without masks, and their weak labels if they have some."""
    images, *_ = views = _views(to_images(torch.from_numpy(unlabelled.images), device))
    pasted = unlabelled.targets if weak is None else None
    return replace(
        batch,
        unlabelled=images,
        unlabelled_counts=unlabelled.counts,
        unlabelled_views=views,
        pasted=None if pasted is None else on_device(torch.from_numpy(pasted), device),
        unlabelled_keys=unlabelled.keys,
        weak=None if weak is None else _weak_target(unlabelled, weak, device),
    )


def _weak_target(images: RankBatch, labels: ImageLabels, device: torch.device) -> WeakTarget:
    def tensor(values: NDArray[Any] | None) -> Tensor | None:
        return None if values is None else on_device(torch.from_numpy(values), device)

    def chosen(values: NDArray[Any] | None) -> Tensor | None:
        return None if values is None else tensor(values[images.positions])

    targets, box_classes = tensor(images.targets), chosen(labels.box_classes)
    return WeakTarget(
        masks=targets if box_classes is None else None,
        present=chosen(labels.present),
        boxes=None if box_classes is None else targets,
        box_classes=box_classes,
        areas=tensor(labels.areas),
    )


def _views(images: Tensor) -> tuple[Tensor, ...]:
    """Return the views of images (N, views, C, H, W), or images (N, C, H, W) as the only view."""
    return images.unbind(1) if images.ndim > IMAGE_DIMENSIONS else (images,)


class UnusableGpu(RuntimeError):  # noqa: N818 - an expected state
    """Ray assigned a GPU that torch cannot use."""


def process_device(gpus: float) -> torch.device:
    """Return the GPU if a share of one was assigned to the process, otherwise the CPU. Raises `UnusableGpu`.

    Without an assigned share the GPUs may still be visible, because Ray does not hide them.
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
    """Map (..., height, width, channels) bytes to (..., channels, height, width) floats in 0..1 on the device."""
    return on_device(pixels, device).movedim(-1, -3).float().div_(255.0)


def on_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy to the device; to a GPU asynchronously from pinned memory."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
