"""Arguments and options that commands share."""

import glob
from pathlib import Path
from typing import Annotated

import typer

from study.places import storage_at

File = Annotated[Path, typer.Argument(metavar="FILE", help="The study file (YAML).", show_default=False)]


def _matching_studies(context: typer.Context, incomplete: str) -> list[str]:
    """Return the studies of a storage in a folder whose name begins like this, for the completion in shells."""
    folder = Path(str(context.params.get("storage") or DEFAULT_STORAGE)) / "studies"
    return sorted(path.name for path in folder.glob(f"{glob.escape(incomplete)}*") if path.is_dir())


StudyName = Annotated[
    str,
    typer.Argument(metavar="NAME", help="The study's name.", show_default=False, autocompletion=_matching_studies),
]


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
