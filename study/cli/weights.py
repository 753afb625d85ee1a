"""The command `study weights`."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from study.cli.console import say
from study.cli.options import AsJson
from study.errors import ConfigError, Problem

if TYPE_CHECKING:
    from models.architectures.parts import Blueprint
    from models.weights.checkpoint.match import Match


def weights(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file of weights (safetensors or torch).")],
    backbone: Annotated[str, typer.Option(help="The backbone to fill.")],
    architecture: Annotated[
        str | None, typer.Option(help="An architecture, which may leave out deeper stages.")
    ] = None,
    channels: Annotated[int, typer.Option(min=1, help="Image channels of the network.")] = 3,
    allow: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Tensors that may be missing or left over, as allow in a study file."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show how a file of weights fills a backbone: every tensor that is matched, missing or left over."""
    from models.weights.fit import match_file

    try:
        match = match_file(file, _blueprint(architecture, backbone, channels), tuple(allow or ()))
    except ValueError as error:
        raise ConfigError([Problem(path="", message=str(error))], "study weights") from error
    say(json.dumps(_summary(match), indent=1) if as_json else "\n".join(_lines(match)))
    if not _fits(match):
        raise typer.Exit(2)


def _blueprint(architecture: str | None, backbone: str, channels: int) -> "Blueprint":
    """Return the network to fill. Raises `ConfigError`."""
    from models.catalog import registry

    is_known = backbone == "own" or backbone in registry.backbones()
    side = registry.probe_size(architecture, backbone) if is_known else 64
    problem = registry.problem(architecture, backbone, shape=(side, side))
    if problem is not None:
        path = "--architecture" if problem.startswith("architecture") else "--backbone"
        raise ConfigError([Problem(path=path, message=problem.partition(" ")[2])], "study weights")
    from models.architectures.parts import Blueprint  # imports torch

    return Blueprint(architecture=architecture, backbone=backbone, channels=channels, outputs=1, shape=(side, side))


def _fits(match: "Match") -> bool:
    """Return whether a study may start from the file."""
    return match.problem is None and match.non_finite is None


def _summary(match: "Match") -> dict[str, object]:
    return {
        "fits": _fits(match), "rules": match.rules, "matched": match.sources, "left_out": match.left_out,
        "initial_values": match.kept, "faults": match.faults, "non_finite": match.non_finite,
    }  # fmt: skip


def _lines(match: "Match") -> Iterator[str]:
    yield from (f"rule            {rule}" for rule in match.rules)
    for name, source in match.sources.items():
        yield f"matched         {source if source == name else f'{source} -> {name}'}"
    for title, names_by_reason in (("left out", match.left_out), ("initial value", match.kept), ("", match.faults)):
        for reason, names in names_by_reason.items():
            yield from (f"{title or reason:15} {name}{f' ({reason})' if title else ''}" for name in names)
    non_finite = f"holds NaN or infinity in {match.non_finite}" if match.non_finite is not None else None
    yield f"result          {match.problem or non_finite or 'fits'}"
