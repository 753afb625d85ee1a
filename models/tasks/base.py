"""Interface between tasks and the training loop."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from torch import Tensor, nn

from models.network import EncodedImages
from models.settings import NetworkPart, OptimizerSettings

NETWORK = "network"
"""Name of the network that every task trains and that is saved."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Images (N, channels, height, width) in 0..1 and the target of the task, both on the device of the network."""

    images: Tensor
    target: Tensor
    encoded: EncodedImages | None = None
    """The feature maps of the images, where they are known; only for tasks with `takes_features`."""
    unlabelled: Tensor | None = None
    """Images without a target, for semi-supervised tasks."""
    unlabelled_counts: bool = True
    """As `counts`, for `unlabelled`."""
    update: int = 0
    """Number of previous updates."""
    size: int = 0
    """Number of images over all workers."""
    counts: bool = True
    """Whether the images contribute to the loss, or are padding (see `models.distributed.contributing`)."""

    @property
    def inputs(self) -> Tensor | EncodedImages:
        """Return the input of the network: the images, or their feature maps."""
        return self.images if self.encoded is None else self.encoded


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """Names of the target channels, and whether classes are mutually exclusive.

    Exclusive segmentation has an additional channel 0, the background.
    """

    names: tuple[str, ...]
    exclusive: bool = False


class Update(NamedTuple):
    """One update of one network: its name and the loss to minimise."""

    network_name: str
    loss: Tensor


@dataclass(frozen=True, kw_only=True)
class AdversarialNetwork:
    """A network that is trained against the first one and not saved."""

    network: nn.Module
    optimizer: OptimizerSettings


class Task(ABC):
    """Loss and validation scores of one kind of stage.

    Statistics are sums that are added over batches and workers before scores are computed from them.
    """

    outputs: Outputs
    trains: ClassVar[tuple[NetworkPart, ...]]
    """The parts of the network trained in addition to the head; only these can be carried to the next stage."""
    monitor: ClassVar[str]
    """The score used to select the best epoch; higher is better unless `minimise`."""
    minimise: ClassVar[bool] = False
    takes_features: ClassVar[bool] = False
    """Whether the network is applied to `Batch.inputs` alone, so that feature maps can replace the images."""

    @abstractmethod
    def head_channels(self) -> int:
        """Return the number of output channels per pixel (or per image)."""

    @abstractmethod
    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return the scalar training loss of one batch."""

    def adversarial_networks(self, channels: int) -> Mapping[str, AdversarialNetwork]:
        """Create additional networks, with weights from torch's global generator, for images of `channels` channels."""
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
