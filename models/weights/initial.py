"""Initial weights of encoders, and transfer of weights between stages."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
from safetensors.torch import load_file as read_safetensors
from torch import Tensor, nn

from models.catalog import hub
from models.catalog.hub_cache import WEIGHTS_FILE, cache_folder, cached_file, sha256_of, stated_sha256
from models.catalog.published import Content, PublishedWeights
from models.catalog.registry import backbone as describe_backbone
from models.catalog.registry import published_weights
from models.encoders.library import plain, pyramid
from models.network import Network
from models.settings import NetworkPart
from models.weights.checkpoint.match import Match, match, specs_of
from models.weights.checkpoint.read import read_checkpoint

IMAGE_CHANNELS = 3
FILE_REMEDY = (
    "allowed: all tensors of the encoder, by the names of torchvision, timm or this platform; take the file of this "
    "backbone and image.channels, or name tensors that may be missing or left over in allow"
)


class WeightsUnavailable(RuntimeError):  # noqa: N818  (an expected state, not a bug)
    """Raised if pretrained weights are neither cached nor reachable. The message includes the remedy."""


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """Names of tensors that were transferred, newly initialised, and not used from the parent."""

    carried: tuple[str, ...]
    new: tuple[str, ...]
    left_behind: tuple[str, ...]


def fetch_weights(weights: PublishedWeights, content: Content | None = None, folder: Path | None = None) -> Path:
    """Return the file of published weights with a content, from the hub's cache (`folder`) or the hub.

    Without a content that of the revision is taken. Raises `WeightsUnavailable` if the file is not available, and
    `ValueError` if it was altered.
    """
    file = cached_file(weights, content, folder) or _download(weights, content, folder)
    expected = content.sha256 if content is not None else stated_sha256(file)
    if expected is not None and sha256_of(file) != expected:
        raise ValueError(
            f"{file.resolve()} was altered; allowed: the file with the SHA-256 hash {expected}; remove it, and the "
            "next run fetches it again"
        )
    return file


def load_pretrained(
    network: Network, backbone: str, name: str, folder: Path | None = None, file: Path | None = None
) -> None:
    """Load published weights into the encoder, from `file`, the hub's cache (`folder`) or the hub.

    For images with other than three channels the first convolution is adapted: summed over its channels for one,
    repeated and scaled for several. All weights of a backbone use the normalisation of its default weights. Raises
    `ValueError` for an unknown name and `WeightsUnavailable` if the file is not available.
    """
    weights = published_weights(backbone, name)
    path = str(file or fetch_weights(weights, folder=folder))
    channels = network.mean.shape[1]
    with torch.random.fork_rng(devices=[]):
        tensors = (
            _timm_encoder_state(backbone, weights, path, channels)
            if backbone.startswith("tu-")
            else _library_encoder_state(backbone, path, channels)
        )
    _fill(network.encoder, {key: tensors[key] for key in network.encoder.state_dict() if key in tensors}, str(path))


def load_file(network: Network, backbone: str, file: Path, allow: tuple[str, ...] = ()) -> Match:
    """Load the encoder from a checkpoint, and return how its tensors were matched (`models.weights.checkpoint`).

    Args:
        network: The network.
        backbone: The backbone of its encoder.
        file: A safetensors file or a file of `torch.save`.
        allow: Patterns of names of tensors that may be missing or left over.

    Raises:
        ValueError: The file cannot be read, or does not fit the encoder.
    """
    encoder = network.encoder
    matched = match(
        read_checkpoint(file), specs_of(encoder), backbone=backbone, channels=network.mean.shape[1], allow=allow
    )
    if matched.problem is not None:
        raise ValueError(f"{file} does not fit the encoder {backbone}: {matched.problem}; {FILE_REMEDY}")
    state = encoder.state_dict()
    for name, tensor in matched.tensors.items():
        state[name].copy_(tensor)
    return matched


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


def _download(weights: PublishedWeights, content: Content | None, folder: Path | None) -> Path:
    """Download published weights to the cache. Raises `WeightsUnavailable`."""
    try:
        revision = weights.revision if content is None else hub.revision_of(weights, content)
    except hub.HubUnavailable:
        revision = None
    command = f"hf download {weights.repository} {WEIGHTS_FILE} --revision {content.commit if content else revision}"
    remedy = f"run `{command}` where there is a connection and copy the cache, or set initial_weights: random"
    if revision is None:
        raise WeightsUnavailable(
            f"pretrained weights {weights} are not cached with the content that was planned with, and the hub cannot "
            f"be reached or has another content; allowed: random, a file, or a cached name; {remedy}"
        )
    try:
        # Checked first because the download retries a failed request for half a minute.
        url = hf_hub_url(weights.repository, WEIGHTS_FILE, revision=revision, endpoint=hub.endpoint())
        get_hf_file_metadata(url, timeout=hub.TIMEOUT)
        path = hf_hub_download(
            weights.repository, WEIGHTS_FILE, revision=revision, cache_dir=folder or cache_folder(),
            endpoint=hub.endpoint(),
        )  # fmt: skip
    except Exception as error:  # (all network errors mean the same here)
        raise WeightsUnavailable(
            f"pretrained weights {weights} are neither cached nor reachable ({type(error).__name__}); allowed: random, "
            f"a file, or a cached name; {remedy}"
        ) from error
    return Path(path)


def _library_encoder_state(backbone: str, path: str, channels: int) -> dict[str, Tensor]:
    encoder = pyramid(backbone, channels=IMAGE_CHANNELS, options={})
    # `load_state_dict` of the library drops the classifier and maps the names used on the hub.
    encoder.load_state_dict(read_safetensors(path))
    adapt: Callable[..., None] = getattr(encoder, "set_in_channels")  # noqa: B009  (unknown to nn.Module)
    adapt(channels, pretrained=True)
    return encoder.state_dict()


def _timm_encoder_state(backbone: str, weights: PublishedWeights, path: str, channels: int) -> dict[str, Tensor]:
    row = describe_backbone(backbone)
    options = {**row.options, "pretrained_cfg_overlay": {"file": path}}
    tagged = "tu-" + weights.repository.removeprefix("timm/")
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
