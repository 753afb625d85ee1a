"""Stochastic weight averaging (Izmailov et al. 2018): the mean of the weights at the ends of late epochs."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class Average:
    """A running mean of a network's parameters; buffers take no part."""

    def __init__(self) -> None:
        self.count = 0
        self.weights: dict[str, Tensor] = {}

    @torch.no_grad()
    def add(self, network: nn.Module) -> None:
        """Take the current parameters into the mean."""
        self.count += 1
        for name, parameter in network.named_parameters():
            if name in self.weights:
                self.weights[name] += (parameter - self.weights[name]) / self.count
            else:
                self.weights[name] = parameter.detach().clone()

    @torch.no_grad()
    def put_into(self, network: nn.Module) -> None:
        """Replace the parameters by their mean."""
        for name, parameter in network.named_parameters():
            parameter.copy_(self.weights[name])


@torch.no_grad()
def refresh_statistics(network: nn.Module, images: Iterable[Tensor]) -> None:
    """Compute batch-norm statistics anew as the plain mean over these batches, but for layers that are frozen.

    Averaged weights never ran on an image, so the statistics of none of the networks they come from are theirs.
    """
    network.train()
    layers = [layer for layer in network.modules() if isinstance(layer, _BatchNorm) and layer.training]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # torch's word for a cumulative mean
    for batch in images:
        network(batch)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
