"""Initial weights of an encoder, and weights carried from one stage to the next."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
from safetensors import SafetensorError
from safetensors.torch import load_file as read_safetensors
from torch import Tensor, nn

from models.catalog.registry import WEIGHTS_FILE, initial_weights_id
from models.catalog.registry import backbone as described
from models.encoders.library import plain, pyramid
from models.network import Network
from models.settings import Part

TIMEOUT = 5.0
IMAGE_CHANNELS = 3


class WeightsUnavailable(RuntimeError):  # noqa: N818  (an expected state, not a bug)
    """Pretrained weights are neither cached nor to be had. The message holds the remedy."""


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """Names of the network's tensors that were carried or stay new, and of the parent's left behind."""

    carried: tuple[str, ...]
    new: tuple[str, ...]
    left_behind: tuple[str, ...]


def fetched(backbone: str, name: str, folder: Path | None = None) -> Path:
    """Return the file of published weights, from the hub's cache (`folder`) or the hub.

    Raises `ValueError` for an unknown name and `WeightsUnavailable` where the file cannot be had.
    """
    return Path(_fetch(initial_weights_id(backbone, name), folder))


def load_pretrained(
    network: Network, backbone: str, name: str, folder: Path | None = None, file: Path | None = None
) -> None:
    """Fill the encoder with published weights, from their `file`, the hub's cache (`folder`) or the hub.

    With one channel the first convolution gets the sum over its three. Every set of weights of a backbone
    sees the same normalisation, that of its default ones. Raises `ValueError` for an unknown name and
    `WeightsUnavailable` where the file cannot be had.
    """
    path = str(file or fetched(backbone, name, folder))
    channels = network.mean.shape[1]
    with torch.random.fork_rng(devices=[]):
        made = (
            _made_by_timm(backbone, initial_weights_id(backbone, name), path, channels)
            if backbone.startswith("tu-")
            else _made_by_library(backbone, path, channels)
        )
    _fill(network.encoder, {key: made[key] for key in network.encoder.state_dict() if key in made}, str(path))


def load_file(network: Network, path: Path) -> None:
    """Fill the encoder from a safetensors file of `encoder.*` or bare encoder names.

    Raises `ValueError` where the file is missing or broken, or where any tensor is missing or has another shape.
    """
    try:
        tensors = read_safetensors(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"initial weights {path} cannot be read ({error}); allowed: a safetensors file; name one"
        ) from error
    named = {name.removeprefix("encoder."): tensor for name, tensor in tensors.items() if name.startswith("encoder.")}
    _fill(network.encoder, named or tensors, str(path))


def carry(parent: Mapping[str, Tensor], network: Network, parts: Sequence[Part]) -> Transfer:
    """Copy parts of a finished stage's weights into the network; the head too only where it is named.

    Raises `ValueError` naming every tensor of those parts that the parent lacks (-) or has in another
    shape (+ the parent's). Encoders fit across architectures; one that PSPNet trained is too shallow for others.
    """
    own = network.state_dict()
    prefixes = tuple(f"{part}." for part in parts)
    carried = tuple(name for name in own if name.startswith(prefixes))
    absent = [part for part in parts if not any(name.startswith(f"{part}.") for name in own)]
    if absent:
        raise ValueError(f"carry names {', '.join(absent)}; allowed: parts this network has; carry the encoder only")
    _copy({name: own[name] for name in carried}, parent, "carried weights")
    return Transfer(
        carried=carried,
        new=tuple(name for name in own if name not in carried),
        left_behind=tuple(name for name in parent if name not in carried),
    )


def _fetch(identity: str, folder: Path | None) -> str:
    repository, _, revision = identity.partition("@")
    try:
        return hf_hub_download(repository, WEIGHTS_FILE, revision=revision, cache_dir=folder, local_files_only=True)
    except FileNotFoundError:
        return _download(repository, revision, folder)


def _download(repository: str, revision: str, folder: Path | None) -> str:
    try:
        # Asked first because the download itself repeats a failed request for half a minute.
        get_hf_file_metadata(hf_hub_url(repository, WEIGHTS_FILE, revision=revision), timeout=TIMEOUT)
        return hf_hub_download(repository, WEIGHTS_FILE, revision=revision, cache_dir=folder)
    except Exception as error:  # (whatever the network raises means the same here)
        raise WeightsUnavailable(
            f"pretrained weights {repository}@{revision} are neither cached nor reachable "
            f"({type(error).__name__}); allowed: random, a file, or a cached name; "
            f"run `hf download {repository} {WEIGHTS_FILE} --revision {revision}` where there is a connection "
            "and copy the cache, or set initial_weights: random"
        ) from error


def _made_by_library(backbone: str, path: str, channels: int) -> dict[str, Tensor]:
    encoder = pyramid(backbone, channels=IMAGE_CHANNELS, options={})
    # The library's own loading drops the classifier and renames what has other names on the hub.
    encoder.load_state_dict(read_safetensors(path))
    adapt: Callable[..., None] = getattr(encoder, "set_in_channels")  # noqa: B009  (unknown to nn.Module)
    adapt(channels, pretrained=True)
    return encoder.state_dict()


def _made_by_timm(backbone: str, identity: str, path: str, channels: int) -> dict[str, Tensor]:
    row = described(backbone)
    options = {**row.options, "pretrained_cfg_overlay": {"file": path}}
    tagged = "tu-" + identity.partition("@")[0].removeprefix("timm/")
    make = plain if row.features == "plain" else pyramid
    encoder: nn.Module = make(tagged, channels=channels, weights=True, options=options)
    return encoder.state_dict()


def _fill(encoder: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    own = encoder.state_dict()
    surplus = [name for name in tensors if name not in own]
    if surplus:
        listed = "\n".join(f"+ {name} {tuple(tensors[name].shape)}" for name in surplus)
        raise ValueError(
            f"{source} has tensors this encoder lacks; allowed: its own; take another file or backbone\n{listed}"
        )
    _copy(own, tensors, source)


def _copy(own: Mapping[str, Tensor], given: Mapping[str, Tensor], source: str) -> None:
    wrong = []
    for name, tensor in own.items():
        if name not in given:
            wrong.append(f"- {name} {tuple(tensor.shape)}")
        elif given[name].shape != tensor.shape:
            wrong.append(f"- {name} {tuple(tensor.shape)}\n+ {name} {tuple(given[name].shape)}")
    if wrong:
        listed = "\n".join(wrong)
        raise ValueError(
            f"{source} do not fit; allowed: every tensor (-) in its shape, not another (+); "
            f"use the same backbone and channels\n{listed}"
        )
    for name, tensor in own.items():
        tensor.copy_(given[name])
