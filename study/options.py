"""What commands share: arguments, options, and where they look."""

from pathlib import Path
from typing import Annotated

import typer

from study.files import is_name
from study.layout import SPEC
from study.problems import Problem, Refused, unknown

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
    from study.doctor import default_cache

    return cache or default_cache()


def storage_at(place: str, cache: Path | None = None) -> Path:
    """Return the folder of a storage; for one at a URI its mirror in the cache. Raises `Refused`."""
    from study.mirror import made_mirror
    from study.remote import Remote, checked_uri, is_uri, problem

    if not is_uri(place):
        return Path(place)
    uri = checked_uri(place)
    unreadable = problem(Remote(uri))
    if unreadable:
        raise Refused([Problem(path="", message=unreadable)], f"--storage {uri}")
    return made_mirror(uri, cache_of(cache).resolve())


def study_folder(storage: Path, name: str) -> Path:
    """Return the folder of a study, as it is now. Raises `Refused` where the storage has none of this name."""
    from study.store import Store
    from study.stored import check_spec

    store = Store(storage)
    if is_name(name):
        store.pull(name)
    if not is_name(name) or not (store.study(name) / SPEC).is_file():
        message = f"{unknown('study', name, store.studies(SPEC))}; run it first, or name its storage with --storage"
        raise Refused([Problem(path="", message=message)], f"--storage {store.place}")
    check_spec(store.study(name) / SPEC)
    return store.study(name)
