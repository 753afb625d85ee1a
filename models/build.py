"""Builds a network with random weights from a blueprint, without network access."""

import math
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

import torch
from torch import Tensor, nn

from models.architectures import ARCHITECTURES
from models.architectures.feature_pyramid import PyramidDecoder
from models.architectures.heads import AverageHead, FeatureHead, FlattenHead, ProjectionHead, ShuffleHead
from models.architectures.parts import Blueprint, NetworkParts
from models.architectures.patch_decoder import PatchDecoder
from models.catalog import registry
from models.encoders.library import plain, pyramid
from models.encoders.reach import prune, reached_parameters, stages
from models.masked_autoencoder import MaskedAutoencoder
from models.memory_format import record_map_sides, set_memory_format
from models.network import Network, next_multiple

__all__ = ["Blueprint", "build"]

AUXILIARY_LEVELS = 3
"""Maximum number of levels with auxiliary heads."""


def build(blueprint: Blueprint) -> Network:
    """Build a network with weights from torch's global generator, which the caller seeds.

    The encoder is created first, so that with equal seeds all architectures with one backbone start from equal
    encoders. Layers that the architecture does not use (deeper stages under PSPNet) are removed. Raises `ValueError`
    for a flatten head without `shape`.
    """
    multiple = registry.padding_multiple(blueprint.architecture)
    images = torch.zeros(1, blueprint.channels, *(next_multiple(side, multiple) for side in _probe_shape(blueprint)))
    parts = _module(blueprint).parts(blueprint) if blueprint.dense else _encoder_only(blueprint, images)
    features = _probe(parts.encoder, images)
    prune(parts.encoder, reached_parameters(*features))
    mean, std = registry.statistics(blueprint.backbone)
    network_class = MaskedAutoencoder if isinstance(parts.head, PatchDecoder) else Network
    network = network_class(
        parts,
        mean=_per_channel(mean, blueprint.channels),
        std=_per_channel(std, blueprint.channels),
        stages=stages(parts.encoder, features),
        skips=blueprint.skips,
        multiple=multiple,
    )
    if blueprint.deep_supervision:
        _add_auxiliary_heads(network, blueprint, images)
    with record_map_sides(network) as sides:
        useful = reached_parameters(network.eval()(images, deep=blueprint.deep_supervision))
    if isinstance(network.decoder, PyramidDecoder):
        network.decoder.pyramid.prune(useful)
    network.mark_unused(frozenset(name for name, p in network.named_parameters() if id(p) not in useful))
    longest = None if blueprint.shape is None else next_multiple(max(blueprint.shape), multiple)
    scale = math.inf if longest is None else longest / max(images.shape[-2:])
    set_memory_format(network, {layer: side * scale for layer, side in sides.items()})
    return network.train()


def _add_auxiliary_heads(network: Network, blueprint: Blueprint, images: Tensor) -> None:
    """Add heads for the levels of the decoder at half to an eighth of the resolution."""
    assert network.decoder is not None
    decoder = network.decoder.decoder if isinstance(network.decoder, PyramidDecoder) else network.decoder
    levels = decoder.get_submodule(ARCHITECTURES[str(blueprint.architecture)].levels)
    assert isinstance(levels, nn.ModuleList)
    supervised = list(levels)[-2 : -2 - AUXILIARY_LEVELS : -1]
    widths: list[int] = []
    handles = [level.register_forward_hook(lambda _, __, maps: widths.insert(0, maps.shape[1])) for level in supervised]
    network.eval()(images)
    for handle in handles:
        handle.remove()
    network.supervise(supervised, [nn.Conv2d(width, blueprint.outputs, 1) for width in widths])


def _probe_shape(blueprint: Blueprint) -> tuple[int, int]:
    """Return height and width of the images for the trial forward pass."""
    if blueprint.dense or blueprint.head != "flatten":
        side = registry.probe_size(blueprint.architecture, blueprint.backbone)
        return side, side
    if blueprint.shape is None:
        raise ValueError("shape is None under head flatten; allowed: height and width of the images; give them")
    return blueprint.shape


def _module(blueprint: Blueprint) -> ModuleType:
    assert blueprint.architecture is not None
    return import_module(ARCHITECTURES[blueprint.architecture].module)


def _encoder_only(blueprint: Blueprint, images: Tensor) -> NetworkParts:
    encoder = _encoder(blueprint)
    deepest = _probe(encoder, images)[-1][0]
    return NetworkParts(encoder=encoder, decoder=None, head=_head(blueprint, deepest, images.shape[-1]))


def _head(blueprint: Blueprint, deepest: Tensor, side: int) -> nn.Module:
    """Return the head on a deepest feature map (C, h, w) of images of `side` pixels."""
    channels, outputs, stride = len(deepest), blueprint.outputs, side // deepest.shape[-1]
    match blueprint.head:
        case "average":
            return AverageHead(channels, outputs)
        case "flatten":
            return FlattenHead(deepest.numel(), outputs)
        case "projection":
            return ProjectionHead(channels, blueprint.head_width, outputs)
        case "features":
            return FeatureHead(channels, outputs)
        case "pixels":
            return ShuffleHead(channels, outputs, stride)
        case "patches":
            width, depth = blueprint.head_width, blueprint.head_depth
            return PatchDecoder(channels, outputs, patch=stride, width=width, depth=depth)


def _encoder(blueprint: Blueprint) -> nn.Module:
    if blueprint.backbone == "own":
        encoder: nn.Module = _module(blueprint).encoder(blueprint)
        return encoder
    row, channels = registry.backbone(blueprint.backbone), blueprint.channels
    if row.features == "plain":
        return plain(blueprint.backbone, channels=channels, final_norm=blueprint.final_norm, options=row.options)
    return pyramid(blueprint.backbone, channels=channels, options=row.options)


def _per_channel(values: Sequence[float], channels: int) -> tuple[float, ...]:
    return tuple(values) if channels == len(values) else (sum(values) / len(values),) * channels


def _probe(module: nn.Module, images: Tensor) -> list[Tensor]:
    """Run a forward pass in evaluation mode, which changes neither statistics nor the random generator."""
    output = module.eval()(images)
    return [output] if isinstance(output, Tensor) else list(output)
