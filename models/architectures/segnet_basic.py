"""SegNet-Basic (Badrinarayanan et al. 2017): four levels in encoder and decoder, 7x7 convolutions of 64 channels.

No bias before batch normalisation and no ReLU in the decoder, as published; 1.4 million parameters.
"""

from torch import Tensor, nn

from models.architectures.layers import convolution, initialised, unpool
from models.architectures.parts import Blueprint, NetworkParts

WIDTH = 64
LEVELS = 4
KERNEL = 7


class SegNetBasicEncoder(nn.Module):
    """Four times convolution, batch normalisation, ReLU and 2x2 max pooling."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            convolution(WIDTH if number else channels, WIDTH, kernel=KERNEL) for number in range(LEVELS)
        )
        self.pool = nn.MaxPool2d(2)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the maps before each pooling, at strides 1, 2, 4, 8, and after the last, at 16."""
        features, maps = [], images
        for level in self.levels:
            features.append(level(maps))
            maps = self.pool(features[-1])
        return [*features, maps]


class SegNetBasicDecoder(nn.Module):
    """Four times unpooling, convolution, batch normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.levels = nn.ModuleList(convolution(WIDTH, WIDTH, kernel=KERNEL)[:2] for _ in range(LEVELS))

    def forward(self, features: list[Tensor]) -> Tensor:
        """Return (N, 64, S, S)."""
        *pooled, maps = features
        for level, encoder_maps in zip(self.levels, reversed(pooled), strict=True):
            maps = level(unpool(maps, encoder_maps))
        return maps


def encoder(blueprint: Blueprint) -> nn.Module:
    """Create the encoder with random weights."""
    return initialised(SegNetBasicEncoder(blueprint.channels))


def parts(blueprint: Blueprint) -> NetworkParts:
    """Create the parts with random weights."""
    own_encoder, decoder = encoder(blueprint), initialised(SegNetBasicDecoder())
    return NetworkParts(encoder=own_encoder, decoder=decoder, head=initialised(nn.Conv2d(WIDTH, blueprint.outputs, 1)))
