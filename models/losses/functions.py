"""Losses by name. All take raw outputs of any dtype, compute in float32, and return a scalar.

Shapes: logits (N, C, ...). Exclusive classes (softmax, channel 0 is the background) take ids (N, ...),
all others a target with the shape of the logits, in which NaN (unknown) is ignored. `class_weights` (C,) are the
weights of means over classes, so their scale is irrelevant. `models.counts.IGNORE`, as an id or in a target of whole
numbers, marks pixels that are not annotated: they are ignored by all losses and have gradient 0. Means over classes
leave out overlapping classes without an annotated pixel in the batch.

The losses in `models.settings.soft_losses` also take the probabilities of all channels as a floating-point target with
the shape of the logits, NaN where they are unknown. The intersection of overlap losses then is the sum of min(p, t) in
place of p t, so that they are smallest where the prediction p equals the target t (Wang et al. 2023).

Losses are those of the global batch: all sums over it use `models.distributed.sum_with_gradient`.

`torch.nn.functional.cross_entropy` is avoided: on CUDA it has no deterministic form for images.
A change of numerics increases `losses` in `models.versions`.
"""

from collections.abc import Mapping
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from models.counts import is_labelled, one_hot
from models.distributed import sum_with_gradient
from models.losses.boundary import boundary_weights
from models.losses.centre_lines import soft_skeleton
from models.losses.distances import signed_distances
from models.settings import LossName

SMOOTHING = 1.0
"""Pixels added to numerator and denominator of overlap scores: absent classes that are not predicted have loss 0."""
FOCAL_GAMMA = 2.0
TVERSKY_FALSE_POSITIVES = 0.3
TVERSKY_FALSE_NEGATIVES = 0.7
FOCAL_TVERSKY_EXPONENT = 0.75
"""1 / gamma with the gamma of 4/3 of the paper."""

_TINY = 1e-12


class Loss(Protocol):
    """The common signature of all losses."""

    def __call__(
        self, logits: Tensor, target: Tensor, *, exclusive: bool = False, class_weights: Tensor | None = None
    ) -> Tensor:
        """Return the scalar loss of a batch."""


