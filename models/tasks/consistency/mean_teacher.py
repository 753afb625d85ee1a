"""Mean teacher (Tarvainen and Valpola 2017; segmentation: Cui et al. 2019, with CutMix: French et al. 2020)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from models.network import Network
from models.optim.average import early_decay, momentum_copy, move_average
from models.tasks.base import Companion, NetworkFactory
from models.tasks.consistency.base import Consistency, UnlabelledViews
from models.tasks.consistency.losses import squared_distance

TEACHER = "teacher"


class MeanTeacher(Consistency):
    """The network predicts, from the strong view, the probabilities that the teacher gives to the weak view.

    The teacher is a moving average of the network, in evaluation mode. It is validated and kept.
    """

    _teacher: Network

    @property
    def kept_module(self) -> str:
        """Return the name of the teacher."""
        return TEACHER

    def companions(self, network: Network, another_network: NetworkFactory | None = None) -> Mapping[str, Companion]:
        """Create the teacher, a copy of the network."""
        self._teacher = momentum_copy(network)
        return {TEACHER: Companion(module=self._teacher, trained="never")}

    def unlabelled_loss(self, network: nn.Module, views: UnlabelledViews) -> Tensor:
        """Return the squared distance of the probabilities."""
        weak = self.fixed_probabilities(self._teacher, views.weak)
        (targets,) = views.mixed(weak, self.partner_probabilities(self._teacher, views))
        (strong,) = views.strong
        return squared_distance(self.probabilities(network(strong)), targets)

    @torch.no_grad()
    def after_update(self, network: nn.Module, done: int, updates: int) -> None:
        """Move the teacher towards the network, faster in early updates."""
        decay = early_decay(self.block.momentum, done)
        move_average(self._teacher.state_dict(), network.state_dict(), decay)
