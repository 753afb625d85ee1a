"""Questions of planning that only a network can answer. Brings torch, so it is imported where one is asked."""

from collections.abc import Mapping, Sequence
from functools import lru_cache

import torch

from models.architectures.parts import Blueprint
from models.build import build
from models.catalog import registry
from models.weights.file import FLOATS, StoredTensor

NAMED = 3
"""Tensors that a message names; of more it says how many there are."""
LENGTH = 100
"""Characters of a name that it shows."""


@lru_cache(maxsize=256)
def takes_one_image(blueprint: Blueprint, freeze: tuple[str, ...] = ()) -> bool:
    """Return whether a network can train on a batch of one image; batch norm over a single value cannot."""
    side = blueprint.size or 0
    probe = registry.probe_size(blueprint.architecture, blueprint.backbone)
    if side > probe and blueprint.head == "average":  # larger maps change nothing
        side = probe
    with torch.random.fork_rng(devices=[]):
        network = build(blueprint)
        network.freeze(freeze)
        try:
            with torch.no_grad():
                network.train()(torch.zeros(1, blueprint.channels, side, side))
        except ValueError:
            return False
    return True


def fit_problem(blueprint: Blueprint, stored: Mapping[str, StoredTensor]) -> str | None:
    """Return in one line why stored weights do not fill the encoder of a network, None if they do."""
    own = _encoder_tensors(blueprint)
    missing = [f"{name} {shape}" for name, (shape, _) in own.items() if name not in stored]
    surplus = [f"{name} {one.shape}" for name, one in stored.items() if name not in own]
    shapes = [
        f"{name} {stored[name].shape} instead of {shape}"
        for name, (shape, _) in own.items()
        if name in stored and stored[name].shape != shape
    ]
    types = [
        f"{name} {stored[name].dtype}"
        for name, (_, floating) in own.items()
        if name in stored and (stored[name].dtype in FLOATS) != floating
    ]
    faults = {"missing": missing, "unknown": surplus, "of another shape": shapes, "of another data type": types}
    told = [f"{len(names)} {kind} ({_listed(names)})" for kind, names in faults.items() if names]
    if not told:
        return None
    network = f"{blueprint.backbone} with {blueprint.channels} channel{'s' if blueprint.channels > 1 else ''}"
    return f"does not fit the encoder {network}: tensors {', '.join(told)}"


def _listed(names: Sequence[str]) -> str:
    shown = [name if len(name) <= LENGTH else f"{name[:LENGTH]}..." for name in names[:NAMED]]
    return ", ".join(shown) + (", ..." if len(names) > NAMED else "")


@lru_cache(maxsize=256)
def _encoder_tensors(blueprint: Blueprint) -> dict[str, tuple[tuple[int, ...], bool]]:
    """Return shape, and whether it is of floating point, of each tensor of the encoder."""
    with torch.random.fork_rng(devices=[]):
        tensors = build(blueprint).encoder.state_dict()
    return {name: (tuple(tensor.shape), tensor.is_floating_point()) for name, tensor in tensors.items()}
