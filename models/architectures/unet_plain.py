"""U-Net as first published (Ronneberger et al. 2015), with padding and batch normalisation; Hu et al. use it.

Padding keeps the size, so maps are not cropped. Dropout follows every encoder level; the rate is our choice, as
neither paper states it.
"""

from torch import Tensor, cat, nn

from models.architectures import ARCHITECTURES
from models.architectures.layers import convolution, initialised, maps_by_level, upsample_2x
from models.architectures.parts import Blueprint, NetworkParts
from models.settings import Upsampling

WIDTHS = (64, 128, 256, 512, 1024)
DROPOUT = 0.1


class PlainUNetEncoder(nn.Module):
    """Five levels of two 3x3 convolutions, each level except the first after 2x2 max pooling."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            nn.Sequential(convolution(inputs, width), convolution(width, width), nn.Dropout(DROPOUT))
            for inputs, width in zip((channels, *WIDTHS), WIDTHS, strict=False)
        )
        self.pool = nn.MaxPool2d(2)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return maps of 64 to 1024 channels at strides 1, 2, 4, 8, 16."""
        return maps_by_level(self.levels, self.pool, images)


class PlainUNetDecoder(nn.Module):
    """Four levels: up-convolution to half the channels, concatenation of the encoder map, two 3x3 convolutions."""

    def __init__(self, upsampling: Upsampling) -> None:
        super().__init__()
        self.ups = nn.ModuleList(up_convolution(upsampling, 2 * width, width) for width in WIDTHS[-2::-1])
        self.levels = nn.ModuleList(
            nn.Sequential(convolution(2 * width, width), convolution(width, width)) for width in WIDTHS[-2::-1]
        )

    def forward(self, features: list[Tensor]) -> Tensor:
        """Return (N, 64, S, S)."""
        *skips, maps = features
        for up, level, skip in zip(self.ups, self.levels, reversed(skips), strict=True):
            maps = level(cat([skip, up(maps)], dim=1))
        return maps


def up_convolution(upsampling: Upsampling, inputs: int, outputs: int) -> nn.Module:
    """Return the transposed 2x2 convolution, or an interpolation and a 2x2 convolution."""
    if upsampling == "transposed":
        return nn.ConvTranspose2d(inputs, outputs, 2, stride=2)
    return nn.Sequential(upsample_2x(upsampling, inputs), nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(inputs, outputs, 2))


def encoder(blueprint: Blueprint) -> nn.Module:
    """Create the encoder with random weights."""
    return initialised(PlainUNetEncoder(blueprint.channels))


def parts(blueprint: Blueprint) -> NetworkParts:
    """Create the parts with random weights; 31 million parameters."""
    upsampling = blueprint.upsampling or ARCHITECTURES["unet_plain"].upsampling[0]
    own_encoder, decoder = encoder(blueprint), initialised(PlainUNetDecoder(upsampling))
    return NetworkParts(
        encoder=own_encoder, decoder=decoder, head=initialised(nn.Conv2d(WIDTHS[0], blueprint.outputs, 1))
    )
