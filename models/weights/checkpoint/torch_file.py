"""Read files of `torch.save` without running code from them."""

import warnings
import zipfile
from pathlib import Path
from pickle import UnpicklingError
from typing import Self

import torch
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

LEGACY_CLASSES = (
    "argparse.Namespace", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "numpy.dtype",
)  # fmt: skip
"""Classes that checkpoints contain beside tensors. Files of torch 1.5 and earlier do not list theirs."""
CONVERT = "torch.save(model.state_dict(), FILE) in the software that wrote it"
STARTS = (b"PK", *(bytes((0x80, protocol)) for protocol in range(2, 6)))
"""First bytes of zip archives, and of pickles of protocols 2 to 5."""
TAR_MAGIC = slice(257, 262)


class Placeholder:
    """Stands for an object of any class but tensors and containers; ignores its content."""

    def __new__(cls, *_: object) -> Self:
        """Ignore the arguments."""
        return super().__new__(cls)

    def __init__(self, *_: object) -> None:
        """Ignore the arguments."""

    def __setstate__(self, _: object) -> None:
        """Ignore the state."""


def is_torch_file(file: Path) -> bool:
    """Return whether a file may be one of `torch.save`: a zip archive, a pickle or a tar archive."""
    with file.open("rb") as stream:
        start = stream.read(TAR_MAGIC.stop)
    if start[8:9] == b"{" and 8 + int.from_bytes(start[:8], "little") <= file.stat().st_size:
        return False  # the header of a safetensors file, whose length may look like a pickle
    return start[:2] in STARTS or start[TAR_MAGIC] == b"ustar"


def read_torch_file(file: Path) -> object:
    """Return the object in a file of `torch.save`; zip archives are memory-mapped.

    Objects of other classes than tensors and containers become placeholders. Raises `ValueError`.
    """
    is_zip = zipfile.is_zipfile(file)
    try:
        classes = get_unsafe_globals_in_checkpoint(file) if is_zip else LEGACY_CLASSES
        with safe_globals([(Placeholder, name) for name in classes]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of storages of earlier versions
            content: object = torch.load(file, map_location="cpu", weights_only=True, mmap=is_zip or None)
    except UnpicklingError as error:
        raise ValueError(
            f"{file} cannot be read without running code from it; allowed: tensors in dictionaries; save it again with "
            f"{CONVERT}"
        ) from error
    except Exception as error:  # (a damaged file raises errors of any kind, such as `struct.error`)
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ValueError(
            f"{file} cannot be read ({reason}); allowed: a complete file of torch.save with tensors; save it again "
            f"with {CONVERT}"
        ) from error
    if isinstance(content, Placeholder):
        raise ValueError(
            f"{file} holds a pickled object, not tensors; allowed: tensors in dictionaries; save it again with "
            f"{CONVERT}"
        )
    return content
