"""Multi-label image classification with unknown labels, as in CheXpert (Irvin et al. 2019)."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from models.counts import score_histograms
from models.losses.functions import weighted_sum
from models.score_bins import EQUAL_EDGES
from models.settings import ClassificationSettings, loss_problem
from models.tasks.base import Batch, Outputs, Task


class Classification(Task):
    """Target: (N, labels) of 1 present, 0 absent, NaN unknown; unknown entries are ignored."""

    trains = ClassificationSettings.trains
    monitor = "loss"
    minimise = True
    takes_features = True

    def __init__(self, settings: ClassificationSettings, outputs: Outputs) -> None:
        if problem := loss_problem(settings.loss, "labels", exclusive=False):
            raise ValueError(problem)
        self.settings = settings
        self.outputs = outputs

    def head_channels(self) -> int:
        """Return the number of labels."""
        return len(self.outputs.names)

    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return the mean loss over known entries; 0 if a batch has none."""
        smoothing = self.settings.label_smoothing
        return weighted_sum(self.settings.loss, network(batch.inputs), batch.target, label_smoothing=smoothing)

    @torch.no_grad()
    def statistics(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return sums of loss, known and correct entries, then score histograms of all labels, in 200 equal bins."""
        logits = network(batch.inputs).float()
        truth, known = batch.target == 1, ~torch.isnan(batch.target)
        entries = known.sum().double()
        loss = weighted_sum(self.settings.loss, logits, batch.target).double() * entries
        correct = (((logits >= 0) == truth) & known).sum()
        by_label = [part.T.unsqueeze(0) for part in (logits.sigmoid(), truth, known)]
        histograms = score_histograms(by_label[0], by_label[1], known=by_label[2], edges=EQUAL_EDGES)
        sums = torch.stack([loss, entries, correct.double()])
        return torch.cat([sums, histograms.positives.double().flatten(), histograms.negatives.double().flatten()])

    def scores(self, statistics: Tensor) -> Mapping[str, float]:
        """Return loss, accuracy at 0.5, and the mean AUC of the labels with both positive and negative images."""
        sums = statistics.cpu()  # CUDA has no deterministic cumulative sum
        loss, entries, correct = sums[:3].tolist()
        positives, negatives = sums[3:].view(2, -1, len(EQUAL_EDGES) + 1)
        if not entries:
            return {"loss": math.nan, "accuracy": math.nan, "auc": math.nan}
        return {
            "loss": loss / entries,
            "accuracy": correct / entries,
            "auc": float(_auc(positives, negatives).nanmean()),
        }


def _auc(positives: Tensor, negatives: Tensor) -> Tensor:
    """Return P(positive above negative) + P(same bin)/2 of histograms (labels, bins); NaN if one is empty."""
    below = negatives.cumsum(dim=1) - negatives
    ordered_pairs = (positives * (below + negatives / 2)).sum(dim=1)
    return ordered_pairs / (positives.sum(dim=1) * negatives.sum(dim=1))
