"""Supported networks and their initial weights. Used by planning, so it does not import torch."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, Literal

from models.architectures import ARCHITECTURES, Architecture
from models.catalog.published import PublishedWeights
from models.settings import Upsampling

TABLE = Path(__file__).with_name("backbones.json")
PYRAMID_DIVISOR = 32
"""Image sides under decoders that use the feature pyramid of a plain vision transformer are multiples of this."""
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """One row of the table that `python -m models.catalog.table` generates.

    Attributes:
        channels, strides: Of the feature maps, from the shallowest on.
        stages: First feature map of each stage that can be frozen; 0 is the map at the image size.
        dilates: Whether it supports output strides 8 and 16.
        cuts: Whether it works without its deeper stages.
        size: The only image side that works, if it is fixed.
        options: Keyword arguments of the constructor.
        mean, std: Normalisation statistics.
        weights: Repository and revision on the hub by name, with the hash of the file if the revision was pinned here.
        parameters: Number of parameters of the encoder for images of three channels.
        licences: Licence of the weights by name, where it is known.
    """

    features: Literal["pyramid", "plain"]
    channels: tuple[int, ...]
    strides: tuple[int, ...]
    stages: tuple[int, ...]
    dilates: bool
    cuts: bool
    size: int | None
    options: Mapping[str, object]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    weights: Mapping[str, str]
    parameters: int
    licences: Mapping[str, str]


@cache
def _table() -> dict[str, dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = json.loads(TABLE.read_text())
    return rows


@cache
def backbone(name: str) -> Backbone:
    """Return the description of a backbone. Raises `KeyError` for unknown names."""
    row: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in _table()[name].items()
    }
    return Backbone(**row)


def backbones() -> tuple[str, ...]:
    """Return the names of all backbones."""
    return tuple(_table())


def statistics(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation for the normalisation of images, also for `own` backbones.

    `own` uses those of ImageNet, as do nearly all named backbones, so that arms with different networks have equal
    inputs.
    """
    return IMAGENET if name == "own" else (backbone(name).mean, backbone(name).std)


def problem(
    architecture: str | None,
    backbone: str,
    *,
    shape: tuple[int, int],
    upsampling: Upsampling | None = None,
    deep_supervision: bool = False,
) -> str | None:
    """Return an error message if this network cannot be built for images of this height and width, else None.

    Without architecture it is only an encoder; for the encoder of an architecture, `architecture` is required.
    """
    if architecture is not None and architecture not in ARCHITECTURES:
        return _unknown("architecture", architecture, tuple(ARCHITECTURES), ", ".join(ARCHITECTURES))
    spec = ARCHITECTURES[architecture] if architecture is not None else None
    return (
        _pair_problem(spec, architecture, backbone)
        or (None if backbone == "own" else _backbone_problem(spec, architecture, backbone))
        or _upsampling_problem(spec, architecture, upsampling)
        or _supervision_problem(spec, architecture, deep_supervision)
        or _size_problem(spec, backbone, shape)
    )


def _pair_problem(spec: Architecture | None, architecture: str | None, backbone: str) -> str | None:
    if spec is not None and not _accepts(spec, backbone):
        allowed = ", ".join(("own", *spec.backbones)) if spec.own_encoder else "a named backbone such as resnet50"
        return f"backbone is {backbone} under {architecture}; allowed: {allowed}; change one of them"
    if spec is None and backbone == "own":
        names = ", ".join(name for name, row in ARCHITECTURES.items() if row.own_encoder)
        return f"backbone is own without an architecture; allowed: with {names}; name a backbone such as resnet50"
    return None


def _accepts(spec: Architecture, backbone: str) -> bool:
    if not spec.own_encoder:
        return backbone != "own"
    return backbone == "own" or backbone in spec.backbones


def accepting_architectures(name: str) -> tuple[str, ...]:
    """Return the architectures that take a named backbone."""
    row = backbone(name)
    return tuple(
        architecture
        for architecture, spec in ARCHITECTURES.items()
        if _accepts(spec, name) and (spec.own_encoder or _missing_requirement(spec, row) is None)
    )


