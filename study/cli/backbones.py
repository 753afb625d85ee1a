"""The command `study backbones`."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from study.cli.console import say
from study.cli.options import AsJson
from study.errors import ConfigError, Problem

if TYPE_CHECKING:
    from models.catalog.listing import Entry


def backbones(
    search: Annotated[
        str,
        typer.Option("--search", metavar="TEXT", help="Only names, weights and repositories with these words."),
    ] = "",
    weights: Annotated[bool, typer.Option("--weights", help="List every set of published weights.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the backbones, their sizes, the architectures that take them, and their published weights."""
    from models.catalog.listing import entries

    matching = list(entries(search, of_weights=weights))
    if not matching and weights and any(entries(search)):
        message = f"is {search}, for which there are no published weights; allowed: with weights; leave out --weights"
        raise ConfigError([Problem(path="--search", message=message)], "study backbones")
    if not matching:
        message = f"is {search}; allowed: words of names such as resnet, dinov2 or in1k; use fewer words"
        raise ConfigError([Problem(path="--search", message=message)], "study backbones")
    if as_json:
        say(json.dumps([asdict(entry) for entry in matching], indent=1))
        return
    rows = list(_weights_rows(matching) if weights else _rows(matching))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _rows(listed: "Sequence[Entry]") -> Iterator[tuple[str, ...]]:
    from models.catalog.listing import architectures_text

    yield "backbone", "parameters", "strides", "size", "weights", "architectures"
    for entry in listed:
        names = f"{len(entry.weights)}: {entry.weights[0].name}" if entry.weights else "none"
        ellipsis_ = ", ..." if len(entry.weights) > 1 else ""
        yield (
            entry.name,
            _millions(entry.parameters),
            _strides(entry.strides),
            str(entry.size or "any"),
            names + ellipsis_,
            architectures_text(entry.architectures),
        )


def _weights_rows(listed: "Sequence[Entry]") -> Iterator[tuple[str, ...]]:
    yield "backbone", "initial_weights", "parameters", "licence", "repository", "revision"
    for entry in listed:
        for part in entry.weights:
            licence = part.licence or "unknown"
            yield entry.name, part.name, _millions(entry.parameters), licence, part.repository, part.revision[:12]


def _millions(parameters: int) -> str:
    return f"{parameters / 1e6:.1f} M"


def _strides(strides: Sequence[int]) -> str:
    return str(strides[0]) if len({*strides}) == 1 else f"{strides[0]} to {strides[-1]}"
