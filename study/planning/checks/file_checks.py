"""Check that files of weights can be read and fit the encoders that start from them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from study.config.compare import WeightsFile
from study.errors import Problem

if TYPE_CHECKING:
    from models.architectures.parts import Blueprint
    from models.weights.fit import FileFit


@dataclass(frozen=True, kw_only=True)
class FileUse:
    """A file of weights in a study file.

    Attributes:
        path: Path of the weights in the study file.
        weights: The file.
        networks: The networks whose encoders start from it, each once.
        remedy: What else helps if it does not fit, after the file and `allow`; may be empty.
    """

    path: str
    weights: WeightsFile
    networks: tuple["Blueprint", ...]
    remedy: str = ""


def file_problems(uses: Iterable[FileUse]) -> Iterator[Problem]:
    """Yield files that are unreadable or do not fit an encoder."""
    for use in uses:
        message = _problem(use)
        if message is not None:
            yield Problem(path=f"{use.path}.file", message=message)


def file_rules(uses: Iterable[FileUse]) -> dict[str, list[str]]:
    """Return by which rules files fill encoders, by the name of the file. Raises `ValueError` for unreadable files."""
    rules: dict[str, dict[str, None]] = {}
    for use in uses:
        texts = (fit.text for fit in _fits(use))
        rules.setdefault(use.weights.file.name, {}).update(dict.fromkeys(texts))
    return {name: list(texts) for name, texts in rules.items()}


def _fits(use: FileUse) -> Sequence["FileFit"]:
    from models.weights.fit import file_fits  # imports torch

    return file_fits(use.weights.file, use.networks, use.weights.allow)


def _problem(use: FileUse) -> str | None:
    from models.weights.initial import FILE_REMEDY  # imports torch

    file = use.weights.file
    try:
        fits = _fits(use)
    except ValueError as error:
        return str(error)
    for network, fit in zip(use.networks, fits, strict=True):
        if fit.problem:
            options = f"--backbone {network.backbone} --channels {network.channels}"
            return f"{file} {fit.problem}; {FILE_REMEDY}{use.remedy}; `study weights FILE {options}` lists all tensors"
    tensor_name = next((fit.non_finite for fit in fits if fit.non_finite is not None), None)
    if tensor_name is not None:
        return f"{file} holds NaN or infinity in {tensor_name}; allowed: finite numbers of float32; take another file"
    return None
