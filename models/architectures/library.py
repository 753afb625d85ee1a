"""Architectures of segmentation-models-pytorch, split into encoder, decoder and head."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from models.architectures import ARCHITECTURES
from models.architectures.feature_pyramid import FeaturePyramid, PyramidDecoder, level_strides, level_widths
from models.architectures.layers import upsample_2x
from models.architectures.parts import Blueprint, NetworkParts
from models.catalog.registry import Backbone
from models.catalog.registry import backbone as describe_backbone
from models.encoders.library import encoder_name, plain
from models.encoders.vision import smp

IMAGE_CHANNELS = 3


def parts(blueprint: Blueprint) -> NetworkParts:
    """Create the parts with published settings, else the library's defaults, and random weights."""
    assert blueprint.architecture is not None
    architecture = ARCHITECTURES[blueprint.architecture]
    row = describe_backbone(blueprint.backbone)
    is_plain = row.features == "plain"
    # The encoder comes first, so that it is the same under all architectures.
    transformer = plain(blueprint.backbone, channels=blueprint.channels, options=row.options) if is_plain else None
    strides = level_strides(architecture.depth, architecture.output_stride)
    interpolates = blueprint.upsampling in ("nearest", "bilinear") and len(architecture.upsampling) > 1
    model = getattr(smp, architecture.model)(
        _placeholder(row, strides) if is_plain else encoder_name(blueprint.backbone),
        encoder_weights=None,
        in_channels=blueprint.channels,
        classes=blueprint.outputs,
        **({"decoder_interpolation": blueprint.upsampling} if interpolates else {}),
        **({"decoder_atrous_rates": architecture.rates} if architecture.rates else {}),
        **({} if is_plain else row.options),
    )
    if blueprint.architecture == "unet" and blueprint.upsampling == "transposed":
        _transpose(model.decoder, model.encoder.out_channels[-1])
    if transformer is None:
        return NetworkParts(encoder=model.encoder, decoder=model.decoder, head=model.segmentation_head)
    neck = FeaturePyramid(row.channels[-1], row.strides[-1], strides)
    return NetworkParts(encoder=transformer, decoder=PyramidDecoder(neck, model.decoder), head=model.segmentation_head)


class Placeholder(smp.encoders._base.EncoderMixin, nn.Module):  # type: ignore[misc]
    """An encoder without layers that has the channels of a feature pyramid, from which the library makes decoders."""

    def __init__(self, widths: Sequence[int], depth: int, output_stride: int) -> None:
        nn.Module.__init__(self)
        self._out_channels = [IMAGE_CHANNELS, 0, *widths]
        self._depth, self._output_stride, self._in_channels = depth, output_stride, IMAGE_CHANNELS

    def set_in_channels(self, in_channels: int, pretrained: bool = True) -> None:
        """Do nothing: the pyramid has no channels of the image."""

    def make_dilated(self, output_stride: int) -> None:
        """Do nothing: the pyramid has this output stride."""


def _placeholder(row: Backbone, strides: Sequence[int]) -> str:
    """Return the name under which the library finds a placeholder for the pyramid of a plain vision transformer."""
    widths = level_widths(row.channels[-1], row.strides[-1], strides)
    name = f"feature_pyramid_{'_'.join(map(str, widths))}"
    smp.encoders.encoders.setdefault(name, {"encoder": Placeholder, "params": {"widths": widths}})
    return name


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
