"""Commands for the studies that come with the platform: `study catalog`, `study init` and `study demo`."""

import shlex
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from study.cli.console import say
from study.cli.options import DEFAULT_STORAGE, Cache, Overrides, Storage
from study.cli.running import run_document
from study.config.document import read_document
from study.errors import ConfigError, Problem, unknown
from study.places import cache_of

DEMO = "demo"


def templates() -> dict[str, Path]:
    """Return the files of the catalog by name."""
    folder = Path(str(resources.files("study") / "catalog"))
    return {file.stem: file for file in sorted(folder.glob("*.yaml"))}


def _matching_templates(incomplete: str) -> list[str]:
    return [name for name in templates() if name.startswith(incomplete)]


def catalog() -> None:
    """List the example studies of the catalog."""
    for name, template in templates().items():
        first_line = template.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
        say(f"{name:24} {first_line}")


def init(
    template: Annotated[
        str,
        typer.Argument(
            metavar="TEMPLATE", help="A name that `study catalog` lists.", autocompletion=_matching_templates
        ),
    ],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Default: TEMPLATE.yaml.")] = None,
) -> None:
    """Copy an example study of the catalog for editing."""
    path, files = output or Path(f"{template}.yaml"), templates()
    if template not in files:
        raise ConfigError([Problem(path="", message=unknown("template", template, files))], "study init")
    if path.exists():
        message = f"{path} exists; allowed: a new file; choose another name with -o or remove it"
        raise ConfigError([Problem(path="", message=message)], "study init")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(files[template].read_text(encoding="utf-8"), encoding="utf-8")
    except OSError as error:
        message = f"{path} cannot be written ({error.strerror}); allowed: a writable path; choose another with -o"
        raise ConfigError([Problem(path="", message=message)], "study init") from error
    say(f"wrote {path}; next: study plan {shlex.quote(str(path))}")


def demo(
    storage: Storage = DEFAULT_STORAGE,
    cache: Cache = None,
    overrides: Overrides = None,
) -> None:
    """Run the demo of the catalog: a small real study on generated radiographs, in minutes on a laptop."""
    file = templates()[DEMO]
    run_document(read_document(file, overrides or ()), str(file), storage, cache_of(cache), None)
