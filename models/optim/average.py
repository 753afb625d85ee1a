"""Averages of weights: over the ends of late epochs (Izmailov et al. 2018), or moving over all updates."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from models.network import EncodedImages, Network


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

    def after_update(self, network: nn.Module) -> None:
        """Called after each update of the network."""

    def in_validation(self, network: nn.Module) -> AbstractContextManager[None]:
        """Return a context within which the network has the weights that are validated: its own."""
        return nullcontext()

    @torch.no_grad()
    def put_into(self, network: nn.Module) -> None:
        """Replace the parameters by their mean."""
        for name, parameter in network.named_parameters():
            parameter.copy_(self.weights[name])


class MovingAverage(Average):
    """Exponential moving average of parameters and floating-point buffers; other buffers are copied.

    After t updates the decay is the smaller one of `decay` and (1 + t) / (10 + t), so that short runs forget the
    initial weights.
    """

    def __init__(self, decay: float) -> None:
        super().__init__()
        self._decay = decay

    @torch.no_grad()
    def add(self, network: nn.Module) -> None:
        """Move the average towards the current state."""
        decay = min(self._decay, (1 + self.count) / (10 + self.count))
        self.count += 1
        state = network.state_dict()
        if not self.weights:
            self.weights = {name: tensor.detach().clone() for name, tensor in state.items()}
            return
        floating = [name for name, tensor in state.items() if tensor.is_floating_point()]
        averages, current = ([tensors[name] for name in floating] for tensors in (self.weights, state))
        torch._foreach_lerp_(averages, current, 1 - decay)
        for name in state.keys() - set(floating):
            self.weights[name].copy_(state[name])

    def after_update(self, network: nn.Module) -> None:
        """Add the weights after an update of the network."""
        self.add(network)

    @contextmanager
    def in_validation(self, network: nn.Module) -> Iterator[None]:
        """Give the network the average within the block."""
        if not self.count:
            yield
            return
        own = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
        network.load_state_dict(self.weights)
        try:
            yield
        finally:
            network.load_state_dict(own)


@torch.no_grad()
def refresh_statistics(network: Network, images: Iterable[Tensor | EncodedImages]) -> None:
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
