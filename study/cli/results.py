"""Commands for results: `study table`, `study compare` and `study report`."""

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from study.cli.console import say
from study.cli.options import DEFAULT_STORAGE, Cache, Storage, StudyName, cache_of, study_folder
from study.errors import ConfigError, Problem
from study.store.atomic import writing_problem
from study.store.paths import IMPORTED, SPEC

if TYPE_CHECKING:
    from results.tables.layout import Table


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
    from results.schema import HEADLINE
    from results.tables.render import render

    folder = study_folder(storage, name)
    if (search or published) and (folder / IMPORTED).is_file():
        option = "--search" if search else "--published"
        message = f"{option} needs a study file, which imported results do not have; leave the option out"
        raise ConfigError([Problem(path="", message=message)], name)
    if search:
        from study.search.table import search_table

        say(search_table(folder, format_.value))
        return
    factors = rows.split(",") if rows else None
    unused = {"--class": class_ != "macro", "--aggregation": aggregation is not None, "--columns": columns is not None}
    unused["--hours"] = hours
    if stage is not None and any(unused.values()):
        option = next(option for option, is_given in unused.items() if is_given)
        allowed = "allowed: --metric, --split and --rows, as these scores have no classes; leave it out"
        message = f"{option} with --stage; {allowed}"
        raise ConfigError([Problem(path="", message=message)], name)
    if stage is not None:
        say(_stage_table(folder, stage, metric, split, factors, published=published, format_=format_.value))
        return
    split = split or "test"
    if hours:
        series = {"metric": metric or HEADLINE["metric"], "class_": class_, "split": split}
        say(_hours_table(folder, series, aggregation, factors, columns, format_.value))
        return
    grid = _comparison_table(folder, metric, class_, aggregation, split, factors, columns)
    if published:
        from study.analysis.published import with_published

        grid = with_published(grid, folder / SPEC)
    say(render(grid, format_.value))


def _comparison_table(
    folder: Path, metric: str | None, class_: str, aggregation: str | None, split: str, rows: list[str] | None,
    columns: str | None,
) -> "Table":  # fmt: skip
    """Return the comparisons of a study with notes on data sets, annotators and budgets. Raises `ConfigError`."""
    from results.schema import HEADLINE, unit_of
    from results.tables.layout import default_table
    from results.tables.layout import table as lay_out
    from study.analysis.agreement import read_agreements
    from study.analysis.imported.study import aggregation_of, data_set_notes, series_without_headline
    from study.analysis.tables import read_comparisons

    is_default = metric is None and aggregation is None
    try:
        if is_default and (first := series_without_headline(folder)) is not None:
            metric, class_, aggregation = first["metric"], first["class"], first["aggregation"]
        if metric is None and aggregation is None:
            comparisons = read_comparisons(folder, {"split": split, "class": class_})
            grid = default_table(comparisons, class_=class_, split=split, rows=rows, columns=columns)
        else:
            metric = metric or "mean_iou"
            aggregation = aggregation or aggregation_of(folder, metric)
            filters = {"split": split, "class": class_, "metric": metric, "aggregation": aggregation}
            comparisons = read_comparisons(folder, filters)
            grid = lay_out(
                comparisons, metric=metric, class_=class_, aggregation=aggregation, split=split, rows=rows,
                columns=columns,
            )  # fmt: skip
    except ValueError as error:
        raise ConfigError([Problem(path="", message=str(error))], folder.name) from error
    series = {"metric": metric, "class": class_, "aggregation": aggregation, "split": split}
    notes = data_set_notes(folder, series)
    if is_default and (class_, split) == (HEADLINE["class"], HEADLINE["split"]):
        notes += _budget_notes(folder)
    unit = unit_of([cell.record for line in grid.grid for cell in line if cell is not None]) if metric else ""
    notes += [agreement.sentence(metric or HEADLINE["metric"], unit) for agreement in read_agreements(folder, series)]
    return replace(grid, notes=(*grid.notes, *notes))


def _hours_table(
    folder: Path, series: dict[str, str], aggregation: str | None, rows: list[str] | None, columns: str | None,
    format_: str,
) -> str:  # fmt: skip
    """Return the table of the arms at equal hours of annotation. Raises `ConfigError`."""
    from results.schema import default_aggregation
    from results.tables.budgets import budget_table
    from results.tables.render import render
    from study.analysis.tables import read_budgets

    budgets = read_budgets(folder)
    message = ""
    if budgets is None:
        message = "--hours needs budgets; allowed: a study with compare.hours; add them to its file and run it again"
    elif columns is not None:
        message = f"--columns is {columns}; allowed: none with --hours, whose columns are budgets; leave it out"
    if budgets is None or message:
        raise ConfigError([Problem(path="", message=message)], folder.name)
    try:
        aggregation = aggregation or default_aggregation(series["metric"])
        grid = budget_table(budgets, **series, aggregation=aggregation, rows=rows)
    except ValueError as error:
        raise ConfigError([Problem(path="", message=str(error))], folder.name) from error
    return render(grid, format_)


def _budget_notes(folder: Path) -> list[str]:
    """Return the best arm of each budget in the headline series."""
    from results.tables.budgets import budget_sentences, headline_budgets
    from study.analysis.tables import read_budgets

    table = read_budgets(folder)
    return [] if table is None else budget_sentences(headline_budgets(table))


def _stage_table(
    folder: Path, stage: str, metric: str | None, split: str | None, rows: list[str] | None, *, published: bool,
    format_: str,
) -> str:  # fmt: skip
    """Return the table of the scores of one stage. Raises `ConfigError`."""
    from results.tables.render import render
    from results.tables.stage_scores import stage_table
    from study.analysis.published import with_published
    from study.analysis.stage_scores import read_stage_scores

    try:
        grid = stage_table(read_stage_scores(folder), stage, metric=metric, split=split, rows=rows)
    except ValueError as error:
        raise ConfigError([Problem(path="", message=str(error))], folder.name) from error
    return render(with_published(grid, folder / SPEC) if published else grid, format_)


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
