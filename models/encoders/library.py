"""Encoders by name: those of the library, of timm (`tu-...`), and the replacements in `models.encoders.dilated`."""

from collections.abc import Mapping
from typing import cast

from torch import nn

from models.encoders.dilated import DILATED
from models.encoders.vision import smp
from models.encoders.vision_transformer import NormalisedVisionTransformerEncoder, VisionTransformerEncoder

PLAIN_DEPTH = 4
FULL_STRIDE = 32
FULL_DEPTH = 5


def encoder_name(backbone: str) -> str:
    """Return the library's name of the encoder that supports all output strides."""
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
    """Create an encoder with feature maps at strides 1, 2, 4 ... up to the output stride.

    With `weights=True` timm loads the weights from the file given in `options`.
    """
    name = encoder_name(backbone)
    encoder = smp.encoders.get_encoder(name, channels, depth, weights, output_stride, **options)
    return cast(nn.Module, encoder)


def plain(
    backbone: str, *, channels: int, weights: bool = False, final_norm: bool = False, options: Mapping[str, object]
) -> VisionTransformerEncoder:
    """Create an encoder with feature maps at a single stride.

    With `final_norm` the final normalisation of the transformer is applied to the deepest map.
    """
    make = NormalisedVisionTransformerEncoder if final_norm else VisionTransformerEncoder
    return make(backbone.removeprefix("tu-"), weights, channels, PLAIN_DEPTH, **options)
