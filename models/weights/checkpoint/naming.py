"""From the names of a publication to the names of an encoder."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor, nn

from models.catalog.registry import backbone as describe_backbone
from models.encoders.library import pyramid
from models.encoders.vision import timm

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Converted:
    """Tensors of a checkpoint by the names of an encoder.

    Attributes:
        tensors: By the names of the encoder.
        sources: Their names in the checkpoint.
        unused: Names of tensors of the network that this encoder lacks, such as deeper stages.
        absorbed: Names of tensors that the conversion changed or dropped.
        unknown: Names of other tensors.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)
    absorbed: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


Naming = Callable[[Tensors, Mapping[str, object]], Converted]
"""Converts tensors of a checkpoint for an encoder, given the tensors of the encoder by name."""


def namings(backbone: str) -> dict[str, Naming]:
    """Return the ways to name the tensors of a backbone, by a description; its own names first."""
    own = {"": lambda tensors, encoder: _by_own_names(backbone, tensors, encoder)}
    if not backbone.startswith("tu-"):
        return own
    return own | {"names converted by timm": lambda tensors, encoder: _by_timm_names(backbone, tensors, encoder)}


def _by_own_names(backbone: str, tensors: Tensors, encoder: Mapping[str, object]) -> Converted:
    converted, full = Converted(), _full_encoder(backbone)
    for name, tensor in tensors.items():
        if name in encoder:
            converted.tensors[name], converted.sources[name] = tensor, name
        else:
            (converted.unused if name in full else converted.unknown).append(name)
    return converted


def _by_timm_names(backbone: str, tensors: Tensors, encoder: Mapping[str, object]) -> Converted:
    """Convert with timm's own function for the model, then from its names to those of its feature maps."""
    model, converted = _timm_classifier(backbone), Converted()
    source = {id(tensor): name for name, tensor in tensors.items()}
    filtered = _filtered(model, tensors)
    by_form = {_form(name): name for name in filtered}
    for name in encoder:
        found = by_form.get(_form(name))
        if found is not None:
            tensor = filtered[found]
            converted.tensors[name], converted.sources[name] = tensor, source.get(id(tensor), found)
    used, own = set(converted.sources.values()), model.state_dict()
    kept = {source.get(id(tensor), name): name for name, tensor in filtered.items()}
    converted.absorbed.extend(name for name in tensors if name not in kept)
    for name, new_name in kept.items():
        if name not in used:
            (converted.unused if new_name in own else converted.unknown).append(name)
    return converted


def _form(name: str) -> str:
    """Return a name without what timm's wrappers for feature maps change: `model.stages_0.conv` is `stages.0.conv`."""
    form = name.replace("_", ".")
    while form.startswith(("model.", "body.")):
        form = form.partition(".")[2]
    return form


def _filtered(model: nn.Module, tensors: Tensors) -> dict[str, Tensor]:
    """Return tensors converted by the function of the model's module in timm; none if they are of another model."""
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return dict(tensors)
    try:
        converted: dict[str, Tensor] = convert(dict(tensors), model)
    except Exception:  # noqa: BLE001  (they assume the names of their publications)
        return {}
    return converted


@cache
def _full_encoder(backbone: str) -> frozenset[str]:
    """Return the names of the tensors of an encoder with all its stages; none for encoders of architectures."""
    if backbone == "own" or describe_backbone(backbone).features == "plain":
        return frozenset()
    row = describe_backbone(backbone)
    return frozenset(_without_memory(lambda: pyramid(backbone, channels=3, options=row.options)).state_dict())


@cache
def _timm_classifier(backbone: str) -> nn.Module:
    """Return the model of timm whose feature maps a backbone has."""
    options = describe_backbone(backbone).options
    return _without_memory(lambda: timm.create_model(backbone.removeprefix("tu-"), num_classes=0, **options))


def _without_memory(make: Callable[[], nn.Module]) -> nn.Module:
    """Create a module on the meta device, or on the CPU if its constructor reads tensor values."""
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                return make()
        except Exception as error:
            if "meta" not in str(error):
                raise
        return make()
