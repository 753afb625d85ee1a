"""Architectures that classify each position of the encoder's features: a linear layer, or a small perceptron."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from models.architectures.feature_pyramid import image_side
from models.architectures.parts import Blueprint, NetworkParts
from models.catalog.registry import backbone as describe_backbone
from models.encoders.library import FULL_DEPTH, PLAIN_DEPTH, plain, pyramid

HIDDEN = 256
MAPS = {"linear": 1, "mlp": 4}
"""Number of feature maps that each architecture uses, the deepest ones."""


class Concatenation(nn.Module):
    """Concatenates the deepest feature maps at the resolution of the finest of them, after batch norm of each.

    Args:
        widths: Channels of these maps.
        patch: Side of the patches of a plain vision transformer; None for other encoders.
    """

    def __init__(self, widths: Sequence[int], patch: int | None) -> None:
        super().__init__()
        self.patch = patch
        self.norms = nn.ModuleList(map(nn.BatchNorm2d, widths))

    def forward(self, features: list[Tensor]) -> tuple[Tensor, tuple[int, int]]:
        """Return (N, C, h, w), and height and width of the images."""
        maps = [norm(part) for norm, part in zip(self.norms, features[-len(self.norms) :], strict=True)]
        size = maps[0].shape[-2:]
        joined = torch.cat([_resized(part, size) for part in maps], dim=1)
        if self.patch is None:
            return joined, (features[0].shape[-2], features[0].shape[-1])
        return joined, (image_side(size[0], self.patch), image_side(size[1], self.patch))


class PixelHead(nn.Module):
    """Applies linear layers to each position and enlarges their output to the size of the images.

    Args:
        widths: Channels of the input and of the output of each layer; between layers there is a GELU.
    """

    def __init__(self, *widths: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.GELU()] if layers else []
            layers.append(nn.Conv2d(before, after, 1))
        self.layers = nn.Sequential(*layers)

    def forward(self, decoded: tuple[Tensor, tuple[int, int]]) -> Tensor:
        """Return logits (N, outputs, H, W)."""
        maps, size = decoded
        return interpolate(self.layers(maps), size, mode="bilinear")


def parts(blueprint: Blueprint) -> NetworkParts:
    """Create the parts with random weights."""
    row = describe_backbone(blueprint.backbone)
    is_plain = row.features == "plain"
    make = plain if is_plain else pyramid
    encoder = make(blueprint.backbone, channels=blueprint.channels, options=row.options)
    number = min(MAPS[str(blueprint.architecture)], PLAIN_DEPTH if is_plain else FULL_DEPTH)
    widths = row.channels[-number:]
    hidden = [HIDDEN] if blueprint.architecture == "mlp" else []
    decoder = Concatenation(widths, row.strides[-1] if is_plain else None)
    return NetworkParts(encoder=encoder, decoder=decoder, head=PixelHead(sum(widths), *hidden, blueprint.outputs))


def _resized(maps: Tensor, size: Sequence[int]) -> Tensor:
    return maps if maps.shape[-2:] == size else interpolate(maps, tuple(size), mode="bilinear")
