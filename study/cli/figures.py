"""The command `study figures`."""

import re
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from study.cli.console import say
from study.cli.options import DEFAULT_STORAGE, Cache, Storage, StudyName
from study.cli.results import FigureFormat
from study.errors import ConfigError, Problem
from study.places import cache_of, study_folder
from study.store.atomic import writing_problem

if TYPE_CHECKING:
    from results.figures import FigureStyle

WIDTHS = (40.0, 1000.0)
"""Allowed widths in millimetres."""
RESOLUTIONS = (50, 1200)
"""Allowed resolutions in dots per inch."""


class StyleName(StrEnum):
    """Styles of figures."""

    paper = "paper"
    slides = "slides"


def figures(  # noqa: PLR0917 - options are given by name
    name: StudyName,
    style: Annotated[StyleName, typer.Option(help="paper: text of 7 points; slides: of 16.")] = StyleName.paper,
    width: Annotated[
        str | None,
        typer.Option(help="Such as 88mm, 18cm or 3.5in (default: paper 88mm, slides 300mm).", show_default=False),
    ] = None,
    format_: Annotated[FigureFormat, typer.Option("--format", help="Format of the files.")] = FigureFormat.pdf,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Default: figures in the study's folder.")
    ] = None,
    dpi: Annotated[int, typer.Option(help="Resolution of png.")] = 300,
    log: Annotated[bool, typer.Option("--log", help="Use a logarithmic axis for labelled images.")] = False,
    images: Annotated[bool, typer.Option(help="Include test images of the data.")] = True,
    storage: Storage = DEFAULT_STORAGE,
    cache: Cache = None,
) -> None:
    """Write all figures of a study in a given size, for a paper or slides."""
    look = _style(style, width, name)
    if not RESOLUTIONS[0] <= dpi <= RESOLUTIONS[1]:
        message = f"is {dpi}; allowed: {RESOLUTIONS[0]} to {RESOLUTIONS[1]} dots per inch; choose one of these"
        raise ConfigError([Problem(path="--dpi", message=message)], name)
    folder = output or study_folder(storage, name) / "figures"
    problem = f"{folder} is a file; allowed: a folder" if folder.is_file() else writing_problem(folder)
    if problem:
        raise ConfigError([Problem(path="", message=f"{problem}; -o names another place")], name)
    from results.figures import figure_style, save
    from results.figures.style import MM_PER_INCH
    from results.report.page import Text
    from study.report.study_figures import draw_figures
    from study.store.store import Store

    study_folder(storage, name)
    with figure_style(look), Store(storage).uploading(name):
        for drawn in draw_figures(storage, name, cache=cache_of(cache), log=log, images=images):
            if isinstance(drawn, Text):
                say(drawn.text)
                continue
            path = folder / f"{drawn.name}.{format_.value}"
            save(drawn.figure, path, dpi=dpi)
            across, down = (round(float(inches) * MM_PER_INCH, 1) for inches in drawn.figure.get_size_inches())
            say(f"wrote {path} ({across:g} x {down:g} mm)")


def _style(style: StyleName, width: str | None, name: str) -> "FigureStyle":
    """Return a style with a width. Raises `ConfigError`."""
    from results.figures.style import STYLES

    look = STYLES[style.value]
    return look if width is None else replace(look, width=_millimetres(width, name))


def _millimetres(width: str, name: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(mm|cm|in)", width.strip())
    value = float(found[1]) * {"mm": 1.0, "cm": 10.0, "in": 25.4}[found[2]] if found else 0.0
    low, high = WIDTHS
    if not low <= value <= high:
        message = f"is {width}; allowed: {low:g}mm to {high:g}mm, also in cm or in; write it as 88mm"
        raise ConfigError([Problem(path="--width", message=message)], name)
    return value
