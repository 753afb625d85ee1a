"""Simplified SegNet that Bullock et al. (2019) compare with XNet: one 3x3 convolution per level, 64 to 512 channels.

The decoder upsamples without the positions of the pooling and without skip connections. 5.5 million parameters.
Convolutions have no bias, which batch normalisation would cancel.
"""

from itertools import pairwise

from torch import Tensor, nn

from models.architectures import ARCHITECTURES
from models.architectures.layers import convolution, initialised, maps_by_level, upsample_2x
from models.architectures.parts import Blueprint, NetworkParts
from models.settings import Upsampling

WIDTHS = (64, 128, 256, 512)


class PlainSegNetEncoder(nn.Module):
    """Four convolutions, each except the first after 2x2 max pooling."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(convolution(inputs, outputs) for inputs, outputs in pairwise((channels, *WIDTHS)))
        self.pool = nn.MaxPool2d(2)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return maps of 64, 128, 256, 512 channels at strides 1, 2, 4, 8."""
        return maps_by_level(self.levels, self.pool, images)


class PlainSegNetDecoder(nn.Module):
    """A convolution of the deepest map, then three times upsampling and a convolution."""

    def __init__(self, upsampling: Upsampling) -> None:
        super().__init__()
        self.first = convolution(WIDTHS[-1], WIDTHS[-1])
        self.levels = nn.ModuleList(
            nn.Sequential(upsample_2x(upsampling, inputs), convolution(inputs, outputs))
            for inputs, outputs in pairwise(WIDTHS[::-1])
        )

    def forward(self, features: list[Tensor]) -> Tensor:
        """Return (N, 64, S, S)."""
        maps: Tensor = self.first(features[-1])
        for level in self.levels:
            maps = level(maps)
        return maps


def encoder(blueprint: Blueprint) -> nn.Module:
    """Create the encoder with random weights."""
    return initialised(PlainSegNetEncoder(blueprint.channels))


def parts(blueprint: Blueprint) -> NetworkParts:
    """Create the parts with random weights."""
    upsampling = blueprint.upsampling or ARCHITECTURES["segnet_plain"].upsampling[0]
    own_encoder, decoder = encoder(blueprint), initialised(PlainSegNetDecoder(upsampling))
    head = initialised(nn.Conv2d(WIDTHS[0], blueprint.outputs, 1))
    return NetworkParts(encoder=own_encoder, decoder=decoder, head=head)