class SmoothedLoss(Protocol):
    """The signature of losses with label smoothing."""

    def __call__(
        self, logits: Tensor, target: Tensor, *, exclusive: bool, class_weights: Tensor | None, label_smoothing: float
    ) -> Tensor:
        """Return the scalar loss of a batch."""


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    exclusive: bool = True,
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return the cross-entropy, a mean over pixels weighted by the weight of their true class.

    `label_smoothing` is that of `torch.nn.functional.cross_entropy`.
    """
    if not exclusive:
        raise ValueError("cross_entropy on overlapping classes; allowed: exclusive classes; take binary_cross_entropy")
    log_p = F.log_softmax(logits.float(), dim=1)
    truth, known = _distributions(target, log_p.shape[1])
    if not label_smoothing:
        return _mean(-log_p, truth, class_weights)
    uniform = known / log_p.shape[1]
    smoothed = (1 - label_smoothing) * truth + label_smoothing * uniform
    weights = 1.0 if class_weights is None else class_weights.float().view(1, -1, *[1] * (log_p.dim() - 2))
    return ratio(-log_p * smoothed * weights, truth * weights)


def boundary_cross_entropy(
    logits: Tensor, target: Tensor, *, exclusive: bool = True, class_weights: Tensor | None = None
) -> Tensor:
    """Return the cross-entropy with larger weights between adjacent regions (Ronneberger et al. 2015, equation 2).

    The weight of a pixel is that of its true class plus that of `models.losses.boundary`.
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
    logits: Tensor,
    target: Tensor,
    *,
    exclusive: bool = False,
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return the binary cross-entropy of each channel, for exclusive classes of each softmax channel.

    `label_smoothing` s replaces the truth t by t (1 - s) + s / 2.
    """
    scores = logits.float()
    if exclusive:
        log_p, log_rest = _log_softmax_and_rest(scores)
        truth, known = _distributions(target, scores.shape[1])
        counted = known.expand_as(truth)
        is_soft = target.is_floating_point()
        cost = -(truth * log_p + (1 - truth) * log_rest) if is_soft else -torch.where(truth.bool(), log_p, log_rest)
        if label_smoothing:
            cost = (1 - label_smoothing) * cost - label_smoothing / 2 * (log_p + log_rest)
        return _mean(cost, counted, class_weights)
    truth, known = _known(target)
    if label_smoothing:
        truth = truth * (1 - label_smoothing) + label_smoothing / 2
    return _mean(F.binary_cross_entropy_with_logits(scores, truth, reduction="none"), known, class_weights)


def focal(logits: Tensor, target: Tensor, *, exclusive: bool = False, class_weights: Tensor | None = None) -> Tensor:
    """Return -(1 - p)^2 log p of the probability p of the truth (Lin et al. 2017), without alpha."""
    scores = logits.float()
    if exclusive:
        log_p = F.log_softmax(scores, dim=1)
        return _mean_at_truth(-((1 - log_p.exp()) ** FOCAL_GAMMA) * log_p, target, class_weights)
    truth, known = _known(target)
    cost = F.binary_cross_entropy_with_logits(scores, truth, reduction="none")
    return _mean((1 - torch.exp(-cost)) ** FOCAL_GAMMA * cost, known, class_weights)


def dice(logits: Tensor, target: Tensor, *, exclusive: bool = False, class_weights: Tensor | None = None) -> Tensor:
    """Return 1 - soft Dice, per foreground class over all pixels of the batch, then the mean over classes."""
    score, annotated = _soft_dice(logits, target, exclusive)
    return _class_mean(1 - score, class_weights, exclusive, annotated)


def log_dice(logits: Tensor, target: Tensor, *, exclusive: bool = False, class_weights: Tensor | None = None) -> Tensor:
    """Return -log of the soft Dice of each foreground class (Hu et al.), then the mean over classes."""
    score, annotated = _soft_dice(logits, target, exclusive)
    return _class_mean(-score.log(), class_weights, exclusive, annotated)


def jaccard(logits: Tensor, target: Tensor, *, exclusive: bool = False, class_weights: Tensor | None = None) -> Tensor:
    """Return 1 - soft intersection over union, per foreground class over the batch, then the mean."""
    intersection, predicted, actual, annotated = _overlap(logits, target, exclusive)
    score = (intersection + SMOOTHING) / (predicted + actual - intersection + SMOOTHING)
    return _class_mean(1 - score, class_weights, exclusive, annotated)


def tversky(logits: Tensor, target: Tensor, *, exclusive: bool = False, class_weights: Tensor | None = None) -> Tensor:
    """Return 1 - Tversky index (Salehi et al. 2017): false positives cost 0.3, false negatives 0.7."""
    index, annotated = _tversky_index(logits, target, exclusive)
    return _class_mean(1 - index, class_weights, exclusive, annotated)


def focal_tversky(
    logits: Tensor, target: Tensor, *, exclusive: bool = False, class_weights: Tensor | None = None
) -> Tensor:
    """Return (1 - Tversky index)^(3/4) of each foreground class (Abraham and Khan 2019), then the mean over classes."""
    index, annotated = _tversky_index(logits, target, exclusive)
    cost = 1 - index
    # The power has no finite gradient at 0.
    cost = torch.where(cost > _TINY, cost.clamp_min(_TINY) ** FOCAL_TVERSKY_EXPONENT, 0 * cost)
    return _class_mean(cost, class_weights, exclusive, annotated)


def cldice(logits: Tensor, target: Tensor, *, exclusive: bool = False, class_weights: Tensor | None = None) -> Tensor:
    """Return 1 - soft centre line Dice of each foreground class over the batch (Shit et al. 2021), then the mean."""
    p, truth, known = _foreground(logits, target, exclusive)
    predicted_line, true_line = soft_skeleton(p), soft_skeleton(truth)
    dims = [0, 2, 3]
    sums = [predicted_line * truth, predicted_line, true_line * p, true_line, known.to(p.dtype).expand_as(p)]
    inside, predicted, covered, actual, pixels = sum_with_gradient(torch.stack([maps.sum(dims) for maps in sums]))
    precision, sensitivity = (
        (inside + SMOOTHING) / (predicted + SMOOTHING),
        (covered + SMOOTHING) / (actual + SMOOTHING),
    )
    cost = 1 - 2 * precision * sensitivity / (precision + sensitivity)
    return _class_mean(cost, class_weights, exclusive, pixels > 0)


def boundary(logits: Tensor, target: Tensor, *, exclusive: bool = False, class_weights: Tensor | None = None) -> Tensor:
    """Return the mean over pixels of p x signed distance to the true boundary in pixels (Kervadec et al. 2019).

    Foreground classes only; negative where the prediction lies inside. To be combined with an overlap loss. Pixels
    without a label count as outside when distances are measured.
    """
    p, truth, known = _foreground(logits, target, exclusive)
    cost = p * signed_distances(truth.bool())
    weights = class_weights[1:] if class_weights is not None and exclusive else class_weights
    return _mean(cost, known.expand_as(cost), weights)


def mse(logits: Tensor, target: Tensor, *, exclusive: bool = False, class_weights: Tensor | None = None) -> Tensor:
    """Return the mean squared error of the raw output; `exclusive` is ignored."""
    truth, known = _known(target)
    return _mean((logits.float() - truth) ** 2, known, class_weights)


def l1(logits: Tensor, target: Tensor, *, exclusive: bool = False, class_weights: Tensor | None = None) -> Tensor:
    """Return the mean absolute error of the raw output."""
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
    "focal_tversky": focal_tversky,
    "cldice": cldice,
    "boundary": boundary,
    "mse": mse,
    "l1": l1,
}
smoothed_losses: Mapping[LossName, SmoothedLoss] = {
    "cross_entropy": cross_entropy,
    "binary_cross_entropy": binary_cross_entropy,
}


def weighted_sum(
    weights: Mapping[LossName, float],
    logits: Tensor,
    target: Tensor,
    *,
    exclusive: bool = False,
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return the sum of weight x loss; terms of weight 0 are not computed.

    Terms are added in the order of their names, so the result does not depend on the order in a study file.
    `label_smoothing` applies to cross-entropies.
    """
    terms = []
    for name, weight in sorted(weights.items()):
        if weight and name in smoothed_losses:
            loss = smoothed_losses[name](
                logits, target, exclusive=exclusive, class_weights=class_weights, label_smoothing=label_smoothing
            )
            terms.append(weight * loss)
        elif weight:
            terms.append(weight * losses[name](logits, target, exclusive=exclusive, class_weights=class_weights))
    return torch.stack(terms).sum()