def _upsampling_problem(
    spec: Architecture | None, architecture: str | None, upsampling: Upsampling | None
) -> str | None:
    if spec is None or upsampling is None or upsampling in spec.upsampling:
        return None
    allowed = ", ".join(spec.upsampling)
    return f"upsampling is {upsampling} under {architecture}; allowed: {allowed}; choose one of these or leave it out"


def _supervision_problem(spec: Architecture | None, architecture: str | None, deep_supervision: bool) -> str | None:
    if not deep_supervision or (spec is not None and spec.levels):
        return None
    allowed = ", ".join(name for name, row in ARCHITECTURES.items() if row.levels)
    return (
        f"deep_supervision is true under {architecture}; allowed: with {allowed}; choose one of these or leave it out"
    )


def _unknown(key: str, name: str, known: tuple[str, ...], allowed: str) -> str:
    similar = get_close_matches(name, known, n=4, cutoff=0.5)
    remedy = f"did you mean {', '.join(similar)}?" if similar else "choose one of them"
    return f"{key} is {name}; allowed: {allowed}; {remedy}"


def _backbone_problem(spec: Architecture | None, architecture: str | None, name: str) -> str | None:
    if name not in _table():
        return _unknown_backbone(name)
    if spec is None:
        return None
    row = backbone(name)
    requirement = _missing_requirement(spec, row)
    if requirement is None:
        return None
    return f"backbone is {name} under {architecture}; allowed: {requirement}; choose another backbone or architecture"


def _unknown_backbone(name: str) -> str:
    arch, _, tag = name.partition(".")
    if arch in _table() and tag in backbone(arch).weights:
        return (
            f"backbone is {name}; allowed: a name without weights; write backbone: {arch} with initial_weights: {tag}"
        )
    allowed = f"{len(_table())} names of segmentation_models_pytorch and, as tu-..., of timm"
    return _unknown("backbone", name, tuple(_table()), allowed)


_PLAIN = "plain vision transformers with patches of 8, 16 or 32 pixels such as tu-vit_base_patch16_224"
_HALF_STRIDE = "those with a feature map at stride 2 such as resnet50"


def _missing_requirement(spec: Architecture, row: Backbone) -> str | None:
    """Return the requirement of the architecture that this backbone does not meet."""
    if row.features == "plain":
        return _missing_of_plain(spec, row)
    if spec.features != "pyramid":
        return _PLAIN if spec.features == "plain" else None
    if spec.output_stride < 32 and not row.dilates:
        return "those that can be dilated such as resnet50, vgg16, xception"
    if spec.depth < len(row.channels) and not row.cuts:
        return "those whose deeper stages can be left out such as resnet50"
    return _HALF_STRIDE if spec.half_stride and not row.channels[0] else None


def _missing_of_plain(spec: Architecture, row: Backbone) -> str | None:
    """Return the requirement of the architecture that a plain vision transformer does not meet."""
    if spec.features == "plain" and row.strides[-1] not in (8, 16, 32):
        return _PLAIN
    if row.size is not None and row.size % PYRAMID_DIVISOR:
        return f"those whose image side is a multiple of {PYRAMID_DIVISOR} or not fixed"
    return _HALF_STRIDE if spec.half_stride else None


def _limits(spec: Architecture | None, name: str) -> tuple[int, int, int | None]:
    """Return the divisor of image sides, the smallest side, and the fixed side if there is only one."""
    row = None if name == "own" else backbone(name)
    plain = row is not None and row.features == "plain"
    divisor = 1 if spec is None else spec.divisor
    smallest = 32 if spec is None else spec.smallest
    if plain and row is not None and spec is not None and spec.features != "plain":
        divisor, smallest = max(divisor, PYRAMID_DIVISOR), max(smallest, PYRAMID_DIVISOR)
    elif plain and row is not None:
        divisor, smallest = max(divisor, row.strides[-1]), max(smallest, row.strides[-1])
    return divisor, smallest, row.size if row is not None else None


