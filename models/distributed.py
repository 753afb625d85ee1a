"""Data-parallel training that is equivalent to training on one worker.

Losses and batch norm are computed from sums over a batch, which `sum_with_gradient` extends over all workers. Each
worker thus computes the loss of the global batch, and the gradients of all workers add up to its gradient.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

T = TypeVar("T")
_is_padding = False
_is_alone = False


def is_distributed() -> bool:
    """Return whether several workers compute together."""
    if _is_alone:
        return False
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


@contextmanager
def without_other_workers() -> Iterator[None]:
    """Compute on this worker alone within the block, while others may have ended."""
    global _is_alone  # noqa: PLW0603 - a process computes one thing at a time
    previous, _is_alone = _is_alone, True
    try:
        yield
    finally:
        _is_alone = previous


@contextmanager
def contributing(counts: bool) -> Iterator[None]:
    """Set whether the images of this worker contribute to sums within the block, or are padding.

    A worker without images left in a batch computes on padding, as the others wait for its sums.
    """
    global _is_padding  # noqa: PLW0603 - shares are processed one at a time
    previous, _is_padding = _is_padding, not counts
    try:
        yield
    finally:
        _is_padding = previous


def sum_with_gradient(sums: Tensor) -> Tensor:
    """Return sums over all workers; the gradient is that of this worker's part, see `add_gradients`."""
    if not is_distributed():
        return sums
    summed: Tensor = _Total.apply(sums)  # type: ignore[no-untyped-call]
    return summed


def gather_with_gradient(rows: Tensor) -> Tensor:
    """Return the rows (n, ...) of all workers in the order of ranks, without padding; gradient as in the sum above."""
    if not is_distributed():
        return rows
    rank = dist.get_rank()
    counts = rows.new_zeros(dist.get_world_size(), dtype=torch.int64)
    counts[rank] = len(rows)
    counts = sum_over_workers(counts)
    own = rows[: int(counts[rank])]  # none of padding
    before, after = (own.new_zeros(int(part.sum()), *own.shape[1:]) for part in (counts[:rank], counts[rank + 1 :]))
    return sum_with_gradient(torch.cat([before, own, after]))


def divided_among_workers(value: Tensor) -> Tensor:
    """Return a value that all workers compute equally, with its gradient divided by the number of workers."""
    if not is_distributed():
        return value
    part = value / dist.get_world_size()
    return part + (value - part).detach()


def add_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace gradients by their sum over all workers, with one all-reduce per dtype."""
    if not is_distributed():
        return
    by_dtype: dict[torch.dtype, list[Tensor]] = {}
    for parameter in parameters:
        if parameter.grad is not None:
            by_dtype.setdefault(parameter.grad.dtype, []).append(parameter.grad)
    for gradients in by_dtype.values():
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        for gradient, part in zip(gradients, torch.split(flat, [tensor.numel() for tensor in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))


def sum_over_workers(sums: Tensor) -> Tensor:
    """Return sums over all workers, without gradient."""
    if is_distributed():
        sums = torch.zeros_like(sums) if _is_padding else sums.clone()
        dist.all_reduce(sums)
    return sums


def broadcast_state(network: nn.Module) -> None:
    """Broadcast parameters and buffers of the first worker."""
    if is_distributed():
        for tensor in network.state_dict().values():
            contiguous = tensor.contiguous()
            dist.broadcast(contiguous, src=0)
            tensor.copy_(contiguous)


def from_first_worker(make: Callable[[], T] | None, device: torch.device) -> T | None:
    """Call `make` on the first worker and broadcast the result; None on the others."""
    objects = [None if make is None else make()]
    if is_distributed():
        dist.broadcast_object_list(objects, src=0, device=device)
    return objects[0]


def synchronise_batch_norm(network: nn.Module) -> None:
    """Replace batch norms by synchronised ones, which keep the names of parameters and buffers."""
    parameter = next(network.parameters(), None)
    if parameter is None or not is_distributed():
        return
    if parameter.is_cuda:
        from models.encoders.vision import timm

        timm.layers.convert_sync_batchnorm(network)  # torch's, with timm's activations
        return
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, _BatchNorm):
                setattr(parent, name, SharedBatchNorm(child))


class _Total(torch.autograd.Function):
    """Sum over workers for values computed equally by all; the gradient is passed on unchanged."""

    @staticmethod
    def forward(ctx: Any, sums: Tensor) -> Tensor:  # noqa: ANN401 - torch's own context
        ctx.is_padding = _is_padding
        return sum_over_workers(sums)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ANN401
        (gradient,) = gradients
        return torch.zeros_like(gradient) if ctx.is_padding else gradient


class _Moments(torch.autograd.Function):
    """Sum over workers for values used differently by each; gradients are summed too."""

    @staticmethod
    def forward(ctx: Any, sums: Tensor) -> Tensor:  # noqa: ANN401
        ctx.is_padding = _is_padding
        return sum_over_workers(sums)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ANN401
        summed = gradients[0].clone()
        dist.all_reduce(summed)
        return torch.zeros_like(summed) if ctx.is_padding else summed


class SharedBatchNorm(_BatchNorm):
    """Synchronised batch norm for CPUs; `torch.nn.SyncBatchNorm` supports GPU tensors only.

    Uses the parameters, statistics and children (activations of timm) of the layer it replaces.
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
        """Accept inputs of any number of dimensions."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (N, C, ...)."""
        normal = self._normalised(input) if self.training else super().forward(input)
        for child in self.children():
            normal = child(normal)
        return normal

    def _normalised(self, values: Tensor) -> Tensor:
        dims = [0, *range(2, values.dim())]
        exact = values.double()
        count = exact.new_full((1,), values.numel() / self.num_features)
        sums: Tensor = _Moments.apply(torch.cat([exact.sum(dims), exact.square().sum(dims), count]))  # type: ignore[no-untyped-call]
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
