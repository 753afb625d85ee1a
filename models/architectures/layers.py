"""Layers that the networks with an encoder of their own are made of."""

from typing import TypeVar

import torch
from torch import Tensor, nn

from models.settings import Upsampling


def convolution(inputs: int, outputs: int, *, kernel: int = 3) -> nn.Sequential:
    """Return a padded convolution, batch normalisation, ReLU.

    No bias: the normalisation would take it away again.
    """
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


def doubling(way: Upsampling, channels: int) -> nn.Module:
    """Return what doubles the side of feature maps (N, channels, S, S) without changing their channels."""
    if way == "transposed":
        return nn.ConvTranspose2d(channels, channels, 2, stride=2)
    return nn.Upsample(scale_factor=2, mode=way)


def unpool(maps: Tensor, pooled: Tensor) -> Tensor:
    """Put each value of `maps` (N, C, S, S) where the maximum of `pooled` (N, C, 2S, 2S) lay in its 2x2 window.

    All else is 0. As `torch.nn.functional.max_unpool2d` with the indices of the pooling of `pooled`, but
    deterministic on every device.
    """
    n, channels, height, width = maps.shape
    windows = pooled.reshape(n, channels, height, 2, width, 2).transpose(3, 4).flatten(4)
    chosen = windows.argmax(dim=4, keepdim=True) == torch.arange(4, device=maps.device)
    spread = (maps.unsqueeze(4) * chosen).view(n, channels, height, width, 2, 2)
    return spread.transpose(3, 4).reshape(n, channels, 2 * height, 2 * width)


Made = TypeVar("Made", bound=nn.Module)


def initialised(module: Made) -> Made:
    """Draw the weights of all convolutions after He et al. (2015), as U-Net and SegNet did; biases are 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return module
