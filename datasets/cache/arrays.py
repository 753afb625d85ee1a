"""Entries of a cache on disk: arrays that one process fills, others wait for, and all map into memory."""

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

Array = NDArray[Any]
PREPARED: Final = "prepared"
"""The folder of a cache that has the entries."""
Layout = Mapping[str, tuple[tuple[int, ...], type[np.generic]]]
"""Shape and type by name of array."""


def size_of(layout: Layout) -> int:
    """Return the bytes of arrays, without the headers of their files."""
    return sum(math.prod(shape) * np.dtype(kind).itemsize for shape, kind in layout.values())


def entries_in(cache: Path, names: str = "*") -> list[Path]:
    """Return the folders of complete entries whose names match."""
    return [path for path in cache.glob(names) if path.is_dir() and not path.suffix]


def bytes_in(entry: Path) -> int:
    """Return the bytes of an entry's files."""
    return sum(file.stat().st_size for file in entry.iterdir())


def open_entry(
    folder: Path,
    layout: Layout,
    fill: Callable[[Mapping[str, Array]], None],
    *,
    budget_bytes: int,
    keep: Collection[Path] = (),
) -> dict[str, Array]:
    """Map the read-only arrays of an entry; where it is missing, `fill` is called with arrays of zeros first.

    An entry appears complete or not at all. Before one is filled, those used longest ago are removed until
    it fits into the budget and onto the disk, but for those in `keep`. Raises `DataError` where the disk is too small.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    while True:
        # Another process may remove the entry between any two lines here; then it is filled again.
        with suppress(FileNotFoundError):
            return _mapped(folder, layout)
        with FileLock(_lock_of(folder)):
            if not folder.exists():
                _write(folder, layout, fill, budget_bytes=budget_bytes, keep=keep)


def _mapped(folder: Path, layout: Layout) -> dict[str, Array]:
    os.utime(folder)
    return {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in layout}


def _write(
    folder: Path,
    layout: Layout,
    fill: Callable[[Mapping[str, Array]], None],
    *,
    budget_bytes: int,
    keep: Collection[Path],
) -> None:
    part = _part_of(folder)
    shutil.rmtree(part, ignore_errors=True)
    needed = size_of(layout)
    _make_room(folder.parent, needed, budget_bytes, keep)
    free = shutil.disk_usage(folder.parent).free
    if free < needed:
        raise DataError(
            f"prepared images need {needed / 2**30:.1f} GiB in {folder.parent}, {free / 2**30:.1f} are free; "
            "allowed: what fits; free some, or choose another --cache or a smaller image.size"
        )
    part.mkdir()
    try:
        arrays = {
            name: open_memmap(part / f"{name}.npy", mode="w+", dtype=kind, shape=shape)
            for name, (shape, kind) in layout.items()
        }
        fill(arrays)
        for array in arrays.values():
            array.flush()
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _make_room(cache: Path, needed: int, budget_bytes: int, keep: Collection[Path]) -> None:
    """Remove what crashed processes left, and the entries used longest ago until there is room for one more."""
    for part in cache.glob("*.part"):
        with suppress(Timeout), FileLock(_lock_of(part.with_suffix("")), timeout=0):
            shutil.rmtree(part, ignore_errors=True)
    used: list[tuple[float, int, Path]] = []
    for entry in entries_in(cache):
        with suppress(FileNotFoundError):
            used.append((entry.stat().st_mtime, bytes_in(entry), entry))
    total = sum(size for _, size, _ in used)
    on_disk = total + shutil.disk_usage(cache).free
    if on_disk >= needed:  # else nothing goes for what will not fit
        budget_bytes = min(budget_bytes, on_disk)
    for _, size, entry in sorted(used):
        if total + needed <= budget_bytes:
            return
        if entry not in keep:
            _remove(entry)
            total -= size


def _remove(folder: Path) -> None:
    """Remove an entry unless a process is at work on it; arrays mapped from it live on."""
    with suppress(Timeout, FileNotFoundError), FileLock(_lock_of(folder), timeout=0):
        folder.rename(_part_of(folder))
        shutil.rmtree(_part_of(folder), ignore_errors=True)


def _part_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.part")


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")
