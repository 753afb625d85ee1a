"""Checks of safetensors files of initial weights. Used by planning, so it does not import torch."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

BLOCK = 2**22
"""Number of values read at once."""
FLOATS: Mapping[str, tuple[type[np.unsignedinteger], int]] = {
    "F16": (np.uint16, 0x7C00),
    "BF16": (np.uint16, 0x7F80),
    "F32": (np.uint32, 0x7F800000),
    "F64": (np.uint64, 0x47EFFFFFF0000000),
}
"""Floating dtypes: integer type of the same size, and smallest bit pattern (without sign) not finite in float32.

Networks have float32 weights; the smallest float64 value that rounds to infinity in float32 is 2^128 - 2^103.
"""


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """Header entry of a tensor; `start` and `stop` are byte offsets in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


def stored_tensors(file: Path) -> dict[str, StoredTensor]:
    """Return the tensors of a file by name. Raises `ValueError` for invalid files.

    If any name has the prefix `encoder.`, only those tensors are returned, without the prefix.
    """
    try:
        if not file.is_file():
            raise FileNotFoundError("not a regular file" if file.exists() else "no such file")
        with safe_open(file, framework="numpy"):  # validates header, dtypes and offsets
            pass
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(length))
    except (OSError, ValueError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        message = f"{file} cannot be read ({reason}); allowed: a complete safetensors file; correct the path or save it"
        raise ValueError(f"{message} again") from error
    header.pop("__metadata__", None)
    tensors = {name: _stored(entry, 8 + length) for name, entry in header.items()}
    prefixed = {
        name.removeprefix("encoder."): tensor for name, tensor in tensors.items() if name.startswith("encoder.")
    }
    return prefixed or tensors


def non_finite(file: Path, tensors: Mapping[str, StoredTensor]) -> str | None:
    """Return the name of a tensor with a value that is NaN or infinite in float32, None if there is none."""
    for name, tensor in tensors.items():
        if tensor.dtype in FLOATS:
            kind, smallest_non_finite = FLOATS[tensor.dtype]
            magnitude = np.iinfo(kind).max >> 1  # without the sign
            if any(((bits & magnitude) >= smallest_non_finite).any() for bits in _blocks(file, tensor)):
                return name
    return None


def _stored(entry: Mapping[str, object], offset: int) -> StoredTensor:
    start, stop = np.asarray(entry["data_offsets"]).tolist()
    shape = tuple(np.asarray(entry["shape"], int).tolist())
    return StoredTensor(dtype=str(entry["dtype"]), shape=shape, start=offset + start, stop=offset + stop)


def _blocks(file: Path, tensor: StoredTensor) -> Iterator[NDArray[np.unsignedinteger]]:
    kind, _ = FLOATS[tensor.dtype]
    count = (tensor.stop - tensor.start) // np.dtype(kind).itemsize
    with file.open("rb") as stream:
        stream.seek(tensor.start)
        while count > 0:
            block = np.fromfile(stream, kind, min(count, BLOCK))
            if not len(block):
                return
            count -= len(block)
            yield block
