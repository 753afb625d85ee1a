"""The table that `study table` shows: comparisons, budgets of annotation, or scores of a localisation stage."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from study.errors import ConfigError, Problem
from study.store.paths import IMPORTED, SPEC

if TYPE_CHECKING:
    from results.tables.layout import Table


@dataclass(frozen=True, kw_only=True)
class TableOptions:
    """What a table shows.

    Attributes:
        metric: The metric; default: mean IoU (pooled) and Dice (per case).
        class_: A class, macro or weighted.
        aggregation: dataset or case; default: that of the metric.
        split: The split; default: test.
        stage: A localisation stage whose scores are shown instead of those of target stages.
        rows: Factors of the rows; default: those that vary.
        columns: The factor of the columns.
        published: Whether results that papers report are shown too.
        hours: Whether the arms at equal hours of annotation are shown instead.
        search: Whether the trials of the search are shown instead.
    """

    metric: str | None = None
    class_: str = "macro"
    aggregation: str | None = None
    split: str | None = None
    stage: str | None = None
    rows: Sequence[str] | None = None
    columns: str | None = None
    published: bool = False
    hours: bool = False
    search: bool = False


def check_options(folder: Path, options: TableOptions) -> None:
    """Raise `ConfigError` for options that exclude each other, or that imported results do not have."""
    if (options.search or options.published) and (folder / IMPORTED).is_file():
        option = "--search" if options.search else "--published"
        message = f"{option} needs a study file, which imported results do not have; leave the option out"
        raise ConfigError([Problem(path="", message=message)], folder.name)
    unused = {
        "--class": options.class_ != "macro",
        "--aggregation": options.aggregation is not None,
        "--columns": options.columns is not None,
        "--hours": options.hours,
    }
    if not options.search and options.stage is not None and any(unused.values()):
        option = next(option for option, is_given in unused.items() if is_given)
        allowed = "allowed: --metric, --split and --rows, as these scores have no classes; leave it out"
        raise ConfigError([Problem(path="", message=f"{option} with --stage; {allowed}")], folder.name)


def read_table(folder: Path, options: TableOptions) -> "Table":
    """Return the table of a study, or of imported results; trials of a search are in `study.search.table`.

    Raises:
        ConfigError: The options exclude each other or name something that the study does not have.
    """
    check_options(folder, options)
    if options.stage is not None:
        return _stage_table(folder, options.stage, options)
    if options.hours:
        return _hours_table(folder, options)
    grid = _comparison_table(folder, options)
    if options.published:
        from study.analysis.published import with_published

        grid = with_published(grid, folder / SPEC)
    return grid


def _comparison_table(folder: Path, options: TableOptions) -> "Table":
    """Return the comparisons of a study with notes on data sets, annotators and budgets. Raises `ConfigError`."""
    from results.schema import HEADLINE, unit_of
    from results.tables.layout import default_table
    from results.tables.layout import table as lay_out
    from study.analysis.agreement import read_agreements
    from study.analysis.imported.study import aggregation_of, data_set_notes, series_without_headline
    from study.analysis.tables import read_comparisons

    metric, class_, aggregation = options.metric, options.class_, options.aggregation
    split, rows, columns = options.split or "test", options.rows, options.columns
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


def _hours_table(folder: Path, options: TableOptions) -> "Table":
    """Return the table of the arms at equal hours of annotation. Raises `ConfigError`."""
    from results.schema import HEADLINE, default_aggregation
    from results.tables.budgets import budget_table
    from study.analysis.tables import read_budgets

    budgets = read_budgets(folder)
    message = ""
    if budgets is None:
        message = "--hours needs budgets; allowed: a study with compare.hours; add them to its file and run it again"
    elif options.columns is not None:
        message = f"--columns is {options.columns}; allowed: none with --hours, whose columns are budgets; leave it out"
    if budgets is None or message:
        raise ConfigError([Problem(path="", message=message)], folder.name)
    try:
        metric = options.metric or HEADLINE["metric"]
        return budget_table(
            budgets, metric=metric, class_=options.class_, split=options.split or "test",
            aggregation=options.aggregation or default_aggregation(metric), rows=options.rows,
        )  # fmt: skip
    except ValueError as error:
        raise ConfigError([Problem(path="", message=str(error))], folder.name) from error


def _budget_notes(folder: Path) -> list[str]:
    """Return the best arm of each budget in the headline series."""
    from results.tables.budgets import budget_sentences, headline_budgets
    from study.analysis.tables import read_budgets

    table = read_budgets(folder)
    return [] if table is None else budget_sentences(headline_budgets(table))


def _stage_table(folder: Path, stage: str, options: TableOptions) -> "Table":
    """Return the table of the scores of one stage. Raises `ConfigError`."""
    from results.tables.stage_scores import stage_table
    from study.analysis.published import with_published
    from study.analysis.stage_scores import read_stage_scores

    try:
        grid = stage_table(
            read_stage_scores(folder), stage, metric=options.metric, split=options.split, rows=options.rows
        )
    except ValueError as error:
        raise ConfigError([Problem(path="", message=str(error))], folder.name) from error
    return with_published(grid, folder / SPEC) if options.published else grid
