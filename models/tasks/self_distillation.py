"""Self-distillation without negatives: BYOL (Grill et al. 2020), with multi-crop (Caron et al. 2020) as an option."""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.architectures.heads import Perceptron
from models.distributed import gather_with_gradient
from models.losses.functions import ratio
from models.network import Network
from models.optim.average import early_decay, momentum_copy, move_average
from models.task_settings.views import GLOBAL_VIEWS, SelfDistillationSettings
from models.tasks.base import Batch, Companion, NetworkFactory, Outputs, Task
from models.tasks.embeddings import (
    by_view,
    collapse_message,
    embed,
    embedding_sums,
    retrieval,
    spread,
    unit_vectors,
)


class SelfDistillation(Task):
    """Each view of an image predicts the embeddings that a moving average of the network gives to its other views.

    The last epoch is kept: the loss is also small for equal embeddings, so that it does not choose an epoch.
    """

    trains = SelfDistillationSettings.trains
    monitor = None

    def __init__(self, settings: SelfDistillationSettings, outputs: Outputs) -> None:
        self.settings, self.outputs = settings, outputs
        self._momentum_network: Network
        self._predictor: Perceptron

    def head_channels(self) -> int:
        """Return the number of dimensions of embeddings."""
        return self.settings.projection

    def companions(self, network: Network, another_network: NetworkFactory | None = None) -> Mapping[str, Companion]:
        """Create the predictor, and the copy of the network that gives the targets."""
        settings = self.settings
        self._momentum_network = momentum_copy(network)
        self._predictor = Perceptron(settings.projection, settings.hidden, settings.projection)
        return {
            "momentum_network": Companion(module=self._momentum_network, trained="never"),
            "predictor": Companion(module=self._predictor, trained="jointly"),
        }

    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return the loss of the batch, a mean over images and pairs of different views."""
        views = batch.views[:GLOBAL_VIEWS]
        with torch.no_grad():
            targets = embed(self._momentum_network, views)
        predictions = self._predictions(network(torch.cat(views)), GLOBAL_VIEWS)
        if local := self._local_views(batch):
            further = self._predictions(network(torch.cat(local)), len(local))
            predictions = torch.cat([predictions, further], dim=1)
        return prediction_loss(predictions, targets)

    def _predictions(self, outputs: Tensor, views: int) -> Tensor:
        """Return predictions (N, views, D) from the outputs (views x N, D) of the network."""
        return unit_vectors(by_view(self._predictor(outputs), views))

    def _local_views(self, batch: Batch) -> list[Tensor]:
        shape = self.settings.local_shape((batch.images.shape[-2], batch.images.shape[-1]))
        return [
            F.interpolate(view, shape, mode="bilinear", antialias=True, align_corners=False)
            for view in batch.views[GLOBAL_VIEWS:]
        ]

    @torch.no_grad()
    def after_update(self, network: nn.Module, done: int, updates: int) -> None:
        """Move the copy of the network (Grill et al. 2020, section 3.3), faster in early updates.

        Otherwise the initial network, whose embeddings are almost equal, would set the targets of short stages.
        """
        scheduled = 1 - (1 - self.settings.momentum) * (math.cos(math.pi * done / updates) + 1) / 2
        decay = early_decay(scheduled, done)
        move_average(self._momentum_network.state_dict(), network.state_dict(), decay)

    def warning(self, scores: Mapping[str, float]) -> str | None:
        """Return a message if the embeddings have collapsed."""
        return collapse_message(scores)

    @torch.no_grad()
    def statistics(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return sums of loss, retrieval and images, then those of `embedding_sums` of the targets.

        Equal targets are what a collapse is: the predictor makes them from any embeddings.
        """
        views = batch.views[:GLOBAL_VIEWS]
        outputs, targets = network(torch.cat(views)), embed(self._momentum_network, views)
        images = outputs.new_tensor(len(batch.images), dtype=torch.float64)
        loss = prediction_loss(self._predictions(outputs, GLOBAL_VIEWS), targets).double()
        retrieved = retrieval(gather_with_gradient(unit_vectors(by_view(outputs, GLOBAL_VIEWS))))
        sums = torch.stack([loss * images, retrieved * images, images])
        return torch.cat([sums, embedding_sums(targets)])

    def scores(self, statistics: Tensor) -> Mapping[str, float]:
        """Return the loss, the share of views that are retrieved, and the spread of the targets."""
        loss, retrieved, images = statistics[:3].tolist()
        images = images or math.nan
        return {"loss": loss / images, "retrieval": retrieved / images, **spread(statistics[3:])}


def prediction_loss(predictions: Tensor, targets: Tensor) -> Tensor:
    """Return the mean squared distance of unit vectors of different views (Grill et al. 2020, equation 2).

    It is a mean over all pairs of a prediction and the target of another view; with two views it is half of the sum of
    both directions of the paper.

    Args:
        predictions: (N, views, D), first those of the views that have targets.
        targets: (N, 2, D) of the first two views.
    """
    costs = 2 - 2 * (predictions.unsqueeze(2) * targets.unsqueeze(1)).sum(dim=3)
    different = ~torch.eye(predictions.shape[1], targets.shape[1], dtype=torch.bool, device=costs.device)
    return ratio(costs * different, different.expand_as(costs).float())
