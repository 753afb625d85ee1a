"""Segmentation of exclusive (softmax) or overlapping (sigmoid) classes."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from models.counts import is_labelled, one_hot, pixel_counts, predicted_masks
from models.losses.functions import weighted_sum
from models.settings import LossWeights, MaskSettings, class_weights_problem, is_deeply_supervised, loss_problem
from models.tasks.base import Batch, Outputs, Task


class Segmentation(Task):
    """Target: ids (N, S, S) of exclusive classes, 0 the background, else 0/1 (N, classes, S, S); 255 is no label.

    Validation scores use the most likely class, or a threshold of 0.5 for overlapping classes.
    """

    trains = MaskSettings.trains
    monitor = "mean_iou"
    takes_features = True

    def __init__(self, settings: MaskSettings, outputs: Outputs) -> None:
        exclusive = outputs.exclusive
        for problem in (
            loss_problem(settings.loss, settings.target, exclusive=exclusive),
            class_weights_problem(_mapping(settings.class_weights), outputs.names, exclusive=exclusive),
        ):
            if problem:
                raise ValueError(problem)
        self.settings = settings
        self.outputs = outputs

    def head_channels(self) -> int:
        """Return the number of classes, including the background for exclusive classes."""
        return len(self.outputs.names) + self.outputs.exclusive

    def probabilities(self, logits: Tensor) -> Tensor:
        """Convert logits (N, head_channels, S, S) to float32 probabilities of the same shape."""
        return logits.float().softmax(dim=1) if self.outputs.exclusive else logits.float().sigmoid()

    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return the loss of the batch; with deep supervision, the mean over levels with weights 1, 1/2, 1/4, ..."""
        smoothing = self.settings.label_smoothing
        if not is_deeply_supervised(self.settings):
            return self._loss(network(batch.inputs), batch.target, label_smoothing=smoothing)
        levels = network(batch.inputs, deep=True)
        weights = [2.0**-level for level in range(len(levels))]
        losses = [
            weight / sum(weights) * self._loss(logits, batch.target, label_smoothing=smoothing)
            for weight, logits in zip(weights, levels, strict=True)
        ]
        return torch.stack(losses).sum()

    @torch.no_grad()
    def statistics(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return sums of loss and labelled images, then of true positive, false positive, false negative pixels."""
        logits = network(batch.inputs)
        exclusive = self.outputs.exclusive
        truth = one_hot(batch.target, logits.shape[1])[:, 1:] if exclusive else batch.target == 1
        predicted = predicted_masks(self.probabilities(logits), exclusive=exclusive)
        known = self._labelled(batch.target)
        tp, fp, fn, _ = (count.sum(dim=0).double() for count in pixel_counts(predicted, truth, known=known))
        loss = self._loss(logits, batch.target).double()
        images = known.flatten(1).any(dim=1).sum().double()
        return torch.cat([torch.stack([loss * images, images]), tp, fp, fn])

    def scores(self, statistics: Tensor) -> Mapping[str, float]:
        """Return loss, IoU by class, and mean IoU and Dice of the classes that occur in the truth."""
        loss, images = statistics[:2].tolist()
        tp, fp, fn = statistics[2:].view(3, -1)
        absent = tp + fn == 0
        iou = (tp / (tp + fp + fn)).masked_fill(absent, math.nan)
        dice = (2 * tp / (2 * tp + fp + fn)).masked_fill(absent, math.nan)
        return {
            "loss": loss / images if images else math.nan,
            "mean_iou": float(iou.nanmean()),
            "dice": float(dice.nanmean()),
            **{f"iou/{name}": value for name, value in zip(self.outputs.names, iou.tolist(), strict=True)},
        }

    def _loss(
        self, logits: Tensor, target: Tensor, *, label_smoothing: float = 0.0, losses: LossWeights | None = None
    ) -> Tensor:
        """Return the weighted sum of losses, those of the settings by default."""
        return weighted_sum(
            self.settings.loss if losses is None else losses,
            logits,
            target,
            exclusive=self.outputs.exclusive,
            class_weights=self._class_weights(logits.device),
            label_smoothing=label_smoothing,
        )

    def _labelled(self, target: Tensor) -> Tensor:
        """Return a mask of labelled pixels, bool: (N, 1, S, S), or (N, classes, S, S) of overlapping classes."""
        return is_labelled(target).unsqueeze(1) if self.outputs.exclusive else is_labelled(target)

    def _class_weights(self, device: torch.device) -> Tensor | None:
        weights = self.settings.class_weights
        if isinstance(weights, str):
            raise ValueError("class_weights is balanced; allowed: the weights by class; count the pixels first")
        if not weights:
            return None
        names = ("background", *self.outputs.names) if self.outputs.exclusive else self.outputs.names
        return torch.tensor([weights.get(name, 1.0) for name in names], device=device)


def _mapping(weights: Mapping[str, float] | str) -> Mapping[str, float]:
    return {} if isinstance(weights, str) else weights
