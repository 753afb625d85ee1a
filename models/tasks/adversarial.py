"""Semi-supervised segmentation against a discriminator of label maps (Hung et al. 2018; Luc et al. 2016).

Labelled images: the discriminator learns to tell true label maps from predicted ones, then the network minimises
its segmentation loss + lambda1 x the cost of being told apart. Unlabelled images add lambda2 x that cost and, from
`semi_start` on, lambda_semi x the loss against the network's own answer where the discriminator trusts it. Both add
to one update of the network, during which the discriminator holds still. Pixels without a label take no part: see
`Adversarial.judging_loss`.
"""

from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.adversarial.discriminator import Discriminator, make_discriminator
from models.counts import one_hot
from models.distributed import present
from models.losses.functions import ratio
from models.settings import AdversarialSettings
from models.tasks.base import NETWORK, AdversarialNetwork, Batch, Outputs, Update
from models.tasks.segmentation import Segmentation

DISCRIMINATOR = "discriminator"


class Adversarial(Segmentation):
    """Target, scores and probabilities are those of `Segmentation`."""

    def __init__(self, settings: AdversarialSettings, outputs: Outputs) -> None:
        super().__init__(settings, outputs)
        self.block = settings.adversarial
        self._judge: Discriminator

    def adversarial_networks(self, channels: int) -> Mapping[str, AdversarialNetwork]:
        """Make the discriminator."""
        block = self.block
        self._judge = make_discriminator(block.discriminator, classes=self.head_channels(), channels=channels)
        return {DISCRIMINATOR: AdversarialNetwork(network=self._judge, optimizer=block.optimizer)}

    def updates(self, network: nn.Module, batch: Batch) -> Iterator[Update]:
        """Yield the discriminator's update, then the network's."""
        logits = network(batch.images)
        maps = self.probabilities(logits)
        yield Update(DISCRIMINATOR, self.judging_loss(maps.detach(), batch))
        self._judge.requires_grad_(False)
        deceiving = self.deceiving_loss(maps, batch.images, self._labelled(batch.target))
        loss = self._loss(logits, batch.target) + self.block.lambda1 * deceiving
        if batch.unlabelled is not None and self._uses_unlabelled(batch.update):
            with present(batch.unlabelled_counts):
                loss = loss + self.unlabelled_loss(network, batch.unlabelled, batch.update)
        self._judge.requires_grad_(True)
        yield Update(NETWORK, loss)

    def judging_loss(self, maps: Tensor, batch: Batch) -> Tensor:
        """Return the discriminator's binary cross-entropy: true maps are 1, predicted ones 0, both as heavy."""
        target, labelled = batch.target, self._labelled(batch.target)
        truth = (one_hot(target, maps.shape[1]) if self.outputs.exclusive else target).float()
        if labelled is not None:
            # No class at all, or any fixed one, would give true maps away: both maps are equal where there is no label.
            truth = torch.where(labelled, truth, maps)
        real, fake = self._judge(truth, batch.images), self._judge(maps, batch.images)
        return (_cross_entropy(real, 1.0, labelled) + _cross_entropy(fake, 0.0, labelled)) / 2

    def deceiving_loss(self, maps: Tensor, images: Tensor, labelled: Tensor | None = None) -> Tensor:
        """Return what it costs the network that its maps are not held for true.

        `labelled`, bool (N, 1, S, S), says where they count; None means everywhere.
        """
        if labelled is not None:
            maps = torch.where(labelled, maps, maps.detach())  # seen by answers nearby, but without a gradient
        return _cross_entropy(self._judge(maps, images), 1.0, labelled)

    def unlabelled_loss(self, network: nn.Module, images: Tensor, update: int) -> Tensor:
        """Return what images without masks cost the network after so many updates."""
        logits = network(images)
        maps = self.probabilities(logits)
        judged = self._judge(maps, images)
        loss = self.block.lambda2 * _cross_entropy(judged, 1.0)
        if self.block.lambda_semi and update >= self.block.semi_start:
            loss = loss + self.block.lambda_semi * self.self_training_loss(logits, judged)
        return loss

    def self_training_loss(self, logits: Tensor, judged: Tensor) -> Tensor:
        """Return the cross-entropy against the network's own answer, a mean over trusted pixels; 0 without any."""
        scores = logits.float()
        trust = F.interpolate(judged.detach().float().sigmoid(), size=scores.shape[-2:], mode="bilinear")
        trusted = trust > self.block.t_semi
        if self.outputs.exclusive:
            cost = -F.log_softmax(scores, dim=1).max(dim=1, keepdim=True).values
        else:
            cost = F.binary_cross_entropy_with_logits(scores, (scores.detach() > 0).float(), reduction="none")
            trusted = trusted.expand_as(cost)
        return ratio(cost * trusted, trusted)

    def _uses_unlabelled(self, update: int) -> bool:
        trains_itself = self.block.lambda_semi > 0 and update >= self.block.semi_start
        return self.block.lambda2 > 0 or trains_itself


def _cross_entropy(judged: Tensor, truth: float, labelled: Tensor | None = None) -> Tensor:
    """Return the mean over answers (N, 1, h, w), each weighted by how much of its part of the map has a label."""
    scores = judged.float()
    cost = F.binary_cross_entropy_with_logits(scores, torch.full_like(scores, truth), reduction="none")
    if labelled is None:
        return ratio(cost, torch.ones_like(cost))
    weights = F.interpolate(labelled.float(), size=cost.shape[-2:], mode="area")
    return ratio(cost * weights, weights)
