"""Stochastic weight averaging (Izmailov et al. 2018): the mean of the weights at the ends of late epochs."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class Average:
    """Running mean of the parameters of a network, without buffers."""

    def __init__(self) -> None:
        self.count = 0
        self.weights: dict[str, Tensor] = {}

    @torch.no_grad()
    def add(self, network: nn.Module) -> None:
        """Add the current parameters to the mean."""
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
    """Recompute batch-norm statistics as the mean over these batches, except for frozen layers.

    Required because the statistics of the averaged networks do not apply to the averaged weights.
    """
    network.train()
    layers = [layer for layer in network.modules() if isinstance(layer, _BatchNorm) and layer.training]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # cumulative mean in torch
    for batch in images:
        network(batch)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
