"""Losses of predictions against other predictions, which are means over all workers."""

import torch
import torch.nn.functional as F
from torch import Tensor

from models.counts import one_hot
from models.losses.functions import ratio


def squared_distance(probabilities: Tensor, targets: Tensor) -> Tensor:
    """Return the squared distance of probabilities (N, classes, height, width): a sum over classes, mean over pixels.

    That of French et al. (2020), without their factor: the share of pixels of which the teacher is confident.
    """
    cost = (probabilities - targets).square().sum(dim=1)
    return ratio(cost, torch.ones_like(cost))


def pseudo_label_loss(
    logits: Tensor, targets: Tensor, *, exclusive: bool, confidence: float = 0.0, counted: Tensor | None = None
) -> Tensor:
    """Return the cross-entropy against the most likely classes of other predictions, without gradient to these.

    It is a mean over all counted pixels; those that are not confident enough contribute 0 to it. Overlapping classes
    are present or absent, whichever is more likely, and each of them is confident or not.

    Args:
        logits: (N, classes, height, width).
        targets: Probabilities of the same shape.
        exclusive: Whether classes are exclusive.
        confidence: Minimum probability of the most likely class.
        counted: Pixels (N, 1, height, width), bool, or those of each overlapping class (N, classes, height, width);
            None for all.
    """
    scores, targets = logits.float(), targets.detach()
    if exclusive:
        truth = one_hot(targets.max(dim=1).indices, scores.shape[1])
        cost = -(F.log_softmax(scores, dim=1) * truth).sum(dim=1, keepdim=True)
    else:
        cost = F.binary_cross_entropy_with_logits(scores, (targets >= 0.5).float(), reduction="none")
    weights = torch.ones_like(cost) if counted is None else counted.expand_as(cost).float()
    return ratio(cost * weights * (certainty(targets, exclusive=exclusive) >= confidence), weights)


def certainty(probabilities: Tensor, *, exclusive: bool) -> Tensor:
    """Return the probability (N, 1, height, width) of the most likely class.

    Overlapping classes are present or absent, whichever is more likely: (N, classes, height, width).
    """
    if exclusive:
        return probabilities.amax(dim=1, keepdim=True)
    return torch.where(probabilities >= 0.5, probabilities, 1 - probabilities)


def confident_share(probabilities: Tensor, *, exclusive: bool, confidence: float) -> Tensor:
    """Return the share of pixels, of all classes if these overlap, whose `certainty` is at least the confidence."""
    confident = (certainty(probabilities, exclusive=exclusive) >= confidence).float()
    return ratio(confident, torch.ones_like(confident))