def padding_multiple(architecture: str | None) -> int:
    """Return the number to whose multiples the network pads the sides of its images; 1 without padding."""
    spec = ARCHITECTURES.get(architecture or "")
    return spec.divisor if spec is not None and spec.own_encoder else 1


def _size_problem(spec: Architecture | None, name: str, shape: tuple[int, int]) -> str | None:
    divisor, smallest, fixed_size = _limits(spec, name)
    if spec is not None and spec.own_encoder:
        divisor = 1
    if fixed_size is not None and shape != (fixed_size, fixed_size):
        size = size_text(shape)
        return f"image size is {size} for {name}; allowed: {fixed_size}; set image.size to {fixed_size}"
    divisors = {divisor, PYRAMID_DIVISOR} if spec is None else {divisor}  # plain transformers resize their images
    if any(all(side >= smallest and side % divisor == 0 for side in shape) for divisor in divisors):
        return None
    height, width = (max(-(-smallest // divisor), round(side / divisor)) * divisor for side in shape)
    allowed = f"{smallest} and more" if divisor == 1 else f"multiples of {divisor} from {smallest} on"
    if len(divisors) > 1 and divisor > 1:
        height, width = (max(1, round(side / PYRAMID_DIVISOR)) * PYRAMID_DIVISOR for side in shape)
        allowed = f"multiples of {divisor} or of {PYRAMID_DIVISOR} from {smallest} on"
    return f"image size is {size_text(shape)}; allowed: {allowed}; set image.size to {size_text((height, width))}"


def size_text(shape: tuple[int, int]) -> str:
    """Return height and width as in a study file."""
    height, width = shape
    return str(height) if height == width else f"[{height}, {width}]"


def upsampling(architecture: str | None, requested: Upsampling | None) -> Upsampling | None:
    """Return the requested upsampling method, by default the published one of the architecture."""
    return requested or (ARCHITECTURES[architecture].upsampling[0] if architecture is not None else None)


def encoder_stages(architecture: str | None, name: str) -> int:
    """Return the number of stages of the encoder that can be frozen; `own` requires an architecture."""
    if name == "own":
        return ARCHITECTURES[architecture or ""].stages
    row = backbone(name)
    if architecture is None or row.features == "plain":
        return len(row.stages)
    return sum(first_map <= ARCHITECTURES[architecture].depth for first_map in row.stages)


def encoder_depth(architecture: str | None, name: str) -> int:
    """Return the number of encoder stages that this architecture uses; five if it is None or unknown.

    Plain vision transformers are used as a whole.
    """
    spec = ARCHITECTURES.get(architecture or "")
    if spec is None or (name in _table() and backbone(name).features == "plain"):
        return 5
    return spec.stages if spec.own_encoder else spec.depth


def probe_size(architecture: str | None, name: str) -> int:
    """Return a small image side that this network supports."""
    divisor, smallest, fixed_size = _limits(ARCHITECTURES.get(architecture or ""), name)
    return fixed_size or -(-max(64, smallest) // divisor) * divisor


def has_weights(backbone: str, name: str) -> bool:
    """Return whether this backbone has pretrained weights of this name."""
    return backbone in _table() and name in _table()[backbone]["weights"]


def weights_problem(backbone: str, name: str) -> str | None:
    """Return an error message if these initial weights do not exist, else None."""
    if name == "random" or has_weights(backbone, name):
        return None
    known = tuple(_table()[backbone]["weights"]) if backbone in _table() else ()
    return _unknown(f"initial_weights of {backbone}", name, known, ", ".join(("random", *known, "{file: path}")))


def published_weights(backbone: str, name: str) -> PublishedWeights:
    """Return published weights by their name. Raises `ValueError` if there are none."""
    fault = weights_problem(backbone, name)
    if fault is not None or name == "random":
        raise ValueError(fault or "initial_weights is random; allowed: a name of published weights; take no weights")
    return PublishedWeights.parse(_table()[backbone]["weights"][name])
