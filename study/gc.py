"""What of a storage no study refers to any more, and its removal."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from study.claims import is_claimed
from study.store import Store


@dataclass(frozen=True, kw_only=True)
class Garbage:
    """A folder that can go: a finished stage, the work on one, or what was set aside as damaged."""

    path: Path
    bytes: int


def garbage(store: Store) -> list[Garbage]:
    """List what no study of the storage plans with; work that a living process has claimed stays."""
    wanted = store.planned_by_all()
    work = [path for path in _folders(store.root / "work") if not is_claimed(path)]
    found = [path for path in [*_folders(store.root / "stages"), *work] if path.name not in wanted]
    return [Garbage(path=path, bytes=_size(path)) for path in [*found, *_folders(store.root / "damaged")]]


def remove(found: list[Garbage]) -> None:
    """Remove what was listed."""
    for one in found:
        shutil.rmtree(one.path, ignore_errors=True)


def _folders(parent: Path) -> list[Path]:
    return sorted(path for path in parent.iterdir() if path.is_dir()) if parent.is_dir() else []


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
