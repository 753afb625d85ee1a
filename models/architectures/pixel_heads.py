"""Architectures that classify each position of the encoder's features: a linear layer, or a small perceptron."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from models.architectures.feature_pyramid import image_side
from models.architectures.layers import resized
from models.architectures.parts import Blueprint, NetworkParts
from models.catalog.registry import backbone as describe_backbone
from models.encoders.library import plain, pyramid

HIDDEN = 256
MAPS = {"linear": 1, "mlp": 4}
"""Number of feature maps that each architecture uses, the deepest ones."""
Size = tuple[int, int]
"""Height and width of the images."""


class NormalisedMap(nn.Module):
    """Batch norm of the deepest feature map.

    Args:
        width: Channels of the map.
        patch: Side of the patches of a plain vision transformer; None for other encoders.
    """

    def __init__(self, width: int, patch: int | None) -> None:
        super().__init__()
        self.patch, self.norm = patch, nn.BatchNorm2d(width)

    def forward(self, features: list[Tensor]) -> tuple[Tensor, Size]:
        """Return (N, C, h, w), and height and width of the images."""
        return self.norm(features[-1]), _image_size(features, self.patch)


class HiddenLayer(nn.Module):
    """A linear layer on each position of several feature maps, after batch norm of each.

    Coarser maps are enlarged after the layer, which equals the layer on the concatenation of enlarged maps.

    Args:
        widths: Channels of the maps, from the finest on.
        patch: Side of the patches of a plain vision transformer; None for other encoders.
    """

    def __init__(self, widths: Sequence[int], patch: int | None) -> None:
        super().__init__()
        self.patch = patch
        self.norms = nn.ModuleList(map(nn.BatchNorm2d, widths))
        self.layers = nn.ModuleList(nn.Conv2d(width, HIDDEN, 1, bias=not number) for number, width in enumerate(widths))

    def forward(self, features: list[Tensor]) -> tuple[Tensor, Size]:
        """Return (N, HIDDEN, h, w), and height and width of the images."""
        maps = features[-len(self.norms) :]
        height, width = maps[0].shape[-2:]
        parts = [
            resized(layer(norm(part)), height, width)
            for part, norm, layer in zip(maps, self.norms, self.layers, strict=True)
        ]
        return torch.stack(parts).sum(dim=0), _image_size(features, self.patch)


class PixelHead(nn.Module):
    """Applies layers to each position and enlarges their output to the size of the images."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, decoded: tuple[Tensor, Size]) -> Tensor:
        """Return logits (N, outputs, H, W)."""
        maps, size = decoded
        return interpolate(self.layers(maps), size, mode="bilinear")


def parts(blueprint: Blueprint) -> NetworkParts:
    """Create the parts with random weights."""
    row = describe_backbone(blueprint.backbone)
    is_plain = row.features == "plain"
    make = plain if is_plain else pyramid
    encoder = make(blueprint.backbone, channels=blueprint.channels, options=row.options)
    patch = row.strides[-1] if is_plain else None
    widths = row.channels[-MAPS[str(blueprint.architecture)] :]
    if blueprint.architecture == "linear":
        decoder: nn.Module = NormalisedMap(widths[-1], patch)
        return NetworkParts(
            encoder=encoder, decoder=decoder, head=PixelHead(nn.Conv2d(widths[-1], blueprint.outputs, 1))
        )
    head = PixelHead(nn.GELU(), nn.Conv2d(HIDDEN, blueprint.outputs, 1))
    return NetworkParts(encoder=encoder, decoder=HiddenLayer(widths, patch), head=head)


def _image_size(features: Sequence[Tensor], patch: int | None) -> Size:
    """Return height and width of the images; other encoders than plain transformers return the images first."""
    if patch is None:
        return features[0].shape[-2], features[0].shape[-1]
    height, width = features[-1].shape[-2:]
    return image_side(height, patch), image_side(width, patch)
