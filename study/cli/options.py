"""Arguments and options that commands share, and the folders they stand for."""

import os
from pathlib import Path
from typing import Annotated

import typer

from study.errors import ConfigError, Problem, unknown
from study.store.atomic import is_name
from study.store.paths import IMPORTED, SPEC

File = Annotated[Path, typer.Argument(metavar="FILE", help="The study file (YAML).", show_default=False)]
StudyName = Annotated[str, typer.Argument(metavar="NAME", help="The study's name.", show_default=False)]


def _folder(context: typer.Context, location: str) -> Path:
    return storage_at(location, context.params.get("cache"))


Storage = Annotated[
    Path,
    typer.Option(
        parser=str, callback=_folder, metavar="PATH|URI",
        help="Storage of stages and results: a folder, s3://BUCKET/PREFIX or gs://BUCKET/PREFIX.",
    ),
]  # fmt: skip
# Eager, because the storage option needs it if the storage is a URI.
Cache = Annotated[
    Path | None,
    typer.Option(is_eager=True, help="Cache of prepared images (default: a folder of the user)."),
]
Overrides = Annotated[list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Change a value of the file.")]
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
DEFAULT_STORAGE = Path("runs")


def cache_of(cache: Path | None) -> Path:
    """Return the folder of the cache, by default that of the user."""
    from study.diagnostics.doctor import default_cache

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
