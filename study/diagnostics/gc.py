"""Finds and removes folders of a storage that no study refers to."""

from dataclasses import dataclass

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
    for folder, size in store.backend.folder_sizes(PLACES).items():
        place, _, name = folder.partition("/")
        is_in_use = place == "work" and store.is_leased(name)
        if place == "damaged" or (name not in referenced and not is_in_use):
            garbage.append(Garbage(folder=folder, bytes=size))
    return garbage


def remove_garbage(store: Store, garbage: list[Garbage]) -> None:
    """Remove these folders. Raises `OSError` if one cannot be removed."""
    store.backend.remove_folders([item.folder for item in garbage])


def _searched(store: Store) -> frozenset[str]:
    names = store.studies(JOURNAL)
    if not names:
        return frozenset()
    from study.search.journal import journal_stages  # imports Optuna

    return frozenset[str]().union(*(journal_stages(store.study(name)) for name in names))
