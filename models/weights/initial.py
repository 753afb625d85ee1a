"""Initial weights of encoders, and transfer of weights between stages."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
from safetensors import SafetensorError
from safetensors.torch import load_file as read_safetensors
from torch import Tensor, nn

from models.catalog.registry import WEIGHTS_FILE, initial_weights_id
from models.catalog.registry import backbone as describe_backbone
from models.encoders.library import plain, pyramid
from models.network import Network
from models.settings import NetworkPart

TIMEOUT = 5.0
IMAGE_CHANNELS = 3


class WeightsUnavailable(RuntimeError):  # noqa: N818  (an expected state, not a bug)
    """Raised if pretrained weights are neither cached nor reachable. The message includes the remedy."""


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """Names of tensors that were transferred, newly initialised, and not used from the parent."""

    carried: tuple[str, ...]
    new: tuple[str, ...]
    left_behind: tuple[str, ...]


def fetch_weights(backbone: str, name: str, folder: Path | None = None) -> Path:
    """Return the file of published weights, from the hub's cache (`folder`) or the hub.

    Raises `ValueError` for an unknown name and `WeightsUnavailable` if the file is not available.
    """
    return Path(_fetch(initial_weights_id(backbone, name), folder))


def load_pretrained(
    network: Network, backbone: str, name: str, folder: Path | None = None, file: Path | None = None
) -> None:
    """Load published weights into the encoder, from `file`, the hub's cache (`folder`) or the hub.

    For images with other than three channels the first convolution is adapted: summed over its channels for one,
    repeated and scaled for several. All weights of a backbone use the normalisation of its default weights. Raises
    `ValueError` for an unknown name and `WeightsUnavailable` if the file is not available.
    """
    path = str(file or fetch_weights(backbone, name, folder))
    channels = network.mean.shape[1]
    with torch.random.fork_rng(devices=[]):
        tensors = (
            _timm_encoder_state(backbone, initial_weights_id(backbone, name), path, channels)
            if backbone.startswith("tu-")
            else _library_encoder_state(backbone, path, channels)
        )
    _fill(network.encoder, {key: tensors[key] for key in network.encoder.state_dict() if key in tensors}, str(path))


def load_file(network: Network, path: Path) -> None:
    """Load the encoder from a safetensors file with names `encoder.*`, or without prefix.

    Raises `ValueError` if the file is missing or invalid, or if a tensor is missing or differs in shape.
    """
    try:
        tensors = read_safetensors(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"initial weights {path} cannot be read ({error}); allowed: a safetensors file; name one"
        ) from error
    named = {name.removeprefix("encoder."): tensor for name, tensor in tensors.items() if name.startswith("encoder.")}
    _fill(network.encoder, named or tensors, str(path))


def carry(parent: Mapping[str, Tensor], network: Network, parts: Sequence[NetworkPart]) -> Transfer:
    """Copy parts of the weights of a finished stage into the network; the head only if it is named.

    Raises `ValueError` with all tensors that the parent lacks (-) or has in a different shape (+). Encoders can be
    transferred between architectures, except convolutional ones of PSPNet, which lack the deeper stages.
    """
    state = network.state_dict()
    prefixes = tuple(f"{part}." for part in parts)
    carried = tuple(name for name in state if name.startswith(prefixes))
    absent = [part for part in parts if not any(name.startswith(f"{part}.") for name in state)]
    if absent:
        raise ValueError(f"carry names {', '.join(absent)}; allowed: parts this network has; carry the encoder only")
    _copy({name: state[name] for name in carried}, parent, "carried weights")
    return Transfer(
        carried=carried,
        new=tuple(name for name in state if name not in carried),
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
        # Checked first because the download retries a failed request for half a minute.
        get_hf_file_metadata(hf_hub_url(repository, WEIGHTS_FILE, revision=revision), timeout=TIMEOUT)
        return hf_hub_download(repository, WEIGHTS_FILE, revision=revision, cache_dir=folder)
    except Exception as error:  # (all network errors mean the same here)
        raise WeightsUnavailable(
            f"pretrained weights {repository}@{revision} are neither cached nor reachable "
            f"({type(error).__name__}); allowed: random, a file, or a cached name; "
            f"run `hf download {repository} {WEIGHTS_FILE} --revision {revision}` where there is a connection "
            "and copy the cache, or set initial_weights: random"
        ) from error


def _library_encoder_state(backbone: str, path: str, channels: int) -> dict[str, Tensor]:
    encoder = pyramid(backbone, channels=IMAGE_CHANNELS, options={})
    # `load_state_dict` of the library drops the classifier and maps the names used on the hub.
    encoder.load_state_dict(read_safetensors(path))
    adapt: Callable[..., None] = getattr(encoder, "set_in_channels")  # noqa: B009  (unknown to nn.Module)
    adapt(channels, pretrained=True)
    return encoder.state_dict()


def _timm_encoder_state(backbone: str, identity: str, path: str, channels: int) -> dict[str, Tensor]:
    row = describe_backbone(backbone)
    options = {**row.options, "pretrained_cfg_overlay": {"file": path}}
    tagged = "tu-" + identity.partition("@")[0].removeprefix("timm/")
    make = plain if row.features == "plain" else pyramid
    encoder: nn.Module = make(tagged, channels=channels, weights=True, options=options)
    return encoder.state_dict()


def _fill(encoder: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    state = encoder.state_dict()
    surplus = [name for name in tensors if name not in state]
    if surplus:
        listed = "\n".join(f"+ {name} {tuple(tensors[name].shape)}" for name in surplus)
        raise ValueError(
            f"{source} has tensors this encoder lacks; allowed: its own; take another file or backbone\n{listed}"
        )
    _copy(state, tensors, source)


def _copy(targets: Mapping[str, Tensor], tensors: Mapping[str, Tensor], source: str) -> None:
    mismatches = []
    for name, tensor in targets.items():
        if name not in tensors:
            mismatches.append(f"- {name} {tuple(tensor.shape)}")
        elif tensors[name].shape != tensor.shape:
            mismatches.append(f"- {name} {tuple(tensor.shape)}\n+ {name} {tuple(tensors[name].shape)}")
    if mismatches:
        listed = "\n".join(mismatches)
        raise ValueError(
            f"{source} do not fit; allowed: every tensor (-) in its shape, not another (+); "
            f"use the same backbone and channels\n{listed}"
        )
    for name, tensor in targets.items():
        tensor.copy_(tensors[name])
