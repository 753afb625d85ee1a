"""Interface between tasks and the training loop."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

from torch import Tensor, nn

from models.network import EncodedImages, Network
from models.settings import NetworkPart, OptimizerSettings

NETWORK = "network"
"""Name of the network that every task trains and that is saved."""


@dataclass(frozen=True, kw_only=True)
class WeakTarget:
    """Weak labels of images without masks."""

    masks: Tensor | None = None
    """Annotated pixels in the format of the target, `models.counts.IGNORE` elsewhere."""
    present: Tensor | None = None
    """Labels (N, classes): 1 for classes that are known to be present, 0 for absent ones, NaN for others.

    Beside `masks` they determine only which classes have an area.
    """
    boxes: Tensor | None = None
    """Corners (N, boxes, 4, 2) of the boxes of all components of the classes in `present`, see
    `models.tasks.weak_labels.boxes`."""
    box_classes: Tensor | None = None
    """Classes (N, boxes) of the boxes, as numbers."""
    areas: Tensor | None = None
    """Smallest and largest share (classes, 2) of an image that a class has in the masks, NaN if none shows it."""


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
    unlabelled_views: tuple[Tensor, ...] = ()
    """Views (N, channels, height, width) of `unlabelled`, which is the first of them: weak, strong ones, and the weak
    view of the partner if regions of partners are pasted into strong views."""
    pasted: Tensor | None = None
    """The regions (N, strong views, height, width), bool, that strong views have from the partner of their image."""
    unlabelled_keys: Sequence[int] = ()
    """As `keys`, for `unlabelled`."""
    weak: WeakTarget | None = None
    """Weak labels of `unlabelled`."""
    update: int = 0
    """Number of previous updates."""
    updates: int = 0
    """Number of updates of the stage, 0 if it is unknown."""
    size: int = 0
    """Number of images over all workers."""
    counts: bool = True
    """Whether the images contribute to the loss, or are padding (see `models.distributed.contributing`)."""
    views: tuple[Tensor, ...] = ()
    """Views (N, channels, height, width) of the images, `images` first; several for tasks that compare them."""
    positions: Tensor | None = None
    """Numbers (N,) of the images in the training data of the stage."""
    keys: Sequence[int] = ()
    """A 64-bit integer for each image, from which tasks draw random numbers. In training it depends on the seed, the
    epoch and the place of the image in the training set, in validation on its place alone."""

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


NetworkFactory = Callable[[], Network]
"""Returns another network with the initial weights of the stage; all other weights are drawn anew."""


class Update(NamedTuple):
    """One update of one network: its name and the loss to minimise."""

    network_name: str
    loss: Tensor


@dataclass(frozen=True, kw_only=True)
class Companion:
    """A module that a stage needs beside its network. It is part of checkpoints, but not saved with the network.

    `trained` is "apart" for updates of its own with its `optimizer`, as a discriminator; "jointly" for updates by the
    loss of the network, with the optimizer settings of the network; "never" if only `Task.after_update` changes it.
    """

    module: nn.Module
    trained: Literal["apart", "jointly", "never"]
    optimizer: OptimizerSettings | None = None


def ramp_up(update: int, length: float) -> float:
    """Return exp(-5 (1 - t)^2) of the share t of the first `length` updates, then 1 (Laine and Aila 2017)."""
    missing = max(0.0, 1 - update / length) if length > 0 else 0.0
    return math.exp(-5 * missing**2)


def low_score_message(
    scores: Mapping[str, float], name: str, bound: float, *, subject: str, expected: str, remedy: str
) -> str | None:
    """Return a message if a validation score is below a bound, None if it is not or is undefined.

    Args:
        scores: The scores by name.
        name: The name of the score.
        bound: The bound.
        subject: What a low score means.
        expected: The values that are expected.
        remedy: What helps.
    """
    value = scores.get(name, math.nan)
    if not value < bound:
        return None
    return f"{subject}: {name} is {value:.2g}; expected: {expected}; its encoder has learned little, so {remedy}"


class Task(ABC):
    """Loss and validation scores of one kind of stage.

    Statistics are sums that are added over batches and workers before scores are computed from them.
    """

    outputs: Outputs
    trains: tuple[NetworkPart, ...]
    """The parts of the network trained in addition to the head; only these can be carried to the next stage."""
    monitor: ClassVar[str | None]
    """The score used to select the best epoch; higher is better unless `minimise`. None keeps the last epoch."""
    minimise: ClassVar[bool] = False
    takes_features: ClassVar[bool] = False
    """Whether the network is applied to `Batch.inputs` alone, so that feature maps can replace the images."""

    reports: tuple[str, ...] = ()
    """Names of values of training, in addition to the loss, of which the history has the mean over each epoch."""

    def reported(self) -> Mapping[str, Tensor]:
        """Return these values for the last batch, over all workers; none that the batch does not have."""
        return {}

    @abstractmethod
    def head_channels(self) -> int:
        """Return the number of output channels per pixel (or per image)."""

    @abstractmethod
    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return the scalar training loss of one batch."""

    @property
    def kept_module(self) -> str:
        """Return the name of the module whose weights are validated, kept and saved.

        It is the network, or a companion of the same architecture, which then has no averaged weights.
        """
        return NETWORK

    def companions(self, network: Network, another_network: NetworkFactory | None = None) -> Mapping[str, Companion]:
        """Create further modules by name, with weights from torch's global generator.

        The network has its initial weights and is on the device that it is trained on. In another one, where the task
        needs one, the same parts are frozen.
        """
        return {}

    def updates(self, network: nn.Module, batch: Batch) -> Iterator[Update]:
        """Yield the updates of one batch; each is applied before the next is requested."""
        yield Update(NETWORK, self.loss(network, batch))

    def network_input(self, network: nn.Module, batch: Batch) -> Tensor | EncodedImages:
        """Return the network input for batch-norm statistics of averaged weights, of several views the first."""
        return batch.inputs

    def after_update(self, network: nn.Module, done: int, updates: int) -> None:  # noqa: B027 - most do nothing
        """Called after all updates of a batch, the one with number `done`, counted from 1, of all `updates`."""

    def warning(self, scores: Mapping[str, float]) -> str | None:
        """Return a message if the validation scores of the kept weights show that training failed, else None."""
        return None

    @abstractmethod
    def statistics(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return a 1-d float64 tensor of sums over the batch, from which `scores` are derived."""

    @abstractmethod
    def scores(self, statistics: Tensor) -> Mapping[str, float]:
        """Return named validation scores, `loss` and `monitor` among them; undefined ones are NaN."""
