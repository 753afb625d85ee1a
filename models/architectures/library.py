"""Architectures taken apart from the library's models: its encoders, decoders and heads."""

from models.architectures import ARCHITECTURES
from models.architectures.parts import Blueprint, Parts
from models.catalogue import backbone as described
from models.encoders.library import encoder_name
from models.vision import smp


def parts(blueprint: Blueprint) -> Parts:
    """Make the parts with the library's defaults and random weights."""
    assert blueprint.architecture is not None
    architecture = ARCHITECTURES[blueprint.architecture]
    model = getattr(smp, architecture.model)(
        encoder_name(blueprint.backbone, architecture.output_stride),
        encoder_weights=None,
        in_channels=blueprint.channels,
        classes=blueprint.outputs,
        **described(blueprint.backbone).options,
    )
    return Parts(encoder=model.encoder, decoder=model.decoder, head=model.segmentation_head)
