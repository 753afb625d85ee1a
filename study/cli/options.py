"""What commands share: arguments, options, and where they look."""

import os
from pathlib import Path
from typing import Annotated

import typer

from study.errors import ConfigError, Problem, unknown
from study.store.atomic import is_name
from study.store.paths import SPEC

File = Annotated[Path, typer.Argument(metavar="FILE", help="The study file (YAML).", show_default=False)]
StudyName = Annotated[str, typer.Argument(metavar="NAME", help="The study's name.", show_default=False)]


def _folder(context: typer.Context, place: str) -> Path:
    return storage_at(place, context.params.get("cache"))


Storage = Annotated[
    Path,
    typer.Option(
        parser=str, callback=_folder, metavar="PATH|URI",
        help="Where stages and results live: a folder, s3://BUCKET/PREFIX or gs://BUCKET/PREFIX.",
    ),
]  # fmt: skip
# Eager: a storage at a URI needs it.
Cache = Annotated[
    Path | None,
    typer.Option(is_eager=True, help="Prepared images of this machine (default: a per-user folder)."),
]
Overrides = Annotated[list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Change a value of the file.")]
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
DEFAULT_STORAGE = Path("runs")


def cache_of(cache: Path | None) -> Path:
    """Return the cache that is meant."""
    from study.diagnostics.doctor import default_cache

    return _folder_at(str(cache or default_cache()), "--cache")


def _folder_at(place: str, option: str) -> Path:
    """Return a path that Arrow takes for the same one: it reads `~` as the home folder and `a:` as a scheme.

    Raises `ConfigError` for a path that is not UTF-8, which Arrow cannot open.
    """
    if any("\ud800" <= char <= "\udfff" for char in place):
        message = f"{place} is not UTF-8; allowed: a path in UTF-8; rename the folder or choose another"
        raise ConfigError([Problem(path="", message=message)], option)
    path = Path(os.path.expanduser(place))  # noqa: PTH111 - raises for no name, and tells ./~ from ~
    return path.absolute() if path.parts and (":" in path.parts[0] or path.parts[0][0] == "~") else path


def storage_at(place: str, cache: Path | None = None) -> Path:
    """Return the folder of a storage; for one at a URI its mirror in the cache. Raises `ConfigError`."""
    from study.store.bucket_store import made_mirror, mirror_of
    from study.store.object_store import Remote, checked_uri, is_uri, problem

    mirror = None if is_uri(place) else mirror_of(Path(place))
    if mirror is None and not is_uri(place):
        return _folder_at(place, "--storage")
    uri = checked_uri(place) if mirror is None else mirror.remote.uri
    unreadable = problem(Remote(uri))
    if unreadable:
        raise ConfigError([Problem(path="", message=unreadable)], f"--storage {uri}")
    return made_mirror(uri, cache_of(cache).resolve()) if mirror is None else Path(place)


def study_folder(storage: Path, name: str) -> Path:
    """Return the folder of a study, as it is now. Raises `ConfigError` where the storage has none of this name."""
    from study.store.documents import check_spec
    from study.store.store import Store

    store = Store(storage)
    if is_name(name):
        store.pull(name)
    if not is_name(name) or not os.path.lexists(store.study(name) / SPEC):
        message = f"{unknown('study', name, store.studies(SPEC))}; run it first, or name its storage with --storage"
        raise ConfigError([Problem(path="", message=message)], f"--storage {store.place}")
    check_spec(store.study(name) / SPEC)
    return store.study(name)
