"""What all methods of consistency have in common: the loss of both kinds of images, and views with pasted regions."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from models.distributed import contributing
from models.network import evaluation_mode
from models.task_settings.consistency import ConsistencySettings
from models.tasks.base import Batch, Outputs, ramp_up
from models.tasks.segmentation import Segmentation


@dataclass(frozen=True, kw_only=True)
class UnlabelledViews:
    """Views of the unlabelled images of a batch.

    Attributes:
        weak: The weak view (N, channels, height, width).
        strong: The strong views, in which regions may be those of the partner of an image.
        partner: The weak view of the partners; None if nothing is pasted.
        pasted: These regions (N, 1, height, width), bool, of each strong view; empty if nothing is pasted.
        keys: Integers from which random numbers are drawn, one of each image.
    """

    weak: Tensor
    strong: tuple[Tensor, ...]
    partner: Tensor | None = None
    pasted: tuple[Tensor, ...] = ()
    keys: Sequence[int] = ()

    @classmethod
    def of(cls, batch: Batch) -> Self:
        """Return the views of a batch with unlabelled images."""
        weak, *strong = batch.unlabelled_views
        if batch.pasted is None:
            return cls(weak=weak, strong=tuple(strong), keys=batch.unlabelled_keys)
        *strong, partner = strong
        pasted = torch.split(batch.pasted.bool(), 1, dim=1)
        return cls(weak=weak, strong=tuple(strong), partner=partner, pasted=pasted, keys=batch.unlabelled_keys)

    def mixed(self, weak: Tensor, partner: Tensor | None) -> list[Tensor]:
        """Return the predictions (N, classes, height, width) for each strong view from those of the weak views."""
        if partner is None:
            return [weak] * len(self.strong)
        return [torch.where(region, partner, weak) for region in self.pasted]


class Consistency(Segmentation):
    """Target, scores and probabilities are those of `Segmentation`.

    The loss of a batch is that of the labelled images, plus the weight times the loss of the unlabelled images. The
    labelled images come first, so that the copies of weights that autocast makes for the batch have gradients.
    """

    takes_features = False

    def __init__(self, settings: ConsistencySettings, outputs: Outputs) -> None:
        super().__init__(settings, outputs)
        self.block = settings.consistency

    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return the loss of labelled and unlabelled images; that of labelled images alone if there are no others."""
        labelled = self.labelled_loss(network, batch)
        if batch.unlabelled is None:
            return labelled
        with contributing(batch.unlabelled_counts):
            unlabelled = self.unlabelled_loss(network, UnlabelledViews.of(batch))
        return self.combined(labelled, self.factor(batch) * unlabelled)

    def labelled_loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return the loss of the labelled images."""
        return super().loss(network, batch)

    @abstractmethod
    def unlabelled_loss(self, network: nn.Module, views: UnlabelledViews) -> Tensor:
        """Return the loss of unlabelled images, before it is weighted."""

    def combined(self, labelled: Tensor, unlabelled: Tensor) -> Tensor:
        """Return the loss of a batch from that of labelled images and the weighted one of unlabelled images."""
        return labelled + unlabelled

    def factor(self, batch: Batch) -> float:
        """Return the factor of the loss of unlabelled images at the update of a batch."""
        return self.block.weight * ramp_up(batch.update, self.block.ramp_up_share * batch.updates)

    @torch.no_grad()
    def fixed_probabilities(self, network: nn.Module, images: Tensor) -> Tensor:
        """Return the probabilities (N, classes, height, width) of a network in evaluation mode, without gradient."""
        with evaluation_mode(network):
            return self.probabilities(network(images))

    def partner_probabilities(self, network: nn.Module, views: UnlabelledViews) -> Tensor | None:
        """Return `fixed_probabilities` of the partners, None if nothing is pasted."""
        return None if views.partner is None else self.fixed_probabilities(network, views.partner)
