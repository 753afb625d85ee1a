"""What all methods of consistency have in common: views of unlabelled images, with pasted regions."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from models.network import evaluation_mode
from models.task_settings.consistency import ConsistencySettings
from models.tasks.base import Batch, Outputs
from models.tasks.consistency.losses import confident_share
from models.tasks.semi_supervised import SemiSupervised


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


class Consistency(SemiSupervised):
    """Images without masks are seen in several views, whose predictions have to agree."""

    def __init__(self, settings: ConsistencySettings, outputs: Outputs) -> None:
        super().__init__(settings, outputs)
        self.block = settings.consistency

    @property
    def weighting(self) -> tuple[float, float]:
        """Return the weight of unlabelled images, and the share of all updates in which it rises."""
        return self.block.weight, self.block.ramp_up_share

    def pool_loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return the loss of the views of the unlabelled images, before it is weighted."""
        return self.unlabelled_loss(network, UnlabelledViews.of(batch))

    @abstractmethod
    def unlabelled_loss(self, network: nn.Module, views: UnlabelledViews) -> Tensor:
        """Return the loss of unlabelled images, before it is weighted."""

    @torch.no_grad()
    def fixed_probabilities(self, network: nn.Module, images: Tensor) -> Tensor:
        """Return the probabilities (N, classes, height, width) of a network in evaluation mode, without gradient."""
        with evaluation_mode(network):
            return self.probabilities(network(images))

    def report_confident(self, probabilities: Tensor) -> None:
        """Report the share of pixels of weak views that are confident."""
        share = confident_share(probabilities, exclusive=self.outputs.exclusive, confidence=self.block.confidence)
        self.report("confident", share)

    def partner_probabilities(self, network: nn.Module, views: UnlabelledViews) -> Tensor | None:
        """Return `fixed_probabilities` of the partners, None if nothing is pasted."""
        return None if views.partner is None else self.fixed_probabilities(network, views.partner)
