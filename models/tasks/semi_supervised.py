"""Segmentation that also learns from images without masks: the sum of two losses."""

from abc import abstractmethod
from collections.abc import Mapping

from torch import Tensor, nn

from models.distributed import contributing
from models.settings import MaskSettings
from models.tasks.base import Batch, Outputs, ramp_up
from models.tasks.segmentation import Segmentation


class SemiSupervised(Segmentation):
    """Target, scores and probabilities are those of `Segmentation`.

    The loss of a batch is that of the labelled images, plus the weight times the loss of the images without masks. The
    labelled images come first, so that the copies of weights that autocast makes for the batch have gradients.
    """

    takes_features = False
    reports: tuple[str, ...] = ("labelled_loss", "unlabelled_loss")

    def __init__(self, settings: MaskSettings, outputs: Outputs) -> None:
        super().__init__(settings, outputs)
        self._reported: dict[str, Tensor] = {}

    def reported(self) -> Mapping[str, Tensor]:
        """Return the losses of labelled images and of those without masks, before the latter is weighted."""
        return self._reported

    def report(self, name: str, value: Tensor) -> None:
        """Set a value of the batch whose loss is computed."""
        self._reported[name] = value.detach()

    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return the loss of all images of a batch; that of labelled images alone if there are no others."""
        self._reported = {}
        labelled = self.labelled_loss(network, batch)
        self.report("labelled_loss", labelled)
        if batch.unlabelled is None:
            return labelled
        with contributing(batch.unlabelled_counts):
            unlabelled = self.pool_loss(network, batch)
        self.report("unlabelled_loss", unlabelled)
        return self.combined(labelled, self.factor(batch) * unlabelled)

    def labelled_loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return the loss of the labelled images."""
        return super().loss(network, batch)

    @abstractmethod
    def pool_loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return the loss of the images without masks, before it is weighted."""

    def combined(self, labelled: Tensor, unlabelled: Tensor) -> Tensor:
        """Return the loss of a batch from that of labelled images and the weighted one of images without masks."""
        return labelled + unlabelled

    @property
    @abstractmethod
    def weighting(self) -> tuple[float, float]:
        """Return the weight of images without masks, and the share of all updates in which it rises."""

    def factor(self, batch: Batch) -> float:
        """Return the factor of the loss of images without masks at the update of a batch."""
        weight, rise = self.weighting
        return weight * ramp_up(batch.update, rise * batch.updates)