def _known(target: Tensor) -> tuple[Tensor, Tensor]:
    """Return the values of a target, 0 where they are unknown, and where they are known (bool), of the same shape."""
    if target.is_floating_point():
        return torch.nan_to_num(target.float()), ~torch.isnan(target)
    known = is_labelled(target)
    return torch.where(known, target, 0).float(), known


def _distributions(target: Tensor, channels: int, first: int = 0) -> tuple[Tensor, Tensor]:
    """Return probabilities of exclusive classes from channel `first` on, 0 where unknown, and where they are known.

    Their shapes are (N, channels - first, ...) and (N, 1, ...).
    """
    if not target.is_floating_point():
        return one_hot(target, channels)[:, first:].float(), is_labelled(target).unsqueeze(1)
    return torch.nan_to_num(target[:, first:].float()), ~torch.isnan(target[:, :1])


def _mean(cost: Tensor, counted: Tensor, class_weights: Tensor | None) -> Tensor:
    """Return the mean of cost (N, C, ...) where counted; 0, attached to the graph, if nothing is counted."""
    weights = counted.float()
    if class_weights is not None:
        weights = weights * class_weights.float().view(1, -1, *[1] * (cost.dim() - 2))
    return ratio(cost * weights, weights)


def ratio(costs: Tensor, weights: Tensor) -> Tensor:
    """Return sum(costs) / sum(weights) over all workers; 0, attached to the graph, if all weights are 0."""
    sums = sum_with_gradient(torch.stack([costs.sum(), weights.sum()]))
    return sums[0] / sums[1].clamp_min(_TINY)


