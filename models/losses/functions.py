"""Losses by name. All take raw outputs, compute in float32 whatever comes in, and return a scalar.

Shapes: logits (N, C, ...). Exclusive classes (softmax, channel 0 is the background) take ids (N, ...),
all others a target of the logits' shape, where NaN means unknown and does not count. `class_weights` (C,)
make every mean over classes a weighted one, so that their scale does not matter. Pixels of the id
`models.counts.IGNORE` have no label: they count in no loss, and its gradient is 0 there.

The batch is that of all workers together: every sum over it goes through `models.distributed.total`.

`torch.nn.functional.cross_entropy` is avoided: on CUDA it has no deterministic form for images.
A change of numerics raises `losses` in `models.versions`.
"""

from collections.abc import Mapping
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from models.counts import is_labelled, one_hot
from models.distributed import total
from models.losses.boundary import boundary_weights
from models.settings import LossName

SMOOTHING = 1.0
"""Pixels added above and below the bar of overlap scores: an absent class that is not predicted costs 0."""
FOCAL_GAMMA = 2.0
TVERSKY_FALSE_POSITIVES = 0.3
TVERSKY_FALSE_NEGATIVES = 0.7

_TINY = 1e-12


class Loss(Protocol):
    """The one signature of all losses."""

    def __call__(
        self, logits: Tensor, target: Tensor, *, exclusive: bool = False, class_weights: Tensor | None = None
    ) -> Tensor:
        """Return the scalar loss of a batch."""


def cross_entropy(
    logits: Tensor, target: Tensor, *, exclusive: bool = True, class_weights: Tensor | None = None
) -> Tensor:
    """Negative log probability of the true class; a mean over pixels weighted by their true class."""
    if not exclusive:
        raise ValueError("cross_entropy on overlapping classes; allowed: exclusive classes; take binary_cross_entropy")
    log_p = F.log_softmax(logits.float(), dim=1)
    return _mean_at_truth(-log_p, target, class_weights)


def boundary_cross_entropy(
    logits: Tensor, target: Tensor, *, exclusive: bool = True, class_weights: Tensor | None = None
) -> Tensor:
    """Cross-entropy whose pixels between neighbouring regions weigh more (Ronneberger et al. 2015, equation 2).

    Each pixel weighs its true class's weight plus what `models.losses.boundary` says; a mean by these weights.
    """
    if not exclusive:
        raise ValueError(
            "boundary_cross_entropy on overlapping classes; allowed: exclusive classes; take binary_cross_entropy"
        )
    truth = one_hot(target, logits.shape[1]).float()
    weights = truth if class_weights is None else truth * class_weights.float().view(1, -1, 1, 1)
    weights = weights.sum(dim=1) + boundary_weights(target)
    cost = -(F.log_softmax(logits.float(), dim=1) * truth).sum(dim=1)
    return ratio(cost * weights, weights)


def binary_cross_entropy(
    logits: Tensor, target: Tensor, *, exclusive: bool = False, class_weights: Tensor | None = None
) -> Tensor:
    """Binary cross-entropy of each channel; with exclusive classes of each softmax channel."""
    scores = logits.float()
    if exclusive:
        log_p, log_rest = _log_softmax_and_rest(scores)
        truth = one_hot(target, scores.shape[1])
        counted = torch.ones_like(truth) & is_labelled(target).unsqueeze(1)
        return _mean(-torch.where(truth, log_p, log_rest), counted, class_weights)
    truth, known = _known(target)
    return _mean(F.binary_cross_entropy_with_logits(scores, truth, reduction="none"), known, class_weights)


def focal(logits: Tensor, target: Tensor, *, exclusive: bool = False, class_weights: Tensor | None = None) -> Tensor:
    """-(1 - p)^2 log p of the truth's probability p (Lin et al. 2017), without their alpha."""
    scores = logits.float()
    if exclusive:
        log_p = F.log_softmax(scores, dim=1)
        return _mean_at_truth(-((1 - log_p.exp()) ** FOCAL_GAMMA) * log_p, target, class_weights)
    truth, known = _known(target)
    cost = F.binary_cross_entropy_with_logits(scores, truth, reduction="none")
    return _mean((1 - torch.exp(-cost)) ** FOCAL_GAMMA * cost, known, class_weights)


def dice(logits: Tensor, target: Tensor, *, exclusive: bool = False, class_weights: Tensor | None = None) -> Tensor:
    """1 - soft Dice, per foreground class over all pixels of the batch, then the mean over classes."""
    return _class_mean(1 - _soft_dice(logits, target, exclusive), class_weights, exclusive)


def log_dice(logits: Tensor, target: Tensor, *, exclusive: bool = False, class_weights: Tensor | None = None) -> Tensor:
    """-log of the soft Dice of each foreground class (Hu et al.), then the mean over classes."""
    return _class_mean(-_soft_dice(logits, target, exclusive).log(), class_weights, exclusive)


def jaccard(logits: Tensor, target: Tensor, *, exclusive: bool = False, class_weights: Tensor | None = None) -> Tensor:
    """1 - soft intersection over union, per foreground class over the batch, then the mean."""
    both, predicted, actual = _overlap(logits, target, exclusive)
    score = (both + SMOOTHING) / (predicted + actual - both + SMOOTHING)
    return _class_mean(1 - score, class_weights, exclusive)


