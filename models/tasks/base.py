"""What the training loop asks of a task; it knows none by name."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from torch import Tensor, nn

from models.settings import OptimizerSettings, Part

NETWORK = "network"
"""The player that every task trains and that is kept."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Images (N, channels, size, size) in 0..1 and the task's target, both on the network's device."""

    images: Tensor
    target: Tensor
    unlabelled: Tensor | None = None
    """Images without a target, for tasks that learn from them too."""
    unlabelled_counts: bool = True
    """As `counts`, of these."""
    update: int = 0
    """Updates made before this one."""
    size: int = 0
    """Images of all workers together."""
    counts: bool = True
    """Whether these images are this worker's own; others are here for company only (`models.distributed.present`)."""


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What a target looks like: names of its channels, and whether they exclude each other.

    Exclusive segmentation has one channel more than names: channel 0 is the background.
    """

    names: tuple[str, ...]
    exclusive: bool = False


class Update(NamedTuple):
    """One update of one network: its name and the loss to reduce."""

    network_name: str
    loss: Tensor


@dataclass(frozen=True, kw_only=True)
class AdversarialNetwork:
    """A second network that is trained against the first and not kept."""

    network: nn.Module
    optimizer: OptimizerSettings


class Task(ABC):
    """Loss and score of one kind of stage.

    Statistics are sums: over batches and over workers they add up, and only then become scores.
    """

    outputs: Outputs
    trains: ClassVar[tuple[Part, ...]]
    """The parts of the network this task trains beside its head; only these can be carried on."""
    monitor: ClassVar[str]
    """The score by which the best epoch is chosen; higher is better, or lower where `minimise`."""
    minimise: ClassVar[bool] = False

    @abstractmethod
    def head_channels(self) -> int:
        """Return how many numbers a pixel (or an image) gets."""

    @abstractmethod
    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return the scalar training loss of one batch."""

    def adversarial_networks(self, channels: int) -> Mapping[str, AdversarialNetwork]:
        """Build further networks, with weights from torch's global generator, for images of `channels` channels."""
        return {}

    def updates(self, network: nn.Module, batch: Batch) -> Iterator[Update]:
        """Yield the updates of one batch; each is applied before the next is requested."""
        yield Update(NETWORK, self.loss(network, batch))

    @abstractmethod
    def statistics(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return a 1-d float64 tensor of sums over the batch, from which `scores` are derived."""

    @abstractmethod
    def scores(self, statistics: Tensor) -> Mapping[str, float]:
        """Return named validation scores, `loss` and `monitor` among them; undefined ones are NaN."""
