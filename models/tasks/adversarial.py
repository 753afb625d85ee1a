"""Semi-supervised segmentation against a discriminator of label maps (Hung et al. 2018; Luc et al. 2016).

Labelled images: the discriminator is trained to classify label maps as ground truth or prediction, then the network
minimises its segmentation loss + lambda1 x adversarial loss. Unlabelled images add lambda2 x adversarial loss and, from
`semi_start` on, lambda_semi x the self-training loss on pixels that the discriminator trusts. Both are part of one
update of the network, during which the discriminator is frozen. Unlabelled pixels are ignored, see
`Adversarial.discriminator_loss`.

With `unlabelled_start` there are two phases: supervised training, then training with unlabelled images, optionally
with a fixed discriminator and without labelled images.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.adversarial.discriminator import Discriminator, make_discriminator
from models.counts import one_hot
from models.distributed import contributing
from models.losses.functions import ratio
from models.network import Network
from models.settings import AdversarialSettings
from models.tasks.base import NETWORK, Batch, Companion, NetworkFactory, Outputs, Update
from models.tasks.segmentation import Segmentation

DISCRIMINATOR = "discriminator"


class Adversarial(Segmentation):
    """Target, scores and probabilities are those of `Segmentation`."""

    takes_features = False
    reports: tuple[str, ...] = ("labelled_loss", "unlabelled_loss")

    def __init__(self, settings: AdversarialSettings, outputs: Outputs) -> None:
        super().__init__(settings, outputs)
        self._reported: dict[str, Tensor] = {}
        self.block = settings.adversarial
        self._discriminator: Discriminator

    def reported(self) -> Mapping[str, Tensor]:
        """Return the losses of labelled and of unlabelled images, whose sum is that of the network."""
        return self._reported

    def companions(self, network: Network, another_network: NetworkFactory | None = None) -> Mapping[str, Companion]:
        """Create the discriminator."""
        block, channels = self.block, network.mean.shape[1]
        self._discriminator = make_discriminator(block.discriminator, classes=self.head_channels(), channels=channels)
        return {DISCRIMINATOR: Companion(module=self._discriminator, trained="apart", optimizer=block.optimizer)}

    def updates(self, network: nn.Module, batch: Batch) -> Iterator[Update]:
        """Yield the discriminator's update unless it is fixed, then the network's."""
        block, losses = self.block, list[Tensor]()
        self._reported = {}
        is_second_phase = batch.unlabelled is not None and batch.update >= block.unlabelled_start
        is_fixed = is_second_phase and block.freeze_discriminator
        self._discriminator.train(not is_fixed)  # eval mode fixes the statistics of batch norm too
        if not (is_second_phase and block.unlabelled_only):
            logits = network(batch.images)
            maps = self.probabilities(logits)
            if not is_fixed:
                yield Update(DISCRIMINATOR, self.discriminator_loss(maps.detach(), batch))
            with _without_gradients(self._discriminator):
                adversarial = self.adversarial_loss(maps, batch.images, self._labelled(batch.target))
            losses.append(self._loss(logits, batch.target) + block.lambda1 * adversarial)
            self._reported["labelled_loss"] = losses[-1].detach()
        if batch.unlabelled is not None and block.uses_unlabelled(batch.update):
            with contributing(batch.unlabelled_counts), _without_gradients(self._discriminator):
                losses.append(self.unlabelled_loss(network, batch.unlabelled, batch.update))
            self._reported["unlabelled_loss"] = losses[-1].detach()
        yield Update(NETWORK, sum(losses[1:], start=losses[0]))

    def discriminator_loss(self, maps: Tensor, batch: Batch) -> Tensor:
        """Return the binary cross-entropy of the discriminator (true maps 1, predicted maps 0, equal weights)."""
        target, labelled = batch.target, self._labelled(batch.target)
        truth = (one_hot(target, maps.shape[1]) if self.outputs.exclusive else target).float()
        # Any fixed value at unlabelled pixels would identify true maps, so both maps are equal there.
        truth = torch.where(labelled, truth, maps)
        real, fake = self._discriminator(truth, batch.images), self._discriminator(maps, batch.images)
        return (_cross_entropy(real, 1.0, labelled) + _cross_entropy(fake, 0.0, labelled)) / 2

    def adversarial_loss(self, maps: Tensor, images: Tensor, labelled: Tensor | None = None) -> Tensor:
        """Return the adversarial loss of the network: the cross-entropy of its maps against the target "true".

        It is restricted to `labelled`, bool (N, 1, S, S) or of each class (N, C, S, S); None means all pixels.
        """
        if labelled is not None:
            maps = torch.where(labelled, maps, maps.detach())  # part of the receptive field, but without gradient
        return _cross_entropy(self._discriminator(maps, images), 1.0, labelled)

    def unlabelled_loss(self, network: nn.Module, images: Tensor, update: int) -> Tensor:
        """Return the loss of images without masks at the given update."""
        logits = network(images)
        maps = self.probabilities(logits)
        discriminator_output = self._discriminator(maps, images)
        loss = self.block.lambda2 * _cross_entropy(discriminator_output, 1.0)
        if self.block.self_trains(update):
            loss = loss + self.block.lambda_semi * self.self_training_loss(logits, discriminator_output)
        return loss

    def self_training_loss(self, logits: Tensor, discriminator_output: Tensor) -> Tensor:
        """Return the cross-entropy against the network's prediction, a mean over trusted pixels; 0 without any."""
        scores = logits.float()
        trust = F.interpolate(discriminator_output.detach().float().sigmoid(), size=scores.shape[-2:], mode="bilinear")
        trusted = trust > self.block.t_semi
        if self.outputs.exclusive:
            cost = -F.log_softmax(scores, dim=1).max(dim=1, keepdim=True).values
        else:
            cost = F.binary_cross_entropy_with_logits(scores, (scores.detach() > 0).float(), reduction="none")
            trusted = trusted.expand_as(cost)
        return ratio(cost * trusted, trusted)


@contextmanager
def _without_gradients(discriminator: Discriminator) -> Iterator[None]:
    """Compute no gradients of the discriminator's parameters within the block."""
    discriminator.requires_grad_(False)
    try:
        yield
    finally:
        discriminator.requires_grad_(True)


def _cross_entropy(discriminator_output: Tensor, truth: float, labelled: Tensor | None = None) -> Tensor:
    """Return the mean over outputs (N, 1, h, w), weighted by the labelled fraction of the corresponding area.

    Of `labelled` pixels of each class (N, C, S, S), this is the mean over classes.
    """
    scores = discriminator_output.float()
    cost = F.binary_cross_entropy_with_logits(scores, torch.full_like(scores, truth), reduction="none")
    if labelled is None:
        return ratio(cost, torch.ones_like(cost))
    # Sums of whole numbers are exact, so that weights are exactly 1 where all classes are labelled.
    fraction = labelled.float().sum(dim=1, keepdim=True) / labelled.shape[1]
    weights = F.interpolate(fraction, size=cost.shape[-2:], mode="area")
    return ratio(cost * weights, weights)
