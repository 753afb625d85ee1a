"""UniMatch (Yang et al. 2023): FixMatch with two strong views, and a weak view with perturbed features."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from models.network import Network
from models.tasks.consistency.base import Consistency, UnlabelledViews
from models.tasks.consistency.losses import pseudo_label_loss

IMAGE_WEIGHT, FEATURE_WEIGHT = 0.25, 0.5
"""Weights of each strong view and of the view with perturbed features."""
MAP_DIMENSIONS = 4


class UniMatch(Consistency):
    """The weak view gives the classes of all others; it is decoded together with its perturbed features."""

    reports = (*Consistency.reports, "confident")

    def unlabelled_loss(self, network: nn.Module, views: UnlabelledViews) -> Tensor:
        """Return the weighted sum of the losses of both strong views and of the perturbed features."""
        assert isinstance(network, Network), "the encoder and the decoder are applied separately"
        partner = self.partner_probabilities(network, views)
        encoded = network.encode(views.weak)
        dropped = drop_channels(encoded.features, views.keys, self.block.feature_dropout)
        both = [torch.cat(maps) for maps in zip(encoded.features, dropped, strict=True)]
        weak, perturbed = network.decode(replace(encoded, features=both)).chunk(2)
        targets = self.probabilities(weak.detach())
        self.report_confident(targets)
        strong = network(torch.cat(views.strong)).chunk(len(views.strong))
        losses = [self._loss_against(*pair) for pair in zip(strong, views.mixed(targets, partner), strict=True)]
        return IMAGE_WEIGHT * torch.stack(losses).sum() + FEATURE_WEIGHT * self._loss_against(perturbed, targets)

    def combined(self, labelled: Tensor, unlabelled: Tensor) -> Tensor:
        """Return the mean of both losses. Without unlabelled images the loss is that of labelled images, not half."""
        return (labelled + unlabelled) / 2

    def _loss_against(self, logits: Tensor, targets: Tensor) -> Tensor:
        return pseudo_label_loss(logits, targets, exclusive=self.outputs.exclusive, confidence=self.block.confidence)


def drop_channels(features: Sequence[Tensor], keys: Sequence[int], probability: float) -> list[Tensor]:
    """Set random channels of feature maps (N, channels, height, width) to 0 and scale the others, as `nn.Dropout2d`.

    The channels of an image depend on its key alone. Features of other dimensions, such as the class tokens of vision
    transformers (N, tokens, width), stay as they are.
    """
    widths = [maps.shape[1] if maps.dim() == MAP_DIMENSIONS else 0 for maps in features]
    drawn = [np.random.Generator(np.random.Philox(key=key)).random(sum(widths)) for key in keys]
    kept = torch.from_numpy(np.stack(drawn) >= probability).to(features[0].device)
    factors = torch.split(kept / (1 - probability), widths, dim=1)
    return [
        maps * factor[:, :, None, None].to(maps.dtype) if maps.dim() == MAP_DIMENSIONS else maps
        for maps, factor in zip(features, factors, strict=True)
    ]
