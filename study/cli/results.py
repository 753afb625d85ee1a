"""Commands for results: `study table`, `study compare` and `study report`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from study.cli.console import say
from study.cli.options import DEFAULT_STORAGE, Cache, Storage, StudyName
from study.errors import ConfigError, Problem
from study.places import cache_of, study_folder
from study.store.atomic import writing_problem


class TableFormat(StrEnum):
    """Formats of a table."""

    md = "md"
    csv = "csv"
    json = "json"
    latex = "latex"
    html = "html"


class FigureFormat(StrEnum):
    """Formats of a figure."""

    svg = "svg"
    pdf = "pdf"
    png = "png"


def table(  # noqa: PLR0917 - options are given by name
    name: StudyName,
    metric: Annotated[
        str | None,
        typer.Option(
            help="mean_iou, dice, precision, recall, f1, auc, ... Default: mean IoU (pooled), Dice (per case).",
            show_default=False,
        ),
    ] = None,
    class_: Annotated[str, typer.Option("--class", help="A class, macro or weighted.")] = "macro",
    aggregation: Annotated[
        str | None, typer.Option(help="dataset or case (default with --metric: dataset).", show_default=False)
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="test, validation, these with _thresholded or _postprocessed, or test@ANNOTATOR (default: test).",
            show_default=False,
        ),
    ] = None,
    stage: Annotated[
        str | None,
        typer.Option(help="Show the scores of this localisation stage on its own data instead.", show_default=False),
    ] = None,
    rows: Annotated[str | None, typer.Option(help="Factors, separated by commas; default: those that vary.")] = None,
    columns: Annotated[str | None, typer.Option(help="Factor shown in columns.")] = None,
    published: Annotated[bool, typer.Option("--published", help="Also show the results that papers report.")] = False,
    hours: Annotated[
        bool, typer.Option("--hours", help="Show the arms at equal hours of annotation (compare.hours) instead.")
    ] = False,
    search: Annotated[bool, typer.Option("--search", help="Show the trials of the study's search instead.")] = False,
    format_: Annotated[TableFormat, typer.Option("--format")] = TableFormat.md,
    storage: Storage = DEFAULT_STORAGE,
) -> None:
    """Show the comparison table."""
    from results.tables.render import render
    from study.analysis.shown_table import TableOptions, check_options, read_table

    folder = study_folder(storage, name)
    options = TableOptions(
        metric=metric, class_=class_, aggregation=aggregation, split=split, stage=stage,
        rows=rows.split(",") if rows else None, columns=columns, published=published, hours=hours, search=search,
    )  # fmt: skip
    if search:
        from study.search.table import search_table

        check_options(folder, options)
        say(search_table(folder, format_.value))
        return
    say(render(read_table(folder, options), format_.value))


def compare(  # noqa: PLR0917 - options are given by name
    first: Annotated[str, typer.Argument(metavar="A", help="A study's name.", show_default=False)],
    second: Annotated[str, typer.Argument(metavar="B", help="The name of another study.", show_default=False)],
    metric: Annotated[str, typer.Option(help="A metric, as in `study table`.")] = "mean_iou",
    class_: Annotated[str, typer.Option("--class", help="A class, macro or weighted.")] = "macro",
    aggregation: Annotated[
        str | None, typer.Option(help="dataset or case (default: dataset).", show_default=False)
    ] = None,
    split: Annotated[
        str, typer.Option(help="test, validation, or these with _thresholded or _postprocessed.")
    ] = "test",
    format_: Annotated[TableFormat, typer.Option("--format")] = TableFormat.md,
    storage: Storage = DEFAULT_STORAGE,
) -> None:
    """Compare two studies side by side in the cells they share."""
    from results.tables.render import render
    from study.analysis.compare_studies import compare_two_studies
    from study.analysis.imported.study import aggregation_of

    folder, _ = (study_folder(storage, name) for name in (first, second))
    aggregation = aggregation or aggregation_of(folder, metric)
    filters = {"split": split, "aggregation": aggregation, "metric": metric, "class": class_}
    say(render(compare_two_studies(storage, (first, second), filters), format_.value))


def report(  # noqa: PLR0917 - options are given by name
    name: StudyName,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Default: report/report.html in the study's folder.")
    ] = None,
    figures: Annotated[Path | None, typer.Option(help="Folder to which each figure is also written.")] = None,
    format_: Annotated[FigureFormat, typer.Option("--format", help="Format of these figures.")] = FigureFormat.svg,
    log: Annotated[bool, typer.Option("--log", help="Use a logarithmic axis for labelled images.")] = False,
    images: Annotated[bool, typer.Option(help="Include test images of the data.")] = True,
    storage: Storage = DEFAULT_STORAGE,
    cache: Cache = None,
) -> None:
    """Write the results of a study, finished or not, to one HTML file."""
    from study.report.page import ReportOptions, write_report
    from study.store.store import Store

    folder = study_folder(storage, name)
    path = output or folder / "report" / "report.html"
    options = ReportOptions(figures=figures, format=format_.value, log=log, images=images)
    problem = f"{path} is a folder; allowed: a file" if path.is_dir() else writing_problem(path.parent)
    if problem:
        raise ConfigError([Problem(path="", message=f"{problem}; -o names another place")], name)
    with Store(storage).uploading(name):
        write_report(storage, name, cache=cache_of(cache), output=path, options=options)
    say(f"wrote {path}")
