"""Dense prediction transformer (Ranftl et al. 2021) over plain vision transformers."""

from collections.abc import Sequence

from torch import Tensor

from models.architectures.parts import Blueprint, NetworkParts
from models.catalog.registry import backbone as describe_backbone
from models.encoders.library import plain
from models.encoders.vision import smp

WIDTHS = (256, 512, 1024, 1024)
FUSED = 256


class DPTDecoder(smp.decoders.dpt.decoder.DPTDecoder):  # type: ignore[misc]
    """The library's decoder with a single list as input: prefix tokens, if any, then feature maps."""

    def forward(self, features: list[Tensor]) -> Tensor:
        """Return (N, 256, S/2, S/2)."""
        maps = features[-len(WIDTHS) :]
        tokens: Sequence[Tensor | None] = features[: -len(WIDTHS)] or [None] * len(WIDTHS)
        fused: Tensor = super().forward(maps, tokens)
        return fused


def parts(blueprint: Blueprint) -> NetworkParts:
    """Create the parts with the library's defaults and random weights."""
    options = describe_backbone(blueprint.backbone).options
    encoder = plain(blueprint.backbone, channels=blueprint.channels, options=options)
    decoder = DPTDecoder(
        encoder.out_channels,
        encoder.output_strides,
        encoder.has_prefix_tokens,
        "cat" if encoder.has_prefix_tokens else "ignore",
        WIDTHS,
        FUSED,
    )
    head = smp.decoders.dpt.decoder.DPTSegmentationHead(FUSED, blueprint.outputs)
    smp.base.initialization.initialize_decoder(decoder)
    smp.base.initialization.initialize_head(head)
    return NetworkParts(encoder=encoder, decoder=decoder, head=head)
