"""Optimizers, learning-rate schedules, and their state as named tensors and plain numbers.

A change of numerics raises `optimize` in `models.versions`.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from models.settings import OptimizerSettings, ScheduleSettings


def make_optimizer(settings: OptimizerSettings, parameters: Iterable[nn.Parameter]) -> Optimizer:
    """Make torch's optimizer of that name; parameters without gradient are left alone until they have one."""
    shared: dict[str, Any] = {"lr": settings.lr, "weight_decay": settings.weight_decay}
    match settings.name:
        case "adam":
            return Adam(parameters, fused=True, **shared)
        case "adamw":
            return AdamW(parameters, fused=True, **shared)
        case "sgd":
            # Fused momentum fails where parameters get their first gradient later than others, as thawed ones do.
            return SGD(parameters, momentum=settings.momentum, fused=not settings.momentum, **shared)
        case "rmsprop":
            return RMSprop(parameters, momentum=settings.momentum, **shared)


class Schedule:
    """A learning rate over time. The loop calls `after_update` and `after_epoch`; each knows if it acts."""

    def __init__(self, scheduler: LRScheduler) -> None:
        self._scheduler = scheduler

    def after_update(self) -> None:
        """Set the rate of the next update (cosine, poly)."""
        if not isinstance(self._scheduler, ReduceLROnPlateau):
            self._scheduler.step()

    def after_epoch(self, validation_loss: float) -> None:
        """Lower the rate where the validation loss stands still (plateau); NaN (not validated) is skipped."""
        if isinstance(self._scheduler, ReduceLROnPlateau) and not math.isnan(validation_loss):
            self._scheduler.step(validation_loss)

    def state_dict(self) -> dict[str, Any]:
        """Return the state in JSON's own types; infinities (no best loss yet) are left at their start."""
        return {key: value for key, value in self._scheduler.state_dict().items() if value != math.inf}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from that state, the optimizer's learning rate included."""
        self._scheduler.load_state_dict(dict(state))
        rates = self._scheduler.get_last_lr()
        for group, rate in zip(self._scheduler.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate


def squared_kernels(network: nn.Module) -> Tensor:
    """Return the sum of squares of all convolution kernels that train (Keras' kernel_regularizer of weight 1)."""
    kernels = [layer.weight for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)]
    start = next(network.parameters()).new_zeros(())
    return sum((kernel.square().sum() for kernel in kernels if kernel.requires_grad), start)


def make_schedule(settings: ScheduleSettings, optimizer: Optimizer, total_updates: int) -> Schedule:
    """Make the schedule of a run of `total_updates`.

    cosine: lr/2 (1 + cos(pi t/T)) (Loshchilov and Hutter 2017, no restarts); poly: lr (1 - t/T)^power;
    plateau: lr x factor after more than `patience` epochs without a loss 0.01 % below the best.
    """
    if settings.name == "plateau":
        return Schedule(ReduceLROnPlateau(optimizer, factor=settings.factor, patience=settings.patience))
    curve = _curve(settings.name, settings.power)
    return Schedule(LambdaLR(optimizer, lambda update: curve(min(update / total_updates, 1.0))))


def _curve(name: Literal["none", "cosine", "poly"], power: float) -> Callable[[float], float]:
    """Return the share of the learning rate at a share of the run."""
    match name:
        case "none":
            return lambda _: 1.0
        case "cosine":
            return lambda share: (1 + math.cos(math.pi * share)) / 2
        case "poly":
            return lambda share: (1 - share) ** power


def flatten_state(optimizer: Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the state as tensors "<parameter's position>.<name>" and everything else in JSON's own types."""
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
    """Put a flattened state into an optimizer of the same settings over the same parameters.

    Tensors are copied, and lie in memory as their parameters do, which fused updates rely on. Raises `ValueError`
    where the parameters are not as many.
    """
    state: dict[int, dict[str, Any]] = {int(key): dict(entry) for key, entry in numbers["state"].items()}
    parameters = dict(enumerate(one for group in optimizer.param_groups for one in group["params"]))
    for key, tensor in tensors.items():
        position, name = key.split(".", 1)
        state[int(position)][name] = _laid_out(tensor, parameters.get(int(position)))
    optimizer.load_state_dict({"state": state, "param_groups": [_as_torch(g) for g in numbers["groups"]]})


def _laid_out(tensor: Tensor, parameter: Tensor | None) -> Tensor:
    if parameter is None or tensor.shape != parameter.shape:
        return tensor.clone()
    return torch.empty_like(parameter, dtype=tensor.dtype, requires_grad=False).copy_(tensor)


def _as_torch(group: Mapping[str, Any]) -> dict[str, Any]:
    """JSON knows no tuples; torch's betas are one."""
    return {key: tuple(value) if key == "betas" else value for key, value in group.items()}
