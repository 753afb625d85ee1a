"""Cache of memory-mapped arrays on disk; one process fills an entry while others wait for it."""

import errno
import math
import os
import shutil
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import numpy as np
from filelock import FileLock, Timeout
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from datasets.errors import DataError

CachedArray = NDArray[Any]
PREPARED: Final = "prepared"
"""The subfolder of the cache with the entries."""
Layout = Mapping[str, tuple[tuple[int, ...], type[np.generic]]]
"""Shape and dtype of each array by name."""


def size_of(layout: Layout) -> int:
    """Return the size of the arrays in bytes, without file headers."""
    return sum(math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in layout.values())


def entries_in(cache: Path, names: str = "*") -> list[Path]:
    """Return the folders of complete entries whose names match the pattern."""
    return [path for path in cache.glob(names) if path.is_dir() and not path.suffix]


def bytes_in(entry: Path) -> int:
    """Return the size of an entry's files in bytes."""
    return sum(file.stat().st_size for file in entry.iterdir())


def open_entry(
    folder: Path,
    layout: Layout,
    fill: Callable[[Mapping[str, CachedArray]], None],
    *,
    budget_bytes: int,
    keep: Collection[Path] = (),
) -> dict[str, CachedArray]:
    """Memory-map the arrays of an entry read-only; if it is missing, call `fill` with arrays of zeros first.

    Entries are created atomically. Before one is filled, the least recently used entries, except those in `keep`, are
    removed until it fits into the budget and onto the disk. Raises `DataError` if the disk is too small.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    while True:
        # Another process may remove the entry at any point here; it is then filled again.
        with suppress(FileNotFoundError):
            return _mapped(folder, layout)
        with FileLock(_lock_of(folder)):
            if not folder.exists():
                _write(folder, layout, fill, budget_bytes=budget_bytes, keep=keep)


def _mapped(folder: Path, layout: Layout) -> dict[str, CachedArray]:
    os.utime(folder)
    return {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in layout}


def _write(
    folder: Path,
    layout: Layout,
    fill: Callable[[Mapping[str, CachedArray]], None],
    *,
    budget_bytes: int,
    keep: Collection[Path],
) -> None:
    partial = _part_of(folder)
    shutil.rmtree(partial, ignore_errors=True)
    needed = size_of(layout)
    _make_room(folder.parent, needed, budget_bytes, keep)
    free = shutil.disk_usage(folder.parent).free
    if free < needed:
        raise DataError(
            f"prepared images need {needed / 2**30:.1f} GiB in {folder.parent}, {free / 2**30:.1f} are free; "
            "allowed: what fits; free some, or choose another --cache or a smaller image.size"
        )
    partial.mkdir()
    try:
        arrays = {name: _allocated(partial / f"{name}.npy", shape, dtype) for name, (shape, dtype) in layout.items()}
        fill(arrays)
        for array in arrays.values():
            array.flush()
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _allocated(file: Path, shape: tuple[int, ...], dtype: type[np.generic]) -> "np.memmap[Any, Any]":
    """Create an array on disk. Its space is reserved, as a disk that is full later would end the process (SIGBUS)."""
    array = open_memmap(file, mode="w+", dtype=dtype, shape=shape)
    if hasattr(os, "posix_fallocate") and array.nbytes:
        with file.open("r+b") as opened:
            try:
                os.posix_fallocate(opened.fileno(), 0, file.stat().st_size)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    return array  # the file system cannot reserve space
                raise DataError(
                    f"{file.parent.parent} is full; allowed: {array.nbytes / 2**30:.1f} GiB more; free some, or choose "
                    "another --cache"
                ) from error
    return array


def _make_room(cache: Path, needed: int, budget_bytes: int, keep: Collection[Path]) -> None:
    """Remove leftovers of crashed processes, and the least recently used entries until the new one fits."""
    for partial in cache.glob("*.part"):
        with suppress(Timeout), FileLock(_lock_of(partial.with_suffix("")), timeout=0):
            shutil.rmtree(partial, ignore_errors=True)
    entries: list[tuple[float, int, Path]] = []
    for entry in entries_in(cache):
        with suppress(FileNotFoundError):
            entries.append((entry.stat().st_mtime, bytes_in(entry), entry))
    total = sum(size for _, size, _ in entries)
    on_disk = total + shutil.disk_usage(cache).free
    if on_disk >= needed:  # otherwise no entry is removed: the new one cannot fit
        budget_bytes = min(budget_bytes, on_disk)
    for _, size, entry in sorted(entries):
        if total + needed <= budget_bytes:
            return
        if entry not in keep:
            _remove(entry)
            total -= size


def _remove(folder: Path) -> None:
    """Remove an entry unless a process is filling it; arrays mapped from it stay valid."""
    with suppress(Timeout, FileNotFoundError), FileLock(_lock_of(folder), timeout=0):
        folder.rename(_part_of(folder))
        shutil.rmtree(_part_of(folder), ignore_errors=True)


def _part_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.part")


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")
