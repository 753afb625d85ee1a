"""The task of segmentation with weak labels."""

import torch
from torch import Tensor, nn

from models.losses.functions import binary_cross_entropy
from models.task_settings.weak_labels import WeakLabelSettings
from models.tasks.base import Batch, Outputs, WeakTarget
from models.tasks.semi_supervised import SemiSupervised
from models.tasks.weak_labels.boxes import outside_masks, projection_loss
from models.tasks.weak_labels.losses import absent_masks, class_logits, presence_loss, size_penalty

SIZE_WEIGHT = 0.1
"""Weight of the penalty of areas."""


class WeakSegmentation(SemiSupervised):
    """Images without masks have weak labels."""

    def __init__(self, settings: WeakLabelSettings, outputs: Outputs) -> None:
        super().__init__(settings, outputs)
        self.block = settings.weak
        self._weight = settings.weak.weight_for(settings.rest)
        self._pixel_losses = settings.pixel_loss

    @property
    def weighting(self) -> tuple[float, float]:
        """Return the weight of images with weak labels, and the share of all updates in which it rises."""
        return self._weight, self.block.ramp_up

    def pool_loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return the loss of images with weak labels, before it is weighted."""
        assert batch.weak is not None, "images without masks have weak labels"
        return self.weak_loss(network(batch.unlabelled), batch.weak)

    def weak_loss(self, logits: Tensor, target: WeakTarget) -> Tensor:
        """Return the loss of images with weak labels, before it is weighted: the sum of the terms of their labels."""
        terms, present = [], target.present
        if target.masks is not None:
            smoothing = self.settings.label_smoothing
            terms.append(self._loss(logits, target.masks, label_smoothing=smoothing, losses=self._pixel_losses))
        if present is not None:
            scores = class_logits(logits, exclusive=self.outputs.exclusive)
            if target.boxes is not None and target.box_classes is not None:
                masks = outside_masks(target.boxes, target.box_classes, present, scores.shape)
                terms.append(self._absence_loss(scores, masks))
                terms.append(projection_loss(scores, target.boxes, target.box_classes))
            elif target.masks is None:
                terms.append(self._absence_loss(scores, absent_masks(present, scores.shape)))
                terms.append(presence_loss(scores, present))
            if target.areas is not None:
                terms.append(SIZE_WEIGHT * size_penalty(scores, present, target.areas))
        return torch.stack(terms).sum()

    def _absence_loss(self, logits: Tensor, masks: Tensor) -> Tensor:
        """Return the binary cross-entropy of masks (N, classes, height, width) that are 0 where classes are absent.

        Losses of overlap have no gradient where no pixel belongs to a class.
        """
        weights = self._class_weights(logits.device)
        foreground = weights[1:] if weights is not None and self.outputs.exclusive else weights
        return binary_cross_entropy(
            logits, masks, class_weights=foreground, label_smoothing=self.settings.label_smoothing
        )
