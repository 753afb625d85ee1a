"""Folders that a user names: the storage, the cache of prepared images, the folder of a study."""

import os
from contextlib import suppress
from pathlib import Path

from study.errors import ConfigError, Problem, unknown
from study.store.atomic import is_name
from study.store.paths import IMPORTED, SPEC


def default_cache() -> Path:
    """Return the user's folder of prepared images; only the user can read it, because images may be of patients."""
    base = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    folder = Path(base).expanduser() / "segmentation-study"
    with suppress(OSError):  # the first write reports it
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def cache_of(cache: Path | None) -> Path:
    """Return the folder of the cache, by default that of the user."""
    return _folder_at(str(cache or default_cache()), "--cache")


def _folder_at(location: str, option: str) -> Path:
    """Return a path that Arrow does not misread: it expands `~`, and takes `a:` for a URI scheme.

    Raises `ConfigError` for a path that is not UTF-8, which Arrow cannot open.
    """
    if any("\ud800" <= char <= "\udfff" for char in location):
        message = f"{location} is not UTF-8; allowed: a path in UTF-8; rename the folder or choose another"
        raise ConfigError([Problem(path="", message=message)], option)
    path = Path(os.path.expanduser(location))  # noqa: PTH111 - never raises, and keeps ./~ apart from ~
    return path.absolute() if path.parts and (":" in path.parts[0] or path.parts[0][0] == "~") else path


def storage_at(location: str, cache: Path | None = None) -> Path:
    """Return the folder of a storage; for a URI its local mirror in the cache. Raises `ConfigError`."""
    from study.store.bucket_backend import create_mirror, uri_of
    from study.store.object_store import Remote, checked_uri, is_uri, problem

    mirrored = None if is_uri(location) else uri_of(Path(location))
    if mirrored is None and not is_uri(location):
        return _folder_at(location, "--storage")
    uri = mirrored or checked_uri(location)
    unreadable = problem(Remote(uri))
    if unreadable:
        raise ConfigError([Problem(path="", message=unreadable)], f"--storage {uri}")
    return create_mirror(uri, cache_of(cache).resolve()) if mirrored is None else Path(location)


def study_folder(storage: Path, name: str) -> Path:
    """Return the up-to-date folder of a study, which may be an imported one.

    Raises:
        ConfigError: The storage has no study of this name.
    """
    from study.store.documents import check_spec
    from study.store.store import Store

    store = Store(storage)
    if is_name(name):
        store.pull(name)
        if (store.study(name) / IMPORTED).is_file():
            return store.study(name)
    if not is_name(name) or not os.path.lexists(store.study(name) / SPEC):
        studies = sorted({*store.studies(SPEC), *store.studies(IMPORTED)})
        message = f"{unknown('study', name, studies)}; run it first, or name its storage with --storage"
        raise ConfigError([Problem(path="", message=message)], f"--storage {store.place}")
    check_spec(store.study(name) / SPEC)
    return store.study(name)
