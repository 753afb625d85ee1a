"""Architectures of segmentation-models-pytorch, split into encoder, decoder and head."""

from itertools import pairwise

from torch import Tensor, nn

from models.architectures import ARCHITECTURES
from models.architectures.layers import upsample_2x
from models.architectures.parts import Blueprint, NetworkParts
from models.catalog.registry import backbone as describe_backbone
from models.encoders.library import encoder_name
from models.encoders.vision import smp


def parts(blueprint: Blueprint) -> NetworkParts:
    """Create the parts with published settings, else the library's defaults, and random weights."""
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
        **describe_backbone(blueprint.backbone).options,
    )
    if blueprint.architecture == "unet" and blueprint.upsampling == "transposed":
        _transpose(model.decoder, model.encoder.out_channels[-1])
    return NetworkParts(encoder=model.encoder, decoder=model.decoder, head=model.segmentation_head)


class TransposedBlock(nn.Module):
    """A block of the library's U-Net after a transposed 2x2 convolution.

    Inputs of the block already have the target size, so that its interpolation is the identity.
    """

    def __init__(self, block: nn.Module, channels: int) -> None:
        super().__init__()
        self.up = upsample_2x("transposed", channels)
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
