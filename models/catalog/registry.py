"""Which networks can be built, and which weights they can start from. Planning reads this: no torch."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, Literal

from models.architectures import ARCHITECTURES, Architecture
from models.settings import Upsampling

TABLE = Path(__file__).with_name("backbones.json")
WEIGHTS_FILE = "model.safetensors"
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """One row of the table that `python -m models.catalog.table` generates.

    `channels` and `strides` of its feature maps from the shallowest on; `stages` that can be frozen, each
    by its first feature map, counted from 0 for the one at the image's size; `dilates` to output strides 8
    and 16; `cuts`: works without its deeper stages; `size` where only this image side works; `options` for
    its maker; normalisation statistics; `weights` from name to hub id and revision.
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


@cache
def _table() -> dict[str, dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = json.loads(TABLE.read_text())
    return rows


@cache
def backbone(name: str) -> Backbone:
    """Return the description of a backbone; `KeyError` where it is unknown."""
    row: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in _table()[name].items()
    }
    return Backbone(**row)


def backbones() -> tuple[str, ...]:
    """Return every backbone's name."""
    return tuple(_table())


def statistics(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation that images are normalised by, for `own` backbones too.

    Those are given ImageNet's, as nearly every named backbone: arms that differ in their networks then see
    equal inputs.
    """
    return IMAGENET if name == "own" else (backbone(name).mean, backbone(name).std)


def problem(
    architecture: str | None, backbone: str, *, size: int, channels: int, upsampling: Upsampling | None = None
) -> str | None:
    """Return in one line why this network cannot be built, None where it can.

    Without architecture it is an encoder alone; an own encoder alone is that of its architecture.
    """
    if architecture is not None and architecture not in ARCHITECTURES:
        return _unknown("architecture", architecture, tuple(ARCHITECTURES), ", ".join(ARCHITECTURES))
    chosen = ARCHITECTURES[architecture] if architecture is not None else None
    return (
        _pair_problem(chosen, architecture, backbone)
        or (None if channels in (1, 3) else f"channels is {channels}; allowed: 1, 3; set image.channels")
        or (None if backbone == "own" else _backbone_problem(chosen, architecture, backbone))
        or _upsampling_problem(chosen, architecture, upsampling)
        or _size_problem(chosen, backbone, size)
    )


def _pair_problem(chosen: Architecture | None, architecture: str | None, backbone: str) -> str | None:
    if chosen is not None and not _takes(chosen, backbone):
        allowed = ", ".join(("own", *chosen.backbones)) if chosen.own else "a named backbone such as resnet50"
        return f"backbone is {backbone} under {architecture}; allowed: {allowed}; change one of them"
    if chosen is None and backbone == "own":
        own = ", ".join(name for name, row in ARCHITECTURES.items() if row.own)
        return f"backbone is own without an architecture; allowed: with {own}; name a backbone such as resnet50"
    return None


def _takes(chosen: Architecture, backbone: str) -> bool:
    if not chosen.own:
        return backbone != "own"
    return backbone == "own" or backbone in chosen.backbones


def _upsampling_problem(
    chosen: Architecture | None, architecture: str | None, upsampling: Upsampling | None
) -> str | None:
    if chosen is None or upsampling is None or upsampling in chosen.upsampling:
        return None
    allowed = ", ".join(chosen.upsampling)
    return f"upsampling is {upsampling} under {architecture}; allowed: {allowed}; choose one of these or leave it out"


def _unknown(what: str, name: str, known: tuple[str, ...], allowed: str) -> str:
    close = get_close_matches(name, known, n=4, cutoff=0.5)
    remedy = f"did you mean {', '.join(close)}?" if close else "choose one of them"
    return f"{what} is {name}; allowed: {allowed}; {remedy}"


def _backbone_problem(chosen: Architecture | None, architecture: str | None, name: str) -> str | None:
    if name not in _table():
        return _unknown_backbone(name)
    if chosen is None:
        return None
    row = backbone(name)
    wanted = _unmet(chosen, row)
    if wanted is None:
        return None
    return f"backbone is {name} under {architecture}; allowed: {wanted}; choose another backbone or architecture"


def _unknown_backbone(name: str) -> str:
    arch, _, tag = name.partition(".")
    if arch in _table() and tag in backbone(arch).weights:
        return (
            f"backbone is {name}; allowed: a name without weights; write backbone: {arch} with initial_weights: {tag}"
        )
    allowed = f"{len(_table())} names of segmentation_models_pytorch and, as tu-..., of timm"
    return _unknown("backbone", name, tuple(_table()), allowed)


def _unmet(chosen: Architecture, row: Backbone) -> str | None:
    """Return what the architecture asks for and this backbone lacks."""
    plain = chosen.features == "plain"
    if plain and (row.features != "plain" or row.strides[-1] not in (8, 16, 32)):
        return "plain vision transformers with patches of 8, 16 or 32 pixels such as tu-vit_base_patch16_224"
    if not plain and row.features == "plain":
        return "backbones with feature maps at falling resolution such as resnet50"
    if chosen.output_stride < 32 and not row.dilates:
        return "those that can be dilated such as resnet50, vgg16, xception"
    if chosen.depth < len(row.channels) and not row.cuts:
        return "those whose deeper stages can be left out such as resnet50"
    if chosen.half_stride and not row.channels[0]:
        return "those with a feature map at stride 2 such as resnet50"
    return None


def _limits(chosen: Architecture | None, name: str) -> tuple[int, int, int | None]:
    """Return the divisor of image sides, the smallest side, and the only one that works, if so."""
    row = None if name == "own" else backbone(name)
    plain = row is not None and row.features == "plain"
    divisor = 1 if chosen is None else chosen.divisor
    smallest = 32 if chosen is None else chosen.smallest
    if plain and row is not None:
        divisor, smallest = max(divisor, row.strides[-1]), max(smallest, row.strides[-1])
    return divisor, smallest, row.size if row is not None else None


def _size_problem(chosen: Architecture | None, name: str, size: int) -> str | None:
    divisor, smallest, only = _limits(chosen, name)
    if only is not None and size != only:
        return f"image size is {size} for {name}; allowed: {only}; set image.size to {only}"
    if size >= smallest and size % divisor == 0:
        return None
    nearest = max(-(-smallest // divisor), round(size / divisor)) * divisor
    return f"image size is {size}; allowed: multiples of {divisor} from {smallest} on; set image.size to {nearest}"


def upsampling(architecture: str | None, wanted: Upsampling | None) -> Upsampling | None:
    """Return how a decoder doubles its maps: as wanted, else as its architecture was published."""
    return wanted or (ARCHITECTURES[architecture].upsampling[0] if architecture is not None else None)


def encoder_stages(architecture: str | None, name: str) -> int:
    """Return how many stages of the encoder can be frozen by name; `own` needs an architecture."""
    if name == "own":
        return ARCHITECTURES[architecture or ""].stages
    row = backbone(name)
    if architecture is None or row.features == "plain":
        return len(row.stages)
    return sum(opening <= ARCHITECTURES[architecture].depth for opening in row.stages)


def encoder_depth(architecture: str | None) -> int:
    """Return how many stages of an encoder this architecture trains; without one (or unknown) all five."""
    chosen = ARCHITECTURES.get(architecture or "")
    if chosen is None or chosen.features == "plain":
        return 5
    return chosen.stages if chosen.own else chosen.depth


def probe_size(architecture: str | None, name: str) -> int:
    """Return an image side that this network takes, small where it may be."""
    divisor, smallest, only = _limits(ARCHITECTURES.get(architecture or ""), name)
    return only or -(-max(64, smallest) // divisor) * divisor


def has_weights(backbone: str, name: str) -> bool:
    """Whether this backbone has pretrained weights of this name."""
    return backbone in _table() and name in _table()[backbone]["weights"]


def weights_problem(backbone: str, name: str) -> str | None:
    """Return in one line why these initial weights do not exist, None where they do."""
    if name == "random" or has_weights(backbone, name):
        return None
    known = tuple(_table()[backbone]["weights"]) if backbone in _table() else ()
    return _unknown(f"initial_weights of {backbone}", name, known, ", ".join(("random", *known, "{file: path}")))


def initial_weights_id(backbone: str, name: str) -> str:
    """Return "repository@revision" on the Hugging Face hub. Raises `ValueError` where there is none."""
    found = weights_problem(backbone, name)
    if found is not None or name == "random":
        raise ValueError(found or "initial_weights is random; allowed: a name with an id; take no weights")
    identity: str = _table()[backbone]["weights"][name]
    return identity


def cache_folder() -> Path:
    """Return the hub's cache folder as its environment variables say."""
    home = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    hub = os.environ.get("HF_HOME", f"{home}/huggingface") + "/hub"
    named = os.environ.get("HF_HUB_CACHE", os.environ.get("HUGGINGFACE_HUB_CACHE", hub))
    return Path(os.path.expandvars(named)).expanduser()


def cached(backbone: str, name: str, folder: Path | None = None) -> bool:
    """Whether the weights lie in the cache, so that no download is needed."""
    repository, _, revision = initial_weights_id(backbone, name).partition("@")
    root = (folder or cache_folder()) / f"models--{repository.replace('/', '--')}"
    reference = root / "refs" / revision
    commit = reference.read_text().strip() if reference.is_file() else revision
    return (root / "snapshots" / commit / WEIGHTS_FILE).is_file()
