"""Commands on data: `study data check` and `study data init`."""

from pathlib import Path
from typing import Annotated

import typer

from study.cli.console import say
from study.cli.options import Cache
from study.places import cache_of

data = typer.Typer(help="Inspect data before a study reads them.", no_args_is_help=True)


@data.command("check")
def check_data(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A published layout, such as folder or chexpert.")],
    root: Annotated[Path | None, typer.Argument(metavar="ROOT", help="The folder of the data set.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set a key of the source; may be repeated.")
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Default: SOURCE-contact.png.")] = None,
    cache: Cache = None,
) -> None:
    """Show the contents and problems of a data set, and write a contact sheet of images and masks."""
    from study.diagnostics.data_check import data_check, read_settings

    settings = read_settings(source, root, overrides or ())
    for line in data_check(settings, cache=cache_of(cache), output=output or Path(f"{source}-contact.png")):
        say(line)


@data.command("init")
def init_data(
    place: Annotated[Path, typer.Argument(metavar="PLACE", help="A folder with images and masks, or a COCO file.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Default: named after PLACE.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    cache: Cache = None,
) -> None:
    """Write a study file that reads a download where it is, and a contact sheet of what was read."""
    from study.diagnostics.data_init import data_init

    for line in data_init(place, output, cache=cache_of(cache), force=force):
        say(line)
