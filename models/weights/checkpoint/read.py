"""Read checkpoints: safetensors files, and files of `torch.save` with their tensors in a wrapper."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from models.weights.checkpoint.rules import WRAPPERS
from models.weights.checkpoint.torch_file import is_torch_file, read_torch_file

MAX_KEYS = 8
"""Maximum number of keys in a message."""


MAX_WRAPPERS = 3
"""Maximum number of nested dictionaries around the tensors."""
_ALLOWED = "a complete safetensors file or file of torch.save"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The tensors of a file.

    Attributes:
        kind: The format of the file.
        wrapper: Keys that led to the tensors, such as `state_dict`.
        tensors: By name.
    """

    kind: Literal["safetensors", "torch"]
    wrapper: tuple[str, ...]
    tensors: Mapping[str, Tensor]


def read_checkpoint(file: Path) -> Checkpoint:
    """Return the tensors of a file. Raises `ValueError` if it cannot be read or has no tensors."""
    if not file.is_file():
        reason = "not a regular file" if file.exists() else "no such file"
        raise ValueError(f"{file} cannot be read ({reason}); allowed: {_ALLOWED}; correct the path")
    try:
        return _from_torch(file) if is_torch_file(file) else _from_safetensors(file)
    except (OSError, SafetensorError) as error:
        reason = str(getattr(error, "strerror", None) or error)
        raise ValueError(
            f"{file} cannot be read ({reason}); allowed: {_ALLOWED}; correct the path or save it again"
        ) from error


def _from_safetensors(file: Path) -> Checkpoint:
    with safe_open(file, framework="pt"):  # validates header, dtypes and offsets
        pass
    return Checkpoint(kind="safetensors", wrapper=(), tensors=load_file(file))


def _from_torch(file: Path) -> Checkpoint:
    content: Any = read_torch_file(file)
    wrapper = _wrapper(content)
    if wrapper is None:
        keys = [str(key)[:100] for key in content] if isinstance(content, Mapping) else []
        listed = f" but {', '.join(keys[:MAX_KEYS])}{', ...' if len(keys) > MAX_KEYS else ''}" if keys else ""
        raise ValueError(
            f"{file} has no tensors{listed}; allowed: tensors by name, also below {', '.join(WRAPPERS)}; save those of "
            "the encoder"
        )
    for key in wrapper:
        content = content[key]
    return Checkpoint(kind="torch", wrapper=wrapper, tensors=_tensors(content))


def _wrapper(content: object, depth: int = MAX_WRAPPERS) -> tuple[str, ...] | None:
    """Return the known keys that lead to tensors, None if none do.

    Tensors beside such a key are numbers of the training script.
    """
    if not isinstance(content, Mapping):
        return None
    for key in WRAPPERS if depth else ():
        inner = _wrapper(content.get(key), depth - 1)
        if inner is not None:
            return key, *inner
    return () if _tensors(content) else None


def _tensors(content: object) -> dict[str, Tensor]:
    if not isinstance(content, Mapping):
        return {}
    return {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
