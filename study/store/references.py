"""Which stages the studies of a storage need."""

import os
from collections.abc import Iterator

from study.errors import ConfigError, Problem
from study.store.atomic import AlteredFileError
from study.store.documents import read_plan
from study.store.paths import PLAN, SPEC
from study.store.store import Store


def planned_by_all(store: Store, *, but: str | None = None) -> frozenset[str]:
    """Return the digests that studies plan with, those of one name left out.

    Raises `ConfigError` where a study has no sound plan: nobody knows which stages it needs.
    """
    planned: set[str] = set()
    problems = list(_unreadable(store))
    for name in sorted({*store.studies(PLAN, SPEC), *store.studies(SPEC)} - {but}):
        try:
            plan = read_plan(store.study(name))
            what = f"{PLAN} is missing"
        except AlteredFileError as error:
            plan, what = None, f"{PLAN} {error.what}"
        except PermissionError:
            plan, what = None, f"{PLAN} cannot be read"
        if plan is not None:
            planned |= plan["stages"].keys()
        else:
            problems.append(Problem(path=f"study {name}", message=f"its {what}; {_remedy(store, name)}"))
    if problems:
        raise ConfigError(problems, store.place)
    return frozenset(planned)


def _unreadable(store: Store) -> Iterator[Problem]:
    """Yield folders that may hold studies and cannot be read: a search for files would take them for empty."""
    folder = store.root / "studies"
    try:
        places = sorted(folder.iterdir()) if os.path.lexists(folder) else []
    except OSError as error:
        yield Problem(path="studies", message=f"cannot be read ({error.strerror}); {_READABLE}")
        return
    for place in places:
        if place.is_dir() and not os.access(place, os.R_OK | os.X_OK):
            yield Problem(path=f"study {place.name}", message=f"its folder cannot be read; {_READABLE}")


_READABLE = "allowed: a folder of every study that you may read, for it says which stages are needed"


def _remedy(store: Store, name: str) -> str:
    return (
        f"allowed: a sound plan of every study, which says what it needs; `study resume {name}` writes it again, or "
        f"remove {store.study(name)} if the study is not wanted any more"
    )
