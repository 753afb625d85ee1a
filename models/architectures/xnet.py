"""XNet (Bullock et al. 2019), two consecutive U shapes with one 3x3 convolution per level.

The encoder is the first contracting path with its bottleneck; both expanding paths and the second contracting path,
which use the encoder maps as skips, are the decoder. 11.73 million parameters with one channel and three classes.
Convolutions have no bias, which batch normalisation would cancel.
"""

from torch import Tensor, cat, nn

from models.architectures import ARCHITECTURES
from models.architectures.layers import convolution, initialised, upsample_2x
from models.architectures.parts import Blueprint, NetworkParts
from models.settings import Upsampling


class XNetEncoder(nn.Module):
    """Down 64, 128, 256, each followed by 2x2 max pooling; flat 512, 512."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down = nn.ModuleList([convolution(channels, 64), convolution(64, 128), convolution(128, 256)])
        self.flat = nn.Sequential(convolution(256, 512), convolution(512, 512))
        self.pool = nn.MaxPool2d(2)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return maps of 64, 128, 256, 512 channels at strides 1, 2, 4, 8."""
        return _descend(images, self.down, self.flat, self.pool)


class XNetDecoder(nn.Module):
    """Up 256, 128; down 128, 256; flat 512, 512; up 256, 128, 64, each concatenated with a skip."""

    def __init__(self, upsampling: Upsampling) -> None:
        super().__init__()
        self.first_up = nn.ModuleList([_up(upsampling, 512, 256), _up(upsampling, 2 * 256, 128)])
        self.down = nn.ModuleList([convolution(2 * 128, 128), convolution(128, 256)])
        self.flat = nn.Sequential(convolution(256, 512), convolution(512, 512))
        self.pool = nn.MaxPool2d(2)
        self.second_up = nn.ModuleList(
            [_up(upsampling, 512, 256), _up(upsampling, 2 * 256, 128), _up(upsampling, 2 * 128, 64)]
        )

    def forward(self, features: list[Tensor]) -> Tensor:
        """Return (N, 128, S, S)."""
        full, half, quarter, flat = features
        middle = _ascend(flat, self.first_up, [quarter, half])
        half, quarter, flat = _descend(middle, self.down, self.flat, self.pool)
        return _ascend(flat, self.second_up, [quarter, half, full])


def _up(upsampling: Upsampling, inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(upsample_2x(upsampling, inputs), convolution(inputs, outputs))


def _descend(maps: Tensor, down: nn.ModuleList, flat: nn.Module, pool: nn.Module) -> list[Tensor]:
    features = []
    for level in down:
        features.append(level(maps))
        maps = pool(features[-1])
    return [*features, flat(maps)]


def _ascend(maps: Tensor, up: nn.ModuleList, skips: list[Tensor]) -> Tensor:
    for level, skip in zip(up, skips, strict=True):
        maps = cat([skip, level(maps)], dim=1)
    return maps


def encoder(blueprint: Blueprint) -> nn.Module:
    """Create the encoder with random weights."""
    return initialised(XNetEncoder(blueprint.channels))


def parts(blueprint: Blueprint) -> NetworkParts:
    """Create the parts with random weights."""
    upsampling = blueprint.upsampling or ARCHITECTURES["xnet"].upsampling[0]
    first, decoder = encoder(blueprint), initialised(XNetDecoder(upsampling))
    return NetworkParts(encoder=first, decoder=decoder, head=initialised(nn.Conv2d(128, blueprint.outputs, 1)))
