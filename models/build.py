"""From a blueprint to a network with random weights; nothing is read from the internet."""

from collections.abc import Sequence
from importlib import import_module

import torch
from torch import Tensor, nn

from models.architectures import ARCHITECTURES
from models.architectures.parts import Blueprint, Parts
from models.catalogue import Backbone, probe_size
from models.catalogue import backbone as described
from models.encoders.library import plain, pyramid
from models.encoders.reach import prune, reached, stages
from models.network import Network

__all__ = ["Blueprint", "build"]


def build(blueprint: Blueprint) -> Network:
    """Build with weights from torch's global generator; the caller seeds it.

    The encoder is made first: at equal seed, architectures over one backbone start from equal encoders.
    Layers the architecture never uses (PSPNet's deeper stages) are removed.
    """
    backbone = described(blueprint.backbone)
    if blueprint.architecture is None:
        parts = _encoder_only(blueprint, backbone)
    else:
        parts = import_module(ARCHITECTURES[blueprint.architecture].module).parts(blueprint)
    size = probe_size(blueprint.architecture, blueprint.backbone)
    images = torch.zeros(1, blueprint.channels, size, size)
    features = _probe(parts.encoder, images)
    prune(parts.encoder, reached(*features))
    network = Network(
        parts,
        mean=_statistics(backbone.mean, blueprint.channels),
        std=_statistics(backbone.std, blueprint.channels),
        stages=stages(parts.encoder, features),
        skips=blueprint.skips,
    )
    useful = reached(*_probe(network, images))
    network.idle(frozenset(name for name, p in network.named_parameters() if id(p) not in useful))
    return network.train()


def _encoder_only(blueprint: Blueprint, backbone: Backbone) -> Parts:
    make = plain if backbone.features == "plain" else pyramid
    encoder = make(blueprint.backbone, channels=blueprint.channels, options=backbone.options)
    return Parts(encoder=encoder, decoder=None, head=nn.Linear(backbone.channels[-1], blueprint.outputs))


def _statistics(values: Sequence[float], channels: int) -> tuple[float, ...]:
    return tuple(values) if channels == len(values) else (sum(values) / len(values),) * channels


def _probe(module: nn.Module, images: Tensor) -> list[Tensor]:
    """Run once in evaluation mode, so that neither statistics nor the random generator move."""
    output = module.eval()(images)
    return [output] if isinstance(output, Tensor) else list(output)
