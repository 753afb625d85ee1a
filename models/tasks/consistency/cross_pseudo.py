"""Cross pseudo supervision, CPS (Chen et al. 2021)."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from models.network import Network
from models.tasks.base import Batch, Companion, NetworkFactory
from models.tasks.consistency.base import Consistency, UnlabelledViews
from models.tasks.consistency.losses import pseudo_label_loss

SECOND_NETWORK = "second_network"


class CrossPseudo(Consistency):
    """Two networks learn from masks, and each of them from the most likely classes of the other.

    They have the same initial weights; all others are drawn independently. The loss of a batch is the sum of both. The
    first network is kept.

    Without CutMix the other network, in training mode, also gives the classes of labelled images. The weight scales
    this loss too, and without unlabelled images it is the only one between the networks. With CutMix, as in the variant
    of the paper, the classes are those of unlabelled images alone, of both weak views in evaluation mode.
    """

    _second: Network

    def companions(self, network: Network, another_network: NetworkFactory | None = None) -> Mapping[str, Companion]:
        """Create the second network."""
        assert another_network is not None, "the second network starts as the first one does"
        self._second = another_network()
        return {SECOND_NETWORK: Companion(module=self._second, trained="jointly")}

    def labelled_loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return the loss of the masks; without CutMix also that of the other network at labelled pixels, weighted."""
        logits = self._logits(network, batch.images)
        smoothing = self.settings.label_smoothing
        supervised = torch.stack([self._loss(part, batch.target, label_smoothing=smoothing) for part in logits]).sum()
        if self.block.cutmix:
            return supervised
        targets = [self.probabilities(part.detach()) for part in logits]
        return supervised + self.factor(batch) * self._cross_loss(logits, targets, self._labelled(batch.target))

    def unlabelled_loss(self, network: nn.Module, views: UnlabelledViews) -> Tensor:
        """Return the sum of the cross-entropies of both networks."""
        if not views.strong:
            logits = self._logits(network, views.weak)
            return self._cross_loss(logits, [self.probabilities(part.detach()) for part in logits])
        targets = [self._mixed_targets(teacher, views) for teacher in (network, self._second)]
        (strong,) = views.strong
        return self._cross_loss(self._logits(network, strong), targets)

    def _logits(self, network: nn.Module, images: Tensor) -> list[Tensor]:
        """Return the logits of both networks."""
        return [network(images), self._second(images)]

    def _mixed_targets(self, network: nn.Module, views: UnlabelledViews) -> Tensor:
        weak = self.fixed_probabilities(network, views.weak)
        (targets,) = views.mixed(weak, self.partner_probabilities(network, views))
        return targets

    def _cross_loss(self, logits: Sequence[Tensor], targets: Sequence[Tensor], counted: Tensor | None = None) -> Tensor:
        """Return the losses of the logits of each network against the probabilities of the other."""
        losses = [
            pseudo_label_loss(part, target, exclusive=self.outputs.exclusive, counted=counted)
            for part, target in zip(logits, reversed(targets), strict=True)
        ]
        return torch.stack(losses).sum()
