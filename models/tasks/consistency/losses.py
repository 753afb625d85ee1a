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
        certainty, ids = targets.max(dim=1, keepdim=True)
        truth = one_hot(ids.squeeze(1), scores.shape[1])
        cost = -(F.log_softmax(scores, dim=1) * truth).sum(dim=1, keepdim=True)
    else:
        present = targets >= 0.5
        certainty = torch.where(present, targets, 1 - targets)
        cost = F.binary_cross_entropy_with_logits(scores, present.float(), reduction="none")
    weights = torch.ones_like(cost) if counted is None else counted.expand_as(cost).float()
    return ratio(cost * weights * (certainty >= confidence), weights)
