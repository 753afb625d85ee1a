"""FixMatch (Sohn et al. 2020), for segmentation as the baseline of Yang et al. (2023)."""

import torch
from torch import Tensor, nn

from models.tasks.consistency.base import Consistency, UnlabelledViews
from models.tasks.consistency.losses import pseudo_label_loss


class FixMatch(Consistency):
    """The strong view is trained with the confident classes of the weak view.

    The weak view is predicted in training mode, so that it is part of the statistics of batch norm, its partners in
    evaluation mode.
    """

    reports = (*Consistency.reports, "confident")

    def unlabelled_loss(self, network: nn.Module, views: UnlabelledViews) -> Tensor:
        """Return the cross-entropy of confident pixels, divided by the number of all pixels."""
        partner = self.partner_probabilities(network, views)
        with torch.no_grad():
            weak = self.probabilities(network(views.weak))
        self.report_confident(weak)
        (targets,) = views.mixed(weak, partner)
        (strong,) = views.strong
        return pseudo_label_loss(
            network(strong), targets, exclusive=self.outputs.exclusive, confidence=self.block.confidence
        )
