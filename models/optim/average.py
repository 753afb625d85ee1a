"""Averages of weights: over the ends of late epochs (Izmailov et al. 2018), or moving over all updates."""

import copy
from collections.abc import Iterable, Iterator, Mapping
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

    Early in training the decay is smaller, see `early_decay`.
    """

    def __init__(self, decay: float) -> None:
        super().__init__()
        self._decay = decay

    @torch.no_grad()
    def add(self, network: nn.Module) -> None:
        """Move the average towards the current state."""
        decay = early_decay(self._decay, self.count)
        self.count += 1
        state = network.state_dict()
        if not self.weights:
            self.weights = {name: tensor.detach().clone() for name, tensor in state.items()}
            return
        move_average(self.weights, state, decay)

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


def early_decay(decay: float, updates: int) -> float:
    """Return the decay after t updates: at most (1 + t) / (10 + t), so that short runs forget the initial weights."""
    return min(decay, (1 + updates) / (10 + updates))


def momentum_copy(network: Network) -> Network:
    """Return a copy of a network that is not trained and stays in evaluation mode, for `move_average`.

    It normalises by averaged batch-norm statistics, not by those of the batch, which keeps its outputs independent of
    the other images in their batch (Cai et al. 2021: a query could recognise its key through them).
    """
    return copy.deepcopy(network).requires_grad_(False).eval()


@torch.no_grad()
def move_average(averages: Mapping[str, Tensor], state: Mapping[str, Tensor], decay: float) -> None:
    """Move averages towards a state, in place: decay x average + (1 - decay) x state; integers are copied."""
    floating = [name for name, tensor in state.items() if tensor.is_floating_point()]
    averaged, current = ([tensors[name] for name in floating] for tensors in (averages, state))
    torch._foreach_lerp_(averaged, current, 1 - decay)
    for name in state.keys() - set(floating):
        averages[name].copy_(state[name])


@torch.no_grad()
def refresh_statistics(network: Network, inputs: Iterable[Tensor | EncodedImages]) -> None:
    """Recompute batch-norm statistics as the mean over these network inputs, except for frozen layers.

    Without layers to recompute, no input is read. Required because the statistics of the averaged networks do not apply
    to the averaged weights.
    """
    network.train()
    layers = [layer for layer in network.modules() if isinstance(layer, _BatchNorm) and layer.training]
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # cumulative mean in torch
    for images in inputs:
        network(images)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
