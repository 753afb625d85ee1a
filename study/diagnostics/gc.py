"""Finds and removes folders of a storage that no study refers to."""

import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from study.store.lease import is_leased
from study.store.object_store import for_each, group_by_folder
from study.store.paths import JOURNAL
from study.store.references import planned_by_all
from study.store.store import Store

PLACES = ("stages", "work", "damaged")


@dataclass(frozen=True, kw_only=True)
class Garbage:
    """A folder to remove: a finished stage, an unfinished one, or a damaged one."""

    folder: str
    """Relative to the storage."""
    bytes: int


def find_garbage(store: Store) -> list[Garbage]:
    """Return the folders that no study of the storage plans or has searched; leased work is kept.

    Raises:
        ConfigError: It cannot be determined which stages a study needs.
    """
    referenced = planned_by_all(store) | _searched(store)
    garbage = []
    for folder, size in _folders(store).items():
        place, _, name = folder.partition("/")
        is_in_use = place == "work" and is_leased(store.work(name), store.mirror)
        if place == "damaged" or (name not in referenced and not is_in_use):
            garbage.append(Garbage(folder=folder, bytes=size))
    return garbage


def remove_garbage(store: Store, garbage: list[Garbage]) -> None:
    """Remove these folders. Raises `OSError` if one cannot be removed."""
    for item in garbage:
        with suppress(FileNotFoundError):  # removed by another process, or its stage has ended
            shutil.rmtree(store.root / item.folder)
    if store.mirror is not None:
        for_each(store.mirror.remote.delete_folder, [item.folder for item in garbage])


def _searched(store: Store) -> frozenset[str]:
    names = store.studies(JOURNAL)
    if not names:
        return frozenset()
    from study.search.journal import journal_stages  # imports Optuna

    return frozenset[str]().union(*(journal_stages(store.study(name)) for name in names))


def _folders(store: Store) -> Mapping[str, int]:
    """Return the bytes of each folder in `PLACES`."""
    if store.mirror is not None:
        entries = {key: entry for place in PLACES for key, entry in store.mirror.remote.entries(place).items()}
        return {
            folder: sum(file.bytes for file in files.values()) for folder, files in group_by_folder(entries, 2).items()
        }
    folders = [path for place in PLACES for path in sorted((store.root / place).glob("*")) if path.is_dir()]
    return {f"{path.parent.name}/{path.name}": _size(path) for path in folders}


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
