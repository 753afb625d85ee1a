"""Optimizers, learning-rate schedules, and their state as named tensors and plain numbers.

A change of numerics increases `optimize` in `models.versions`.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from models.settings import OptimizerSettings, ScheduleSettings


def make_optimizer(
    settings: OptimizerSettings, parameters: Iterable[nn.Parameter] | Iterable[dict[str, Any]]
) -> Optimizer:
    """Create the optimizer of parameters or groups; parameters without gradient are skipped until they have one."""
    shared: dict[str, Any] = {"lr": settings.lr, "weight_decay": settings.weight_decay}
    match settings.name:
        case "adam":
            return Adam(parameters, fused=True, betas=settings.betas, **shared)
        case "adamw":
            return AdamW(parameters, fused=True, betas=settings.betas, **shared)
        case "sgd":
            # Fused momentum fails if parameters get their first gradient later than others, as after unfreezing.
            return SGD(parameters, momentum=settings.momentum, fused=not settings.momentum, **shared)
        case "rmsprop":
            return RMSprop(parameters, momentum=settings.momentum, alpha=settings.alpha, **shared)


class Schedule:
    """Learning-rate schedule. The training loop calls both `after_update` and `after_epoch`."""

    def __init__(self, scheduler: LRScheduler) -> None:
        self._scheduler = scheduler
        self._is_stopped = False

    def stop(self) -> None:
        """Change the rate no more. The state does not contain this: call it again after `load_state_dict`."""
        self._is_stopped = True

    def after_update(self) -> None:
        """Set the rate of the next update (cosine, poly)."""
        if not (self._is_stopped or isinstance(self._scheduler, ReduceLROnPlateau)):
            self._scheduler.step()

    def after_epoch(self, validation_loss: float) -> None:
        """Reduce the rate if the validation loss stagnates (plateau); NaN (not validated) is skipped."""
        if self._is_stopped or math.isnan(validation_loss):
            return
        if isinstance(self._scheduler, ReduceLROnPlateau):
            self._scheduler.step(validation_loss)

    def state_dict(self) -> dict[str, Any]:
        """Return the state in JSON types, without infinities (no best loss yet), which are the initial values."""
        return {key: value for key, value in self._scheduler.state_dict().items() if value != math.inf}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state, including the learning rate of the optimizer."""
        self._scheduler.load_state_dict(dict(state))
        rates = self._scheduler.get_last_lr()
        for group, rate in zip(self._scheduler.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate


def squared_kernels(network: nn.Module) -> Tensor:
    """Return the sum of squares of all trainable convolution kernels (Keras' kernel_regularizer with weight 1)."""
    kernels = [layer.weight for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)]
    start = next(network.parameters()).new_zeros(())
    return sum((kernel.square().sum() for kernel in kernels if kernel.requires_grad), start)


def make_schedule(settings: ScheduleSettings, optimizer: Optimizer, total_updates: int) -> Schedule:
    """Create the schedule of a run of `total_updates`.

    cosine: lr/2 (1 + cos(pi t/T)) (Loshchilov and Hutter 2017, no restarts); poly: lr (1 - t/T)^power;
    plateau: lr x factor after more than `patience` epochs without a loss 0.01 % below the best. With W updates of
    warm-up the rate of update t < W, counted from 0, is lr (t + 1) / W; the curve covers the others.
    """
    if settings.name == "plateau":
        return Schedule(ReduceLROnPlateau(optimizer, factor=settings.factor, patience=settings.patience))
    curve, warmup = _curve(settings.name, settings.power), round(settings.warmup * total_updates)

    def factor(update: int) -> float:
        if update < warmup:
            return (update + 1) / warmup
        return curve(min((update - warmup) / max(total_updates - warmup, 1), 1.0))

    return Schedule(LambdaLR(optimizer, factor))


def _curve(name: Literal["none", "cosine", "poly"], power: float) -> Callable[[float], float]:
    """Return the factor of the learning rate as a function of the fraction of the run."""
    match name:
        case "none":
            return lambda _: 1.0
        case "cosine":
            return lambda share: (1 + math.cos(math.pi * share)) / 2
        case "poly":
            return lambda share: (1 - share) ** power


def flatten_state(optimizer: Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the state as tensors "<parameter's position>.<name>" and all other values in JSON types."""
    state = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, dict[str, Any]] = {}
    for position, entry in state["state"].items():
        numbers[str(position)] = {}
        for name, value in entry.items():
            if isinstance(value, Tensor):
                tensors[f"{position}.{name}"] = value.detach().contiguous()
            else:
                numbers[str(position)][name] = value
    return tensors, {"state": numbers, "groups": state["param_groups"]}


def restore_state(optimizer: Optimizer, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
    """Load a flattened state into an optimizer with the same settings and parameters.

    Tensors are copied with the memory format of their parameters, as required by fused updates. Raises `ValueError` if
    the number of parameters differs.
    """
    state: dict[int, dict[str, Any]] = {int(key): dict(entry) for key, entry in numbers["state"].items()}
    parameters = dict(enumerate(parameter for group in optimizer.param_groups for parameter in group["params"]))
    for key, tensor in tensors.items():
        position, name = key.split(".", 1)
        state[int(position)][name] = _laid_out(tensor, parameters.get(int(position)))
    optimizer.load_state_dict({"state": state, "param_groups": [_as_torch(g) for g in numbers["groups"]]})


def _laid_out(tensor: Tensor, parameter: Tensor | None) -> Tensor:
    if parameter is None or tensor.shape != parameter.shape:
        return tensor.clone()
    return torch.empty_like(parameter, dtype=tensor.dtype, requires_grad=False).copy_(tensor)


def _as_torch(group: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the betas to a tuple, which JSON does not support."""
    return {key: tuple(value) if key == "betas" else value for key, value in group.items()}
