"""Read checkpoints: safetensors files, and files of `torch.save` with their tensors in a wrapper."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from models.weights.checkpoint.rules import WRAPPERS
from models.weights.checkpoint.torch_file import is_torch_file, read_torch_file

MAX_WRAPPERS = 3
"""Maximum number of nested dictionaries around the tensors."""
MAX_KEYS = 8
"""Maximum number of keys in a message."""


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
    status = file.stat()
    return _read(file, status.st_size, status.st_mtime_ns)


_ALLOWED = "a complete safetensors file or file of torch.save"


@lru_cache(maxsize=2)
def _read(file: Path, size: int, mtime_ns: int) -> Checkpoint:
    """Read a file; the last ones are kept because planning matches them with several networks."""
    try:
        return _from_torch(file) if is_torch_file(file) else _from_safetensors(file)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(
            f"{file} cannot be read ({reason}); allowed: {_ALLOWED}; correct the path or save it again"
        ) from error


def _from_safetensors(file: Path) -> Checkpoint:
    with safe_open(file, framework="pt"):  # validates header, dtypes and offsets
        pass
    return Checkpoint(kind="safetensors", wrapper=(), tensors=load_file(file))


def _from_torch(file: Path) -> Checkpoint:
    content, wrapper = read_torch_file(file), list[str]()
    while isinstance(content, Mapping) and not _tensors(content) and len(wrapper) < MAX_WRAPPERS:
        key = next((key for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if key is None:
            break
        wrapper.append(key)
        content = content[key]
    tensors = _tensors(content)
    if not tensors:
        keys = [str(key)[:100] for key in content] if isinstance(content, Mapping) else []
        listed = f" but {', '.join(keys[:MAX_KEYS])}{', ...' if len(keys) > MAX_KEYS else ''}" if keys else ""
        raise ValueError(
            f"{file} has no tensors{listed}; allowed: tensors by name, also below {', '.join(WRAPPERS)}; save those of "
            "the encoder"
        )
    return Checkpoint(kind="torch", wrapper=tuple(wrapper), tensors=tensors)


def _tensors(content: object) -> dict[str, Tensor]:
    if not isinstance(content, Mapping):
        return {}
    return {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
