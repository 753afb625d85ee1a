"""Architectures taken apart from the library's models: its encoders, decoders and heads."""

from itertools import pairwise

from torch import Tensor, nn

from models.architectures import ARCHITECTURES
from models.architectures.layers import doubling
from models.architectures.parts import Blueprint, Parts
from models.catalog.registry import backbone as described
from models.encoders.library import encoder_name
from models.encoders.vision import smp


def parts(blueprint: Blueprint) -> Parts:
    """Make the parts as published, else with the library's defaults, and with random weights."""
    assert blueprint.architecture is not None
    architecture = ARCHITECTURES[blueprint.architecture]
    interpolates = blueprint.upsampling in ("nearest", "bilinear") and len(architecture.upsampling) > 1
    model = getattr(smp, architecture.model)(
        encoder_name(blueprint.backbone),
        encoder_weights=None,
        in_channels=blueprint.channels,
        classes=blueprint.outputs,
        **({"decoder_interpolation": blueprint.upsampling} if interpolates else {}),
        **({"decoder_atrous_rates": architecture.rates} if architecture.rates else {}),
        **described(blueprint.backbone).options,
    )
    if blueprint.architecture == "unet" and blueprint.upsampling == "transposed":
        _transpose(model.decoder, model.encoder.out_channels[-1])
    return Parts(encoder=model.encoder, decoder=model.decoder, head=model.segmentation_head)


class TransposedBlock(nn.Module):
    """A block of the library's U-Net behind a transposed 2x2 convolution.

    What the block interpolates has its target's size already, so that interpolating copies it.
    """

    def __init__(self, block: nn.Module, channels: int) -> None:
        super().__init__()
        self.up = doubling("transposed", channels)
        self.block = block

    def forward(self, maps: Tensor, height: int, width: int, skip_connection: Tensor | None = None) -> Tensor:
        """Return maps (N, C, height, width) of (N, channels, height / 2, width / 2)."""
        fused: Tensor = self.block(self.up(maps), height, width, skip_connection)
        return fused


def _transpose(decoder: nn.Module, deepest: int) -> None:
    blocks = decoder.get_submodule("blocks")
    assert isinstance(blocks, nn.ModuleList)
    widths = [deepest, *(_width(block) for block in blocks)]
    for number, (block, (channels, _)) in enumerate(zip(list(blocks), pairwise(widths), strict=True)):
        blocks[number] = TransposedBlock(block, channels)


def _width(block: nn.Module) -> int:
    last = block.get_submodule("conv2.0")
    assert isinstance(last, nn.Conv2d)
    return last.out_channels
