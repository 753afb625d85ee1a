"""The report of imported results: they have no stages, data and study file."""

import time
from collections.abc import Mapping
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from results.report.answers import arm_name, best_cell, format_number, interval_text, varying_factors
from results.report.grids import series_grid
from results.report.page import Items, ReportPage, Section
from results.schema import HEADLINE, SERIES, ComparisonRecord, metric_title
from study.analysis.derived_cache import study_table
from study.analysis.imported.study import data_set_notes, read_imported
from study.store.paths import COMPARISONS


def imported_page(folder: Path) -> ReportPage:
    """Return the report of an imported study: one section for each metric, the headline metric first."""
    table, imported = pq.read_table(study_table(folder, COMPARISONS)), read_imported(folder)
    records: list[ComparisonRecord] = table.filter(pc.field("split") == "test").to_pylist()
    by_series: dict[tuple[str, ...], list[ComparisonRecord]] = {}
    for record in records:
        by_series.setdefault(tuple(record[name] for name in SERIES), []).append(record)
    headline = tuple(HEADLINE[name] for name in SERIES)
    ordered = sorted(by_series, key=lambda series: series != headline)
    sections = [_section(folder, dict(zip(SERIES, series, strict=True)), by_series[series]) for series in ordered]
    settings = imported["settings"]
    design = "each fold has its own test images" if settings["design"] == "cv" else "all replicates share test images"
    created = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    return ReportPage(
        title=f"Study {folder.name}",
        question="Which arm is best, and by how much?",
        answer=[_answer(by_series[ordered[0]], ordered[0])] if ordered else ["There is no result on test images."],
        missing=[f"These {imported['lines']:,} values were imported from {imported['source']}; {design}."],
        sections=sections,
        footer=f"Created {created} from the storage of the study.",
    )


def _section(folder: Path, series: Mapping[str, str], records: list[ComparisonRecord]) -> Section:
    title = _title(series)
    notes = data_set_notes(folder, series)
    identifier = "-".join(series.values()).replace(" ", "-").replace("/", "-")
    return Section(
        id=identifier, title=title, blocks=[series_grid(records, title), *([Items(items=notes)] if notes else ())]
    )


def _title(series: Mapping[str, str]) -> str:
    how = "pooled" if series["aggregation"] == "dataset" else "per case"
    class_ = "" if series["class"] == "macro" else f", {series['class']}"
    return f"{metric_title(series['metric'])} ({how}{class_})"


def _answer(records: list[ComparisonRecord], series: tuple[str, ...]) -> str:
    best, title = best_cell(records), _title(dict(zip(SERIES, series, strict=True)))
    if best is None:
        return f"{title}: no arm has all its replicates."
    arm = arm_name(best, varying_factors(records))
    return f"{title}: {arm} is best with {format_number(best['mean'])} ({interval_text(best)})."
