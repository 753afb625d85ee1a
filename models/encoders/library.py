"""Encoders by name: the library's own, timm's as `tu-...`, and those kept here in place of the library's."""

from collections.abc import Mapping
from typing import cast

from torch import nn

from models.encoders.dilated import DILATED
from models.encoders.vision import smp
from models.encoders.vision_transformer import VisionTransformerEncoder

PLAIN_DEPTH = 4
FULL_STRIDE = 32
FULL_DEPTH = 5


def encoder_name(backbone: str) -> str:
    """Return the name under which the library makes this backbone at any output stride."""
    return f"{backbone}_dilated" if backbone in DILATED else backbone


def pyramid(
    backbone: str,
    *,
    channels: int,
    weights: bool | None = None,
    output_stride: int = FULL_STRIDE,
    depth: int = FULL_DEPTH,
    options: Mapping[str, object],
) -> nn.Module:
    """Make an encoder of feature maps at strides 1, 2, 4 ... up to the output stride.

    `weights=True` lets timm fill it; where to find the file is then among the options.
    """
    name = encoder_name(backbone)
    made = smp.encoders.get_encoder(name, channels, depth, weights, output_stride, **options)
    return cast(nn.Module, made)


def plain(
    backbone: str, *, channels: int, weights: bool = False, options: Mapping[str, object]
) -> VisionTransformerEncoder:
    """Make an encoder of feature maps at one stride."""
    name = backbone.removeprefix("tu-")
    return VisionTransformerEncoder(name, weights, channels, PLAIN_DEPTH, **options)
