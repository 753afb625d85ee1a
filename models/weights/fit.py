"""Checks of planning that need a network. Imports torch, so it is imported lazily."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from models.architectures.parts import Blueprint
from models.build import build
from models.catalog import registry
from models.weights.checkpoint.match import Match, TensorSpec, match, specs_of
from models.weights.checkpoint.read import Checkpoint, read_checkpoint


@lru_cache(maxsize=256)
def takes_one_image(blueprint: Blueprint, freeze: tuple[str, ...] = ()) -> bool:
    """Return whether a network can train on a batch of one image; batch norm over a single value cannot."""
    probe = registry.probe_size(blueprint.architecture, blueprint.backbone)
    shape = blueprint.shape or (0, 0)
    if blueprint.head != "flatten":  # larger maps make no difference
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


def match_file(file: Path, blueprint: Blueprint, allow: tuple[str, ...] = ()) -> Match:
    """Return how the tensors of a file fill the encoder of a network. Raises `ValueError` for unreadable files."""
    return _match(read_checkpoint(file), blueprint, allow)


@dataclass(frozen=True, kw_only=True)
class FileFit:
    """How a file fills an encoder.

    Attributes:
        text: The rules.
        problem: Why it does not fit, None if it fits.
        non_finite: The name of a tensor with NaN or infinity, None if there is none.
    """

    text: str
    problem: str | None
    non_finite: str | None


def file_fits(file: Path, blueprints: tuple[Blueprint, ...], allow: tuple[str, ...] = ()) -> tuple[FileFit, ...]:
    """Return how a file fits the encoders of networks; it is read once until it changes.

    Raises `ValueError` for unreadable files.
    """
    status = file.stat() if file.is_file() else None
    state = (status.st_size, status.st_mtime_ns) if status is not None else None
    return _file_fits(file, state, blueprints, allow)


@lru_cache(maxsize=256)
def _file_fits(
    file: Path, state: tuple[int, int] | None, blueprints: tuple[Blueprint, ...], allow: tuple[str, ...]
) -> tuple[FileFit, ...]:
    checkpoint = read_checkpoint(file)
    return tuple(_fit(_match(checkpoint, blueprint, allow), blueprint) for blueprint in blueprints)


def _fit(matched: Match, blueprint: Blueprint) -> FileFit:
    network = f"{blueprint.backbone} with {blueprint.channels} channel{'s' if blueprint.channels > 1 else ''}"
    return FileFit(
        text=f"{blueprint.backbone}: {matched.text}",
        problem=f"does not fit the encoder {network}: {matched.problem}" if matched.problem else None,
        non_finite=matched.non_finite,
    )


def _match(checkpoint: Checkpoint, blueprint: Blueprint, allow: tuple[str, ...]) -> Match:
    return match(
        checkpoint, _encoder_tensors(blueprint), backbone=blueprint.backbone, channels=blueprint.channels, allow=allow
    )


@lru_cache(maxsize=256)
def _encoder_tensors(blueprint: Blueprint) -> dict[str, TensorSpec]:
    with torch.random.fork_rng(devices=[]):
        return specs_of(build(blueprint).encoder)
