"""The task of segmentation with pseudo-labels (Lee 2013; for segmentation Yang et al. 2022), and their format."""

import torch
from torch import Tensor, nn

from models.counts import IGNORE, is_labelled
from models.losses.functions import ratio
from models.task_settings.pseudo_labels import PseudoLabelBlock, PseudoLabelSettings
from models.tasks.base import Batch, Outputs
from models.tasks.consistency.losses import certainty
from models.tasks.semi_supervised import SemiSupervised

SCALE = 254
"""A probability of 1 in soft labels."""


class PseudoLabels(SemiSupervised):
    """Images without masks have the labels that other networks predicted before training."""

    reports = (*SemiSupervised.reports, "confident")

    def __init__(self, settings: PseudoLabelSettings, outputs: Outputs) -> None:
        super().__init__(settings, outputs)
        self.block = settings.pseudo_labels

    @property
    def weighting(self) -> tuple[float, float]:
        """Return the weight of images with pseudo-labels, and the share of all updates in which it rises."""
        return self.block.weight, self.block.ramp_up

    def pool_loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return the losses of the stage at the pixels with a pseudo-label, before they are weighted."""
        assert batch.weak is not None, "images without masks have pseudo-labels"
        assert batch.weak.masks is not None, "pseudo-labels are those of pixels"
        labels = batch.weak.masks
        self.report("confident", ratio(is_labelled(labels).float(), torch.ones(labels.shape, device=labels.device)))
        target = soft_target(labels, exclusive=self.outputs.exclusive) if self.block.labels == "soft" else labels
        return self._loss(network(batch.unlabelled), target, label_smoothing=self.settings.label_smoothing)


def pseudo_labels(probabilities: Tensor, block: PseudoLabelBlock, *, exclusive: bool) -> Tensor:
    """Return labels, uint8, from probabilities (N, channels, height, width) of all channels.

    Hard labels have the format of masks: ids (N, height, width) of exclusive classes, else 0/1 of each class. Soft
    labels are the probabilities of the foreground classes (N, classes, height, width) in steps of 1 / `SCALE`. Pixels
    with a lower confidence than that of the settings are `IGNORE`: in all classes if these are exclusive.
    """
    classes = probabilities.max(dim=1, keepdim=True).indices if exclusive else probabilities >= 0.5
    is_soft = block.labels == "soft"
    labels = _in_steps(probabilities, exclusive=exclusive) if is_soft else classes
    masks = labels.to(torch.uint8).masked_fill(certainty(probabilities, exclusive=exclusive) < block.confidence, IGNORE)
    return masks.squeeze(1) if exclusive and not is_soft else masks


def _in_steps(probabilities: Tensor, *, exclusive: bool) -> Tensor:
    """Return the probabilities of the foreground classes as multiples of 1 / `SCALE`.

    Those of exclusive classes are rounded such that all channels have the sum 1 (by largest remainders), so that no
    channel, the background included, changes by more than a step.
    """
    scaled = probabilities * SCALE
    if not exclusive:
        return scaled.round()
    steps = scaled.floor()
    missing = SCALE - steps.sum(dim=1, keepdim=True)
    ranks = (scaled - steps).argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return (steps + (ranks < missing))[:, 1:]


def soft_target(labels: Tensor, *, exclusive: bool) -> Tensor:
    """Return the probabilities (N, channels, height, width) that soft labels stand for, NaN where there are none.

    The probability of the background is what those of exclusive classes leave of 1.
    """
    values = labels.float().masked_fill(labels == IGNORE, torch.nan)
    if exclusive:
        values = torch.cat([SCALE - values.sum(dim=1, keepdim=True), values], dim=1)
    return values / SCALE
