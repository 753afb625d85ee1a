"""How weights and feature maps lie in memory, which decides the kernels that torch takes."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

SMALL_MAP = 4
"""Longer side in pixels."""
LARGE_KERNEL = 2**19
"""Weights; 256 channels to 256, 3 x 3, have a few more."""


@contextmanager
def watched(network: nn.Module) -> Iterator[Mapping[nn.Conv2d, int]]:
    """Note the longer side of the largest map that each convolution makes within the block."""
    sides: dict[nn.Conv2d, int] = {}

    def note(layer: nn.Conv2d, _: tuple[Tensor, ...], made: Tensor) -> None:
        sides[layer] = max(sides.get(layer, 0), *made.shape[2:])

    handles = [layer.register_forward_hook(note) for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    try:
        yield sides
    finally:
        for handle in handles:
            handle.remove()


def lay_out(network: nn.Module, sides: Mapping[nn.Conv2d, float]) -> None:
    """Keep each pixel's channels together, but each channel's pixels where large kernels make small maps.

    With few pixels a kernel's gradient is slow channels last: on a processor ResNet-18's last stage takes 1.4 times as
    long at 64 px. Everything else was as fast or faster channels last in the networks measured (U-Net on VGG, ResNet,
    ResNeXt, DenseNet and EfficientNet, U-Net++, FPN, DeepLabV3+, SegFormer), grouped and pointwise kernels by far.
    Not measured on a GPU. `sides`: of the maps that convolutions make, in pixels.
    """
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for layer, side in sides.items():
        if side <= SMALL_MAP and _is_large(layer):
            layer.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
            layer.register_forward_pre_hook(_channels_apart)


def _is_large(layer: nn.Conv2d) -> bool:
    return layer.weight.numel() >= LARGE_KERNEL and layer.groups == 1 and max(layer.kernel_size) > 1


def _channels_apart(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Torch takes its kernels for channels last if either the maps or the weights lie so."""
    return (inputs[0].contiguous(), *inputs[1:])
