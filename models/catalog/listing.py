"""Search the table of backbones and their published weights. Imports no torch."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass

from models.architectures import ARCHITECTURES
from models.catalog.published import PublishedWeights
from models.catalog.registry import accepting_architectures, backbone, backbones


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Published weights of a backbone.

    Attributes:
        name: The value of `initial_weights`.
        repository: Repository on the Hugging Face hub.
        revision: Its commit or branch.
        sha256: Hash of the file, None if the table does not state it.
        licence: Licence, None if it is not known.
    """

    name: str
    repository: str
    revision: str
    sha256: str | None
    licence: str | None


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A backbone.

    Attributes:
        name: The value of `backbone`.
        parameters: Number of parameters of the encoder.
        strides: Strides of its feature maps, from the shallowest on.
        size: The only image side that works, if it is fixed.
        architectures: The architectures that take it.
        weights: Its published weights.
    """

    name: str
    parameters: int
    strides: tuple[int, ...]
    size: int | None
    architectures: tuple[str, ...]
    weights: tuple[Weights, ...]


def entries(text: str = "", *, of_weights: bool = False) -> Iterator[Entry]:
    """Yield the backbones that match a text, in the order of the table.

    Args:
        text: Words; each has to be part of the name of the backbone, or of the name or repository of its weights.
            Only the weights that match are listed, or all of them if the name of the backbone matches.
        of_weights: Whether backbones without matching weights are left out.
    """
    words = text.casefold().split()
    for name in backbones():
        row = backbone(name)
        weights = [
            Weights(name=tag, **asdict(PublishedWeights.parse(entry)), licence=row.licences.get(tag))
            for tag, entry in row.weights.items()
        ]
        matching = [part for part in weights if _matches(words, name, part.name, part.repository)]
        if matching or (_matches(words, name) and not of_weights):
            yield Entry(
                name=name, parameters=row.parameters, strides=row.strides, size=row.size,
                architectures=accepting_architectures(name), weights=tuple(matching),
            )  # fmt: skip


def architectures_text(names: tuple[str, ...]) -> str:
    """Return architectures as text: all that take named backbones, or those few, or all but a few."""
    named = [name for name, spec in ARCHITECTURES.items() if not spec.own_encoder]
    missing = [name for name in named if name not in names]
    extra = [name for name in names if name not in named]
    if not missing:
        text = "all"
    elif len(missing) < len(names) - len(extra):
        text = f"all but {', '.join(missing)}"
    else:
        return ", ".join(names)
    return ", ".join([text, *extra])


def _matches(words: list[str], *texts: str) -> bool:
    joined = " ".join(texts).casefold()
    return all(word in joined for word in words)
