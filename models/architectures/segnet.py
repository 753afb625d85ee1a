"""SegNet (Badrinarayanan et al. 2017) on VGG16 with batch normalisation, 29.4 million parameters.

The encoder is the library's `vgg16_bn`, so that its published weights are available under that name. Its maps are
taken before each pooling; the decoder recomputes the pooling positions from them. Without skips (zeros instead) every
value is placed at the upper left of its window.
"""

from itertools import pairwise

from torch import Tensor, nn

from models.architectures.layers import convolution, initialised, unpool
from models.architectures.parts import Blueprint, NetworkParts
from models.encoders.library import pyramid

ENCODER = "vgg16_bn"
LEVELS = ((512, 512, 512, 512), (512, 512, 512, 256), (256, 256, 256, 128), (128, 128, 64), (64, 64))
"""Channels of the convolutions of each level, from the deepest on; the head follows the last one."""


class SegNetDecoder(nn.Module):
    """Five levels of unpooling followed by the convolutions of VGG16 in reverse order."""

    def __init__(self) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            nn.Sequential(*(convolution(inputs, outputs) for inputs, outputs in pairwise(level))) for level in LEVELS
        )

    def forward(self, features: list[Tensor]) -> Tensor:
        """Return (N, 64, S, S)."""
        *pooled, maps = features
        for level, encoder_maps in zip(self.levels, reversed(pooled), strict=True):
            maps = level(unpool(maps, encoder_maps))
        return maps


def encoder(blueprint: Blueprint) -> nn.Module:
    """Create the encoder with random weights."""
    return pyramid(ENCODER, channels=blueprint.channels, options={})


def parts(blueprint: Blueprint) -> NetworkParts:
    """Create the parts with random weights."""
    own_encoder, decoder = encoder(blueprint), initialised(SegNetDecoder())
    head = initialised(nn.Conv2d(LEVELS[-1][-1], blueprint.outputs, 3, padding=1))
    return NetworkParts(encoder=own_encoder, decoder=decoder, head=head)
