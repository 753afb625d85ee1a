"""A network with its optimizer and learning-rate schedule."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from models.distributed import add_gradients
from models.network import Network
from models.optim.groups import FACTOR, parameter_groups
from models.optim.optimizers import flatten_state, make_optimizer, make_schedule, restore_state
from models.settings import NetworkOptimizerSettings, OptimizerSettings, ScheduleSettings

StateParts = dict[str, Mapping[str, Tensor]]


class OptimizedModel:
    """A network, or a module that is trained beside it, with its optimizer and schedule."""

    def __init__(
        self,
        network: nn.Module,
        optimizer: OptimizerSettings,
        schedule: ScheduleSettings,
        *,
        updates: int,
        clip_norm: float | None = None,
    ) -> None:
        self.network = network
        self._optimizer = make_optimizer(optimizer, _parameters(network, optimizer))
        self._schedule = make_schedule(schedule, self._optimizer, updates)
        self._clip_norm = clip_norm

    @property
    def rate(self) -> float:
        """Return the learning rate of the next update, of decoder and head if that of the encoder differs."""
        rate: float = self._optimizer.param_groups[0]["lr"]
        return rate

    def hold_rate(self, rate: float) -> None:
        """Set a constant learning rate, with the factors of the encoder's layers, and stop the schedule."""
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group.get(FACTOR, 1.0)
        self._schedule.stop()

    def zero_grad(self) -> None:
        """Reset the gradients."""
        self._optimizer.zero_grad(set_to_none=True)

    def step(self) -> None:
        """Sum gradients over all workers, clip them, and update the weights."""
        add_gradients(self.network.parameters())
        if self._clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self._clip_norm)
        self._optimizer.step()
        self._schedule.after_update()

    def after_epoch(self, validation_loss: float) -> None:
        """Update the schedule with the validation loss."""
        self._schedule.after_epoch(validation_loss)

    def state(self) -> tuple[StateParts, dict[str, Any]]:
        """Return weights and optimizer state as tensors, and everything else as JSON types."""
        tensors, numbers = flatten_state(self._optimizer)
        parts: StateParts = {"weights": self.network.state_dict(), "optimizer": tensors}
        return parts, {"optimizer": numbers, "schedule": self._schedule.state_dict()}

    def restore(self, parts: Mapping[str, Mapping[str, Tensor]], numbers: Mapping[str, Any]) -> None:
        """Load a state returned by `state`."""
        self.network.load_state_dict(dict(parts["weights"]))
        restore_state(self._optimizer, parts["optimizer"], numbers["optimizer"])
        self._schedule.load_state_dict(numbers["schedule"])


def _parameters(network: nn.Module, settings: OptimizerSettings) -> Iterable[nn.Parameter] | list[dict[str, Any]]:
    if isinstance(network, Network) and isinstance(settings, NetworkOptimizerSettings) and not settings.is_uniform:
        return parameter_groups(network, settings)
    return network.parameters()
