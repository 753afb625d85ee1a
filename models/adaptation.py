"""Restriction of training to a part of the encoder: normalisation layers, biases, or low-rank adapters."""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn

from models.architectures.parts import Blueprint
from models.build import build
from models.catalog import registry
from models.encoders.reach import called_modules
from models.network import Network
from models.settings import Adapt, LoraSettings

_ATTENTION = frozenset({"qkv", "q", "k", "v", "kv", "query", "key", "value", "q_proj", "k_proj", "v_proj"})
"""Names of the layers that compute queries, keys and values in timm and segmentation_models_pytorch."""
_BIASES = frozenset({"bias", "q_bias", "v_bias"})
_NORM_PARAMETERS = frozenset({"weight", "bias"})
_ADAPTER = re.compile(r"\.(base_layer|lora_[AB]\.default)(?=\.)")
_LISTED = 12
"""Maximum number of names in an error message."""


def adapt(network: Network, settings: Adapt, images: Tensor) -> None:
    """Restrict the training of the encoder; decoder and head are trained as a whole.

    - `norm`: scales and shifts of the normalisation layers (Frankle et al. 2021).
    - `bias`: biases, those of normalisation layers included (BitFit, Ben Zaken et al. 2022).
    - LoRA (Hu et al. 2022): products of two low-rank matrices, which are added to the outputs of some layers. All other
      weights and the statistics of batch norm are fixed. `merge_adapters` adds the products to the weights.

    Args:
        network: The network with its initial weights.
        settings: Which part is trained.
        images: (N, channels, height, width) in 0..1, for a trial forward pass.

    Raises:
        ValueError: the encoder has no such part, or no such layers.
    """
    if settings == "full":
        return
    if isinstance(settings, LoraSettings):
        _add_adapters(network, settings, _adapted_layers(network, settings.targets, images))
    else:
        network.restrict_encoder(_trained_parameters(network.encoder, settings))


@lru_cache(maxsize=256)
def adapt_problem(blueprint: Blueprint, settings: Adapt) -> str | None:
    """Return an error message if `adapt` would raise for a network, else None. Builds the network."""
    with torch.random.fork_rng(devices=[]):
        network = build(blueprint)
    side = registry.probe_size(blueprint.architecture, blueprint.backbone)
    try:
        if isinstance(settings, LoraSettings):
            _adapted_layers(network, settings.targets, torch.zeros(1, blueprint.channels, side, side))
        elif settings != "full":
            _trained_parameters(network.encoder, settings)
    except ValueError as error:
        return str(error)
    return None


def merge_adapters(network: Network) -> None:
    """Add the low-rank products to the weights of their layers and remove them. The logits stay the same."""
    for name, layer in list(network.encoder.named_modules()):
        if hasattr(layer, "lora_A"):
            layer.merge()
            parent, _, attribute = name.rpartition(".")
            setattr(network.encoder.get_submodule(parent), attribute, layer.get_base_layer())


def _trained_parameters(encoder: nn.Module, settings: str) -> frozenset[str]:
    trained = frozenset(_norm_parameters(encoder) if settings == "norm" else _biases(encoder))
    if not trained:
        part = "normalisation layers" if settings == "norm" else "biases"
        raise ValueError(
            f"adapt is {settings}, but the encoder has no {part}; allowed: full or lora; choose one of them, or "
            "another backbone"
        )
    return trained


def _norm_parameters(encoder: nn.Module) -> Iterator[str]:
    for name, module in encoder.named_modules():
        if "norm" in type(module).__name__.lower():
            yield from (f"{name}.{key}" for key, _ in module.named_parameters(recurse=False) if key in _NORM_PARAMETERS)


def _biases(encoder: nn.Module) -> Iterator[str]:
    return (name for name, _ in encoder.named_parameters() if name.rpartition(".")[2] in _BIASES)


def _add_adapters(network: Network, settings: LoraSettings, layers: Sequence[str]) -> None:
    import models.encoders.vision  # noqa: F401  (peft imports torchvision, which needs it)

    # isort: split
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(
        r=settings.rank, lora_alpha=settings.alpha, target_modules="|".join(map(re.escape, layers)), bias="none"
    )
    inject_adapter_in_model(config, network.encoder)
    names = [name for name, _ in network.encoder.named_parameters()]
    adapters = frozenset(name for name in names if ".lora_" in name)
    network.restrict_encoder(adapters, original_names={name: _ADAPTER.sub("", name) for name in names})


def _adapted_layers(network: Network, targets: Sequence[str], images: Tensor) -> list[str]:
    """Return the names of the layers that get adapters: those that end with a target, or by default those of attention.

    An encoder without attention gets them in all layers that are supported. Layers whose weights are used without a
    call of the layer, as in BEiT, are left out, as an adapter would have no effect.
    """
    with torch.no_grad():
        called = called_modules(network.encoder, lambda: network.eval()(images))
    layers = [name for name in called if _supports_adapter(network.encoder.get_submodule(name))]
    if not layers:
        raise ValueError(
            "adapt is lora, but no layer of the encoder supports it; allowed: full, norm, bias; choose one"
        )
    unknown = [target for target in targets if not any(f".{name}".endswith(f".{target}") for name in layers)]
    if unknown:
        names = list(dict.fromkeys(_last_name(name) for name in layers))
        listed = ", ".join(names[:_LISTED]) + (", ..." if len(names) > _LISTED else "")
        raise ValueError(
            f"adapt.targets has {', '.join(unknown)}; allowed: layers of this encoder that support adapters: {listed}; "
            "correct the names, or leave targets out"
        )
    if targets:
        return [name for name in layers if any(f".{name}".endswith(f".{target}") for target in targets)]
    return [name for name in layers if _last_name(name) in _ATTENTION] or layers


def _last_name(name: str) -> str:
    return name.rpartition(".")[2]


def _supports_adapter(module: nn.Module) -> bool:
    """Return whether peft can merge an adapter of a layer. Subclasses may change how their weights are used."""
    return type(module) is nn.Linear or (type(module) is nn.Conv2d and module.groups == 1)
