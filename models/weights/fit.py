"""Checks of planning that need a network. Imports torch, so it is imported lazily."""

from collections.abc import Mapping, Sequence
from functools import lru_cache

import torch

from models.architectures.parts import Blueprint
from models.build import build
from models.catalog import registry
from models.weights.file import FLOATS, StoredTensor

MAX_NAMES = 3
"""Maximum number of tensor names in a message."""
MAX_NAME_LENGTH = 100
"""Maximum number of characters of a name in a message."""


@lru_cache(maxsize=256)
def takes_one_image(blueprint: Blueprint, freeze: tuple[str, ...] = ()) -> bool:
    """Return whether a network can train on a batch of one image; batch norm over a single value cannot."""
    probe = registry.probe_size(blueprint.architecture, blueprint.backbone)
    shape = blueprint.shape or (0, 0)
    if blueprint.head == "average":  # larger maps make no difference
        shape = min(shape[0], probe), min(shape[1], probe)
    with torch.random.fork_rng(devices=[]):
        network = build(blueprint)
        network.freeze(freeze)
        try:
            with torch.no_grad():
                network.train()(torch.zeros(1, blueprint.channels, *shape))
        except ValueError:
            return False
    return True


def fit_problem(blueprint: Blueprint, stored: Mapping[str, StoredTensor]) -> str | None:
    """Return an error message if stored weights do not fit the encoder of a network, else None."""
    expected = _encoder_tensors(blueprint)
    missing = [f"{name} {shape}" for name, (shape, _) in expected.items() if name not in stored]
    surplus = [f"{name} {tensor.shape}" for name, tensor in stored.items() if name not in expected]
    shapes = [
        f"{name} {stored[name].shape} instead of {shape}"
        for name, (shape, _) in expected.items()
        if name in stored and stored[name].shape != shape
    ]
    types = [
        f"{name} {stored[name].dtype}"
        for name, (_, floating) in expected.items()
        if name in stored and (stored[name].dtype in FLOATS) != floating
    ]
    names_by_fault = {"missing": missing, "unknown": surplus, "of another shape": shapes, "of another data type": types}
    problems = [f"{len(names)} {kind} ({_format_names(names)})" for kind, names in names_by_fault.items() if names]
    if not problems:
        return None
    network = f"{blueprint.backbone} with {blueprint.channels} channel{'s' if blueprint.channels > 1 else ''}"
    return f"does not fit the encoder {network}: tensors {', '.join(problems)}"


def _format_names(names: Sequence[str]) -> str:
    shown = [name if len(name) <= MAX_NAME_LENGTH else f"{name[:MAX_NAME_LENGTH]}..." for name in names[:MAX_NAMES]]
    return ", ".join(shown) + (", ..." if len(names) > MAX_NAMES else "")


@lru_cache(maxsize=256)
def _encoder_tensors(blueprint: Blueprint) -> dict[str, tuple[tuple[int, ...], bool]]:
    """Return the shape of each tensor of the encoder, and whether it is floating point."""
    with torch.random.fork_rng(devices=[]):
        tensors = build(blueprint).encoder.state_dict()
    return {name: (tuple(tensor.shape), tensor.is_floating_point()) for name, tensor in tensors.items()}
