"""Feature pyramid over a plain vision transformer, so that decoders of convolutional encoders take its features.

As in ViTDet (Li et al. 2022) and the UPerNet of BEiT (Bao et al. 2022), strided and transposed convolutions change the
resolution of features that all have the stride of the patches; as in the latter, each level has features of another
depth.
"""

import math
from collections.abc import Sequence
from typing import Final

from torch import Tensor, nn

from models.architectures.layers import resized
from models.catalog.registry import PYRAMID_DIVISOR
from models.encoders.vision import timm

STRIDES: Final = (4, 8, 16, 32)
"""Strides of the levels, unless the output stride of the encoder is smaller."""


def level_widths(channels: int, patch: int, strides: Sequence[int]) -> tuple[int, ...]:
    """Return the number of channels of each level: halved wherever the resolution of the features is doubled."""
    return tuple(channels >> max(0, _doublings(patch, stride)) for stride in strides)


def level_strides(depth: int, output_stride: int) -> tuple[int, ...]:
    """Return the strides of the levels of a decoder that uses an encoder of this depth and output stride."""
    return tuple(min(stride, output_stride) for stride in STRIDES[: depth - 1])


def image_side(length: int, patch: int) -> int:
    """Return the side of the images in pixels of features with `length` rows or columns."""
    return round(int(length) * patch / PYRAMID_DIVISOR) * PYRAMID_DIVISOR


class FeaturePyramid(nn.Module):
    """Makes a pyramid of features of a plain vision transformer.

    Args:
        channels: Channels of the features.
        patch: Side of the patches in pixels, which is the stride of the features.
        strides: Strides of the levels, from the finest on.
    """

    def __init__(self, channels: int, patch: int, strides: Sequence[int]) -> None:
        super().__init__()
        self.patch, self.strides = patch, tuple(strides)
        self.widths = level_widths(channels, patch, strides)
        self.levels = nn.ModuleList(Level(channels, _doublings(patch, stride)) for stride in strides)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Return features of strides 1 and 2 without channels, which decoders expect, then those of the levels.

        Args:
            features: (N, channels, H / patch, W / patch) of at least as many depths as there are levels, the deepest
                last. Others before them, such as prefix tokens, are not used.
        """
        chosen = features[-len(self.levels) :]
        height, width = (image_side(length, self.patch) for length in chosen[-1].shape[-2:])
        empty = [chosen[-1].new_zeros(len(chosen[-1]), 0, height // stride, width // stride) for stride in (1, 2)]
        return empty + [
            level(maps, height // stride, width // stride)
            for level, maps, stride in zip(self.levels, chosen, self.strides, strict=True)
        ]

    def prune(self, useful: frozenset[int]) -> None:
        """Replace the levels that a decoder does not use, none of whose parameters has one of these ids."""
        for number, level in enumerate(self.levels):
            if not any(id(parameter) in useful for parameter in level.parameters()):
                self.levels[number] = UnusedLevel(self.widths[number])


class Level(nn.Module):
    """Changes the resolution of features by a power of two.

    Args:
        channels: Channels of the features.
        doublings: How often the resolution is doubled; negative if it is halved.
    """

    def __init__(self, channels: int, doublings: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(doublings):
            layers += [
                nn.ConvTranspose2d(channels, channels // 2, 2, stride=2),
                timm.layers.LayerNorm2d(channels // 2),
                nn.GELU(),
            ]
            channels //= 2
        self.factor = 2 ** max(0, -doublings)
        self.change = nn.Sequential(*layers, *([nn.MaxPool2d(self.factor)] if self.factor > 1 else []))
        # Features of all levels get the same scale, whatever the transformer was trained on.
        self.mix = nn.Sequential(nn.Conv2d(channels, channels, 1), timm.layers.LayerNorm2d(channels))

    def forward(self, maps: Tensor, height: int, width: int) -> Tensor:
        """Return maps of this size; those of patches of 14 pixels are also interpolated."""
        if self.factor > 1:
            maps = resized(maps, self.factor * height, self.factor * width)
        mixed: Tensor = self.mix(self.change(maps))
        return resized(mixed, height, width)


class UnusedLevel(nn.Module):
    """Zeros in place of a level that the decoder does not use.

    Args:
        channels: Channels of the level.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, maps: Tensor, height: int, width: int) -> Tensor:
        """Return zeros (N, channels, height, width)."""
        return maps.new_zeros(len(maps), self.channels, height, width)


class PyramidDecoder(nn.Module):
    """A decoder behind a feature pyramid."""

    def __init__(self, pyramid: FeaturePyramid, decoder: nn.Module) -> None:
        super().__init__()
        self.pyramid, self.decoder = pyramid, decoder

    def forward(self, features: list[Tensor]) -> Tensor:
        """Return the output of the decoder for the features of a plain vision transformer."""
        decoded: Tensor = self.decoder(self.pyramid(features))
        return decoded


def _doublings(patch: int, stride: int) -> int:
    """Return how often the resolution of the features is doubled for a stride; negative if it is halved."""
    return round(math.log2(patch / stride))
