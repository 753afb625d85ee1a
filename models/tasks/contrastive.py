"""Contrastive learning: SimCLR (Chen et al. 2020), or with a queue MoCo (He et al. 2020; Chen, Fan et al. 2020)."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.distributed import gather_with_gradient
from models.network import Network
from models.optim.average import early_decay, momentum_copy, move_average
from models.task_settings.views import GLOBAL_VIEWS, ContrastiveSettings
from models.tasks.base import Batch, Companion, NetworkFactory, Outputs, Task
from models.tasks.embeddings import (
    collapse_message,
    embed,
    embedding_sums,
    retrieval,
    similarities,
    spread,
)

NO_POSITION = -1
"""Position of the places of a queue that are not filled yet."""


class Queue(nn.Module):
    """The last `size` embeddings of earlier images, first in, first out.

    `keys` (size, D) are unit vectors, `positions` (size,) the numbers of their images.
    """

    keys: Tensor
    positions: Tensor

    def __init__(self, size: int, dimensions: int) -> None:
        super().__init__()
        self.register_buffer("keys", torch.zeros(size, dimensions))
        self.register_buffer("positions", torch.full((size,), NO_POSITION))

    def push(self, keys: Tensor, positions: Tensor) -> None:
        """Add embeddings (n, views, D) of images at some positions (n,)."""
        size, views = len(self.keys), keys.shape[1]
        self.keys.copy_(torch.cat([keys.flatten(0, 1), self.keys])[:size])
        self.positions.copy_(torch.cat([positions.repeat_interleave(views), self.positions])[:size])


class _Keys(NamedTuple):
    """Embeddings (N, views, D) of the images of a batch over all workers, and their positions (N,)."""

    keys: Tensor
    positions: Tensor


class Contrastive(Task):
    """Two views of an image are to have similar embeddings, views of other images different ones.

    The embeddings of all workers are gathered, so that the negatives of an image are those of the global batch. In
    validation the loss is that without the queue, which would change with its length.
    """

    trains = ContrastiveSettings.trains
    monitor = "loss"
    minimise = True

    def __init__(self, settings: ContrastiveSettings, outputs: Outputs) -> None:
        self.settings, self.outputs = settings, outputs
        self._momentum_network: Network
        self._queue: Queue
        self._new_keys: list[_Keys] = []

    def head_channels(self) -> int:
        """Return the number of dimensions of embeddings."""
        return self.settings.projection

    def companions(self, network: Network, another_network: NetworkFactory | None = None) -> Mapping[str, Companion]:
        """Create the queue, and the copy of the network that fills it."""
        if not self.settings.queue:
            return {}
        self._momentum_network = momentum_copy(network)
        self._queue = Queue(self.settings.queue, self.settings.projection)
        modules = {"momentum_network": self._momentum_network, "queue": self._queue}
        return {name: Companion(module=module, trained="never") for name, module in modules.items()}

    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return the loss of the batch, a mean over images and views."""
        queries = gather_with_gradient(embed(network, batch.views))
        if not self.settings.queue:
            return nt_xent(queries, temperature=self.settings.temperature)
        assert batch.positions is not None
        with torch.no_grad():
            keys = gather_with_gradient(embed(self._momentum_network, batch.views))
            positions = gather_with_gradient(batch.positions)
        self._new_keys.append(_Keys(keys, positions))
        return momentum_contrast(queries, keys, positions, self._queue, temperature=self.settings.temperature)

    @torch.no_grad()
    def after_update(self, network: nn.Module, done: int, updates: int) -> None:
        """Move the copy of the network, and add the embeddings of the batch to the queue."""
        if not self.settings.queue:
            return
        decay = early_decay(self.settings.momentum, done)
        move_average(self._momentum_network.state_dict(), network.state_dict(), decay)
        for keys, positions in self._new_keys:
            self._queue.push(keys, positions)
        self._new_keys.clear()

    def warning(self, scores: Mapping[str, float]) -> str | None:
        """Return a message if the embeddings have collapsed."""
        return collapse_message(scores)

    @torch.no_grad()
    def statistics(self, network: nn.Module, batch: Batch) -> Tensor:
        """Return sums of loss, retrieval and images, of those with negatives, then those of `embedding_sums`."""
        embeddings = embed(network, batch.views)
        gathered = gather_with_gradient(embeddings)
        images = embeddings.new_tensor(len(embeddings) if len(gathered) > 1 else 0, dtype=torch.float64)
        loss = nt_xent(gathered, temperature=self.settings.temperature).double()
        sums = torch.stack([loss * images, retrieval(gathered) * images, images])
        return torch.cat([sums, embedding_sums(embeddings)])

    def scores(self, statistics: Tensor) -> Mapping[str, float]:
        """Return the loss, the share of views that are retrieved, and the measures of `spread`."""
        loss, retrieved, images = statistics[:3].tolist()
        images = images or math.nan
        return {"loss": loss / images, "retrieval": retrieved / images, **spread(statistics[3:])}


def nt_xent(embeddings: Tensor, *, temperature: float) -> Tensor:
    """Return the normalised temperature-scaled cross-entropy of two views (Chen et al. 2020, equation 1).

    A view is classified as the other view of its image among all other views of the batch.

    Args:
        embeddings: Unit vectors (N, 2, D).
        temperature: Divisor of cosine similarities.

    Returns:
        The mean over the 2 N views; 0 for a single image.
    """
    views = embeddings.flatten(0, 1)
    numbers = torch.arange(len(views), device=views.device)
    own = numbers.unsqueeze(0) == numbers.unsqueeze(1)
    logits = (similarities(views, views) / temperature).masked_fill(own, -math.inf)
    positives = (embeddings[:, 0] * embeddings[:, 1]).sum(dim=1) / temperature
    return logits.logsumexp(dim=1).mean() - positives.mean()


def momentum_contrast(queries: Tensor, keys: Tensor, positions: Tensor, queue: Queue, *, temperature: float) -> Tensor:
    """Return the loss of queries against keys of a momentum network (He et al. 2020, equation 1), for both directions.

    A query is classified as the key of the other view of its image, among the keys of that view in the batch and those
    of other images in the queue.

    Args:
        queries: Unit vectors (N, 2, D) of the network.
        keys: Unit vectors (N, 2, D) of the momentum network.
        positions: Numbers (N,) of the images.
        queue: Keys of earlier images.
        temperature: Divisor of cosine similarities.
    """
    excluded = (queue.positions == NO_POSITION) | (queue.positions == positions.unsqueeze(1))
    costs = []
    for view in range(GLOBAL_VIEWS):
        query, key = queries[:, view], keys[:, 1 - view]
        earlier = (similarities(query, queue.keys) / temperature).masked_fill(excluded, -math.inf)
        now = similarities(query, key) / temperature
        costs.append(torch.cat([now, earlier], dim=1).logsumexp(dim=1) - now.diagonal())
    return torch.stack(costs).mean()
