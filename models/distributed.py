"""Several workers train one network on shares of each batch, and learn what one would from all of it.

Losses and batch norm are made of sums over a batch; `total` sums over the workers too. So every worker computes the
loss of the whole batch, whatever their number, and the gradients of their shares add up to its gradient.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Made = TypeVar("Made")
_absent = False


def is_shared() -> bool:
    """Return whether several processes train together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


@contextmanager
def present(counts: bool) -> Iterator[None]:
    """Let what this worker computes count, or for nothing where a batch has no image left for it.

    It takes part all the same: the others wait for its sums.
    """
    global _absent  # noqa: PLW0603 - one share at a time is worked on
    before, _absent = _absent, not counts
    try:
        yield
    finally:
        _absent = before


def total(sums: Tensor) -> Tensor:
    """Return sums over all workers. Its gradient is that of this worker's part alone: add those of parameters up."""
    if not is_shared():
        return sums
    summed: Tensor = _Total.apply(sums)  # type: ignore[no-untyped-call]
    return summed


def once(value: Tensor) -> Tensor:
    """Return what every worker computes alike, such that its gradients of all workers add up to one."""
    if not is_shared():
        return value
    part = value / dist.get_world_size()
    return part + (value - part).detach()


def add_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its sum over the workers, in one exchange a kind of number."""
    if not is_shared():
        return
    by_kind: dict[torch.dtype, list[Tensor]] = {}
    for parameter in parameters:
        if parameter.grad is not None:
            by_kind.setdefault(parameter.grad.dtype, []).append(parameter.grad)
    for gradients in by_kind.values():
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        for gradient, part in zip(gradients, torch.split(flat, [one.numel() for one in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))


def add(sums: Tensor) -> Tensor:
    """Return sums over all workers, without a gradient."""
    if is_shared():
        sums = torch.zeros_like(sums) if _absent else sums.clone()
        dist.all_reduce(sums)
    return sums


def alike(network: nn.Module) -> None:
    """Give all workers the parameters and buffers of the first."""
    if is_shared():
        for tensor in network.state_dict().values():
            row = tensor.contiguous()
            dist.broadcast(row, src=0)
            tensor.copy_(row)


def from_first(make: Callable[[], Made] | None, device: torch.device) -> Made | None:
    """Return what the first worker makes; the others need not be able to."""
    box = [None if make is None else make()]
    if is_shared():
        dist.broadcast_object_list(box, src=0, device=device)
    return box[0]


def synchronised(network: nn.Module) -> None:
    """Let a network's batch norms normalise over the images of all workers; its state keeps its names."""
    if not is_shared():
        return
    if next(network.parameters()).is_cuda:
        from models.encoders.vision import timm

        timm.layers.convert_sync_batchnorm(network)  # torch's, with timm's activations
        return
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, _BatchNorm):
                setattr(parent, name, SharedBatchNorm(child))


class _Total(torch.autograd.Function):
    """Sum over workers; each computes the same from it, so each takes its own part's gradient as it comes."""

    @staticmethod
    def forward(ctx: Any, sums: Tensor) -> Tensor:  # noqa: ANN401 - torch's own context
        ctx.absent = _absent
        return add(sums)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ANN401
        (gradient,) = gradients
        return torch.zeros_like(gradient) if ctx.absent else gradient


class _Moments(torch.autograd.Function):
    """Sum over workers of what each normalises by differently, so that gradients are summed too."""

    @staticmethod
    def forward(ctx: Any, sums: Tensor) -> Tensor:  # noqa: ANN401
        ctx.absent = _absent
        return add(sums)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ANN401
        summed = gradients[0].clone()
        dist.all_reduce(summed)
        return torch.zeros_like(summed) if ctx.absent else summed


class SharedBatchNorm(_BatchNorm):
    """Batch norm over the images of all workers, for processors: torch's own takes GPU tensors only.

    Takes over the parameters, statistics and children (timm's activation) of the layer it replaces.
    """

    def __init__(self, layer: _BatchNorm) -> None:
        nn.Module.__init__(self)
        self.num_features, self.eps, self.momentum = layer.num_features, layer.eps, layer.momentum
        self.affine, self.track_running_stats = layer.affine, layer.track_running_stats
        self.weight, self.bias = layer.weight, layer.bias
        for name, buffer in layer.named_buffers(recurse=False):
            self.register_buffer(name, buffer)
        for name, child in layer.named_children():
            self.add_module(name, child)
        self.train(layer.training)

    def _check_input_dim(self, input: Tensor) -> None:
        """Take maps of any number of dimensions, as the layer that was replaced did."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (N, C, ...)."""
        normal = self._normalised(input) if self.training else super().forward(input)
        for child in self.children():
            normal = child(normal)
        return normal

    def _normalised(self, values: Tensor) -> Tensor:
        over = [0, *range(2, values.dim())]
        exact = values.double()
        count = exact.new_full((1,), values.numel() / self.num_features)
        sums: Tensor = _Moments.apply(torch.cat([exact.sum(over), exact.square().sum(over), count]))  # type: ignore[no-untyped-call]
        mean, square = sums[:-1].view(2, -1) / sums[-1]
        variance = (square - mean.square()).clamp_min(0)
        self._remember(mean.detach(), variance.detach(), sums[-1].detach())
        shape = (1, -1, *[1] * (values.dim() - 2))
        normal: Tensor = (exact - mean.view(shape)) * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            normal = normal * self.weight.view(shape) + self.bias.view(shape)
        return normal.to(values.dtype)

    def _remember(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        share = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean.float(), share)
        self.running_var.lerp_((variance * count / (count - 1).clamp_min(1)).float(), share)