def _mean_at_truth(cost: Tensor, ids: Tensor, class_weights: Tensor | None) -> Tensor:
    """Return the mean over pixels of the cost of the true class; the one-hot product has a deterministic gradient."""
    return _mean(cost, one_hot(ids, cost.shape[1]), class_weights)


def _class_mean(per_class: Tensor, class_weights: Tensor | None, exclusive: bool, annotated: Tensor) -> Tensor:
    """Return the mean of (C,) over the annotated foreground classes; 0, attached to the graph, if there are none.

    Exclusive classes, which are annotated together, all enter the mean.
    """
    if class_weights is None and exclusive:
        return per_class.mean()
    weights = torch.ones_like(per_class) if exclusive else annotated.float()
    if class_weights is not None:
        weights = weights * (class_weights.float()[1:] if exclusive else class_weights.float())
    mean = (per_class * weights).sum() / weights.sum().clamp_min(_TINY)
    # On a GPU torch's mean may differ from the quotient in the last bit.
    return mean if class_weights is not None else torch.where(annotated.all(), per_class.mean(), mean)


def _overlap(logits: Tensor, target: Tensor, exclusive: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return soft sizes (C,) of intersection, prediction and truth of the foreground classes, over all workers.

    The last value, bool (C,), is whether a class has annotated pixels.
    """
    p, truth, known = _foreground(logits, target, exclusive)
    dims = [0, *range(2, p.dim())]
    common = torch.minimum(p, truth) if target.is_floating_point() else p * truth
    maps = common, p, truth, known.to(p.dtype).expand_as(p)
    intersection, predicted, actual, pixels = sum_with_gradient(torch.stack([part.sum(dims) for part in maps]))
    return intersection, predicted, actual, pixels > 0


def _foreground(logits: Tensor, target: Tensor, exclusive: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return probabilities and truth of the foreground classes (N, C, ...), both 0 where there is no label.

    The last value, bool (N, 1 or C, ...), is where there is one.
    """
    scores = logits.float()
    if exclusive:
        truth, known = _distributions(target, scores.shape[1], first=1)
        return (scores.softmax(dim=1) * known)[:, 1:], truth, known
    truth, known = _known(target)
    return scores.sigmoid() * known, truth, known


def _tversky_index(logits: Tensor, target: Tensor, exclusive: bool) -> tuple[Tensor, Tensor]:
    """Return the Tversky index of each foreground class, and whether it is annotated."""
    intersection, predicted, actual, annotated = _overlap(logits, target, exclusive)
    cost = TVERSKY_FALSE_POSITIVES * (predicted - intersection) + TVERSKY_FALSE_NEGATIVES * (actual - intersection)
    return (intersection + SMOOTHING) / (intersection + cost + SMOOTHING), annotated


def _soft_dice(logits: Tensor, target: Tensor, exclusive: bool) -> tuple[Tensor, Tensor]:
    """Return the soft Dice of each foreground class, and whether it is annotated."""
    intersection, predicted, actual, annotated = _overlap(logits, target, exclusive)
    return (2 * intersection + SMOOTHING) / (predicted + actual + SMOOTHING), annotated


def _log_softmax_and_rest(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Return log p and log(1 - p) of softmax channels without cancellation.

    At most one p of a pixel is near 1; its 1 - p is the sum of the other p. log1p is accurate for all others.
    """
    log_p = F.log_softmax(scores, dim=1)
    near_one = log_p > -0.25
    summed = torch.logsumexp(log_p.masked_fill(near_one, -torch.inf), dim=1, keepdim=True)
    rest = torch.log1p(-log_p.exp().masked_fill(near_one, 0.0))
    return log_p, torch.where(near_one, summed, rest)
