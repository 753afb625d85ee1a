"""Layers of the architectures that define their encoder."""

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from models.settings import Upsampling


def convolution(inputs: int, outputs: int, *, kernel: int = 3) -> nn.Sequential:
    """Return a padded convolution, batch normalisation and ReLU.

    Without bias, which the normalisation would cancel.
    """
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


def upsample_2x(upsampling: Upsampling, channels: int) -> nn.Module:
    """Return a layer that doubles the side of feature maps (N, channels, S, S)."""
    if upsampling == "transposed":
        return nn.ConvTranspose2d(channels, channels, 2, stride=2)
    return nn.Upsample(scale_factor=2, mode=upsampling)


def unpool(maps: Tensor, pooled: Tensor) -> Tensor:
    """Place each value of `maps` (N, C, S, S) at the position of the maximum of `pooled` (N, C, 2S, 2S) in its window.

    All other values are 0. Equals `torch.nn.functional.max_unpool2d` with the indices of pooling `pooled`, but is
    deterministic on all devices.
    """
    n, channels, height, width = maps.shape
    windows = pooled.reshape(n, channels, height, 2, width, 2).transpose(3, 4).flatten(4)
    is_maximum = windows.argmax(dim=4, keepdim=True) == torch.arange(4, device=maps.device)
    unpooled = (maps.unsqueeze(4) * is_maximum).view(n, channels, height, width, 2, 2)
    return unpooled.transpose(3, 4).reshape(n, channels, 2 * height, 2 * width)


ModuleT = TypeVar("ModuleT", bound=nn.Module)


def maps_by_level(levels: nn.ModuleList, pool: nn.Module, images: Tensor) -> list[Tensor]:
    """Return the output of each level, the first of the images, each other one of the pooled output before it."""
    maps = [levels[0](images)]
    for level in levels[1:]:
        maps.append(level(pool(maps[-1])))
    return maps


def initialised(module: ModuleT) -> ModuleT:
    """Initialise all convolutions after He et al. (2015), as U-Net and SegNet did; biases are 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return module


def resized(maps: Tensor, height: int, width: int) -> Tensor:
    """Return maps (N, C, H, W) at another size, by bilinear interpolation."""
    return maps if maps.shape[-2:] == (height, width) else interpolate(maps, (height, width), mode="bilinear")
