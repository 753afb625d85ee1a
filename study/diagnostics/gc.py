"""What of a storage no study refers to any more, and its removal."""

import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from study.store.lease import is_leased
from study.store.object_store import each, grouped
from study.store.paths import JOURNAL
from study.store.references import planned_by_all
from study.store.store import Store

PLACES = ("stages", "work", "damaged")


@dataclass(frozen=True, kw_only=True)
class Garbage:
    """A folder that can go: a finished stage, the work on one, or what was set aside as damaged."""

    folder: str
    """Relative to the storage."""
    bytes: int


def garbage(store: Store) -> list[Garbage]:
    """List what no study of the storage plans or searches with; work that a living process has claimed stays.

    Raises `ConfigError` where it cannot be told of some study what it needs.
    """
    wanted = planned_by_all(store) | _searched(store)
    found = []
    for folder, size in _folders(store).items():
        place, _, name = folder.partition("/")
        claimed = place == "work" and is_leased(store.work(name), store.mirror)
        if place == "damaged" or (name not in wanted and not claimed):
            found.append(Garbage(folder=folder, bytes=size))
    return found


def remove(store: Store, found: list[Garbage]) -> None:
    """Remove what was listed. Raises `OSError` where that is not allowed."""
    for one in found:
        with suppress(FileNotFoundError):  # another process removes it too, or its work ended
            shutil.rmtree(store.root / one.folder)
    if store.mirror is not None:
        each(store.mirror.remote.delete_folder, [one.folder for one in found])


def _searched(store: Store) -> frozenset[str]:
    names = store.studies(JOURNAL)
    if not names:
        return frozenset()
    from study.search.journal import journalled  # brings Optuna

    return frozenset[str]().union(*(journalled(store.study(name)) for name in names))


def _folders(store: Store) -> Mapping[str, int]:
    """Return the bytes in each folder that may be garbage."""
    if store.mirror is not None:
        entries = {key: entry for place in PLACES for key, entry in store.mirror.remote.entries(place).items()}
        return {folder: sum(one.bytes for one in files.values()) for folder, files in grouped(entries, 2).items()}
    found = [path for place in PLACES for path in sorted((store.root / place).glob("*")) if path.is_dir()]
    return {f"{path.parent.name}/{path.name}": _size(path) for path in found}


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