def tversky(logits: Tensor, target: Tensor, *, exclusive: bool = False, class_weights: Tensor | None = None) -> Tensor:
    """1 - Tversky index (Salehi et al. 2017): false positives cost 0.3, false negatives 0.7."""
    both, predicted, actual = _overlap(logits, target, exclusive)
    wrong = TVERSKY_FALSE_POSITIVES * (predicted - both) + TVERSKY_FALSE_NEGATIVES * (actual - both)
    return _class_mean(1 - (both + SMOOTHING) / (both + wrong + SMOOTHING), class_weights, exclusive)


def mse(logits: Tensor, target: Tensor, *, exclusive: bool = False, class_weights: Tensor | None = None) -> Tensor:
    """Mean squared difference of the raw output; values have no classes that could exclude each other."""
    truth, known = _known(target)
    return _mean((logits.float() - truth) ** 2, known, class_weights)


def l1(logits: Tensor, target: Tensor, *, exclusive: bool = False, class_weights: Tensor | None = None) -> Tensor:
    """Mean absolute difference of the raw output."""
    truth, known = _known(target)
    return _mean((logits.float() - truth).abs(), known, class_weights)


losses: Mapping[LossName, Loss] = {
    "cross_entropy": cross_entropy,
    "boundary_cross_entropy": boundary_cross_entropy,
    "binary_cross_entropy": binary_cross_entropy,
    "dice": dice,
    "log_dice": log_dice,
    "focal": focal,
    "jaccard": jaccard,
    "tversky": tversky,
    "mse": mse,
    "l1": l1,
}


def weighted_sum(
    weights: Mapping[LossName, float],
    logits: Tensor,
    target: Tensor,
    *,
    exclusive: bool = False,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Return the sum of weight x loss; terms of weight 0 are not computed.

    Terms are added in the order of their names: how a study file orders them must not change a bit.
    """
    terms = [
        weight * losses[name](logits, target, exclusive=exclusive, class_weights=class_weights)
        for name, weight in sorted(weights.items())
        if weight
    ]
    return torch.stack(terms).sum()


def _known(target: Tensor) -> tuple[Tensor, Tensor]:
    values = target.float()
    return torch.nan_to_num(values), ~torch.isnan(values)


def _mean(cost: Tensor, counted: Tensor, class_weights: Tensor | None) -> Tensor:
    """Mean of cost (N, C, ...) where counted; 0, with its graph, where nothing counts."""
    weights = counted.float()
    if class_weights is not None:
        weights = weights * class_weights.float().view(1, -1, *[1] * (cost.dim() - 2))
    return ratio(cost * weights, weights)


def ratio(costs: Tensor, weights: Tensor) -> Tensor:
    """Return the sum of costs over that of weights, of all workers; 0, with its graph, where nothing weighs."""
    sums = total(torch.stack([costs.sum(), weights.sum()]))
    return sums[0] / sums[1].clamp_min(_TINY)


def _mean_at_truth(cost: Tensor, ids: Tensor, class_weights: Tensor | None) -> Tensor:
    """Mean over pixels of the true class's cost; the one-hot product has a deterministic gradient."""
    return _mean(cost, one_hot(ids, cost.shape[1]), class_weights)


def _class_mean(per_class: Tensor, class_weights: Tensor | None, exclusive: bool) -> Tensor:
    if class_weights is None:
        return per_class.mean()
    weights = class_weights.float()[1:] if exclusive else class_weights.float()
    return (per_class * weights).sum() / weights.sum().clamp_min(_TINY)


def _overlap(logits: Tensor, target: Tensor, exclusive: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return soft sizes (C,) of intersection, prediction and truth, of foreground classes, over all workers."""
    scores = logits.float()
    if exclusive:
        p = (scores.softmax(dim=1) * is_labelled(target).unsqueeze(1))[:, 1:]
        truth = one_hot(target, scores.shape[1])[:, 1:].float()
    else:
        p, truth = scores.sigmoid(), target.float()
    over = [0, *range(2, p.dim())]
    both, predicted, actual = total(torch.stack([(p * truth).sum(over), p.sum(over), truth.sum(over)]))
    return both, predicted, actual


def _soft_dice(logits: Tensor, target: Tensor, exclusive: bool) -> Tensor:
    both, predicted, actual = _overlap(logits, target, exclusive)
    return (2 * both + SMOOTHING) / (predicted + actual + SMOOTHING)


def _log_softmax_and_rest(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Return log p and log(1 - p) of softmax channels without cancellation.

    At most one p of a pixel is near 1; its 1 - p is summed from the others, the rest is safe for log1p.
    """
    log_p = F.log_softmax(scores, dim=1)
    near_one = log_p > -0.25
    others = torch.logsumexp(log_p.masked_fill(near_one, -torch.inf), dim=1, keepdim=True)
    rest = torch.log1p(-log_p.exp().masked_fill(near_one, 0.0))
    return log_p, torch.where(near_one, others, rest)
