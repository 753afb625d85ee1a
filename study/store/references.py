"""The stages that the studies of a storage need."""

import os
from collections.abc import Iterator

from study.errors import ConfigError, Problem
from study.store.atomic import AlteredFileError
from study.store.documents import read_plan
from study.store.paths import IMPORTED, PLAN, SPEC
from study.store.store import Store


def planned_by_all(store: Store, *, exclude: str | None = None) -> frozenset[str]:
    """Return the digests in the plans of all studies, except the study `exclude`.

    Raises `ConfigError` if the plan of a study cannot be read, because then its stages are unknown.
    """
    planned: set[str] = set()
    problems = list(_unreadable(store))
    for name in sorted({*store.studies(PLAN, SPEC), *store.studies(SPEC)} - {exclude}):
        try:
            plan = read_plan(store.study(name))
            problem = f"{PLAN} is missing"
        except AlteredFileError as error:
            plan, problem = None, f"{PLAN} {error.problem}"
        except PermissionError:
            plan, problem = None, f"{PLAN} cannot be read"
        if plan is not None:
            planned |= plan["stages"].keys()
        else:
            problems.append(Problem(path=f"study {name}", message=f"its {problem}; {_remedy(store, name)}"))
    if problems:
        raise ConfigError(problems, store.place)
    return frozenset(planned)


def refuse_imported(store: Store, name: str) -> None:
    """Raise `ConfigError` if a study consists of imported results, so that it has nothing to run or to predict with."""
    if (store.study(name) / IMPORTED).is_file():
        message = (
            f"{store.place} has imported results under this name, and there is nothing to run; allowed: study table, "
            "compare and report; choose another name for a study that runs"
        )
        raise ConfigError([Problem(path="", message=message)], name)


def _unreadable(store: Store) -> Iterator[Problem]:
    """Yield unreadable folders of studies, which a search for files would treat as empty."""
    folder = store.root / "studies"
    try:
        study_folders = sorted(folder.iterdir()) if os.path.lexists(folder) else []
    except OSError as error:
        yield Problem(path="studies", message=f"cannot be read ({error.strerror}); {_READABLE}")
        return
    for study_folder in study_folders:
        if study_folder.is_dir() and not os.access(study_folder, os.R_OK | os.X_OK):
            yield Problem(path=f"study {study_folder.name}", message=f"its folder cannot be read; {_READABLE}")


_READABLE = "allowed: a folder of every study that you may read, for it says which stages are needed"


def _remedy(store: Store, name: str) -> str:
    return (
        f"allowed: a sound plan of every study, which says what it needs; `study resume {name}` rewrites it, or "
        f"remove {store.study(name)} if the study is not wanted any more"
    )
