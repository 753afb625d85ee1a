"""What commands share: arguments, options, and where they look."""

from pathlib import Path
from typing import Annotated

import typer

from study.problems import Problem, Refused, unknown

File = Annotated[Path, typer.Argument(metavar="FILE", help="The study file (YAML).", show_default=False)]
StudyName = Annotated[str, typer.Argument(metavar="NAME", help="The study's name.", show_default=False)]
Storage = Annotated[Path, typer.Option(help="Where stages and results live.")]
Cache = Annotated[Path | None, typer.Option(help="Prepared images of this machine (default: a per-user folder).")]
Overrides = Annotated[list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Change a value of the file.")]
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
DEFAULT_STORAGE = Path("runs")


def cache_of(cache: Path | None) -> Path:
    """Return the cache that is meant."""
    from study.doctor import default_cache

    return cache or default_cache()


def study_folder(storage: Path, name: str) -> Path:
    """Return the folder of a study. Raises `Refused` where the storage has none of this name."""
    folder = storage / "studies" / name
    if not (folder / "spec.yaml").is_file():
        known = sorted(path.parent.name for path in storage.glob("studies/*/spec.yaml"))
        raise Refused([Problem(path="", message=unknown("study", name, known))], f"--storage {storage}")
    return folder
