"""`study report`: all results of a study on one self-contained HTML page."""

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from results import figures, schema
from results.report import answers, hours
from results.report import grids as report_grids
from results.report.forecasts import forecast_blocks
from results.report.page import Block, Collapsible, Items, ReportPage, Section, Text, render
from results.report.study_figure import Drawn, StudyFigure
from results.tables.budgets import budget_sentences, headline_budgets
from study.analysis.annotation_cost import annotated_already
from study.analysis.derived_cache import study_table
from study.analysis.imported.study import is_imported, refresh_tables
from study.analysis.tables import read_budgets
from study.config.schema import StudySpec
from study.monitoring.units import percent
from study.planning.arms import text_of
from study.planning.baselines import family_name
from study.report import cost, provenance
from study.report import data as report_data
from study.report.facts import Facts
from study.report.figures import Drawer, pathway_figure
from study.report.imported import imported_page
from study.report.opened import OpenedStudy, open_study
from study.report.postprocessing import postprocessing_blocks
from study.store.atomic import write_atomic
from study.store.paths import TESTS
from study.store.store import Store

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Options of `study report`.

    Attributes:
        figures: Folder that each figure is also saved to.
        format: Format of the saved figures.
        log: Whether the axis of labelled images is logarithmic.
        images: Whether to show test images.
    """

    figures: Path | None = None
    format: str = "svg"
    log: bool = False
    images: bool = True


def write_report(storage: Path, name: str, *, cache: Path, output: Path, options: ReportOptions) -> Path:
    """Write the report of a study, finished or not, and return its path."""
    folder = Store(storage).study(name)
    if is_imported(folder):
        refresh_tables(folder)
        write_atomic(output, render(imported_page(folder)))
        return output
    opened = open_study(storage, name, cache=cache, log=options.log)
    write_atomic(output, render(_page(opened, options, cache)))
    return output


def _blocks(drawn: Iterable[Drawn | Block], options: ReportOptions) -> Iterator[Block]:
    """Yield the figures as blocks of the page; with a folder in the options each is also saved there."""
    for block in drawn:
        if isinstance(block, StudyFigure):
            if options.figures is not None:
                figures.save(block.figure, options.figures / f"{block.name}.{options.format}")
            yield block.block()
        else:
            yield block


def _page(opened: OpenedStudy, options: ReportOptions, cache: Path) -> ReportPage:
    facts, spec, state, drawer = opened.facts, opened.spec, opened.state, opened.drawer
    comparisons = None if drawer is None else drawer.comparisons
    sections = [
        *(_result_sections(drawer, spec, options) if drawer else ()),
        Section(id="data", title="Data and splits", blocks=list(report_data.data_blocks(facts))),
        Section(id="pathways", title="Pathways", blocks=list(_blocks(pathway_figure(facts), options))),
        *(_postprocessing_section(drawer) if drawer else ()),
        *(_figure_section(drawer, cache, options) if drawer else ()),
        Section(id="transfer", title="Transfer of weights", blocks=list(provenance.transfer_blocks(facts))),
        *_search_section(facts, spec),
        Section(id="failures", title="Failures", blocks=list(provenance.failure_blocks(facts, state["failures"]))),
        Section(id="cost", title="Cost", blocks=list(cost.cost_blocks(facts))),
        Section(id="software", title="Software", blocks=list(provenance.version_blocks(facts))),
        Section(
            id="again",
            title="Reproducing the study",
            blocks=list(provenance.reproduction_blocks(facts, opened.text, facts.store.place)),
        ),
    ]
    created = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    return ReportPage(
        title=f"Study {facts.name}",
        question=_question(facts, spec),
        answer=_answer(facts, comparisons),
        missing=list(_missing(facts, state, opened.results)),
        sections=sections,
        footer=f"Created {created} from the storage of the study.",
    )


def _answer(facts: Facts, comparisons: "pa.Table | None") -> list[str]:
    """Return the answer, with the best arm of each budget of annotation."""
    if comparisons is None:
        return ["There is no result yet."]
    return [*answers.answer(comparisons), *budget_sentences(_budgets(facts))]


def _question(facts: Facts, spec: StudySpec | None) -> str:
    if spec is None:
        return "Which arm segments best, and by how much?"
    compare = spec.compare
    axes = {
        "pathways": compare.pathway or tuple(spec.pathways),
        "architectures": compare.architecture,
        "backbones": compare.backbone,
        "initial weights": compare.initial_weights,
        **compare.factors,
    }
    varied = [f"{name} {', '.join(map(text_of, values))}" for name, values in axes.items() if len(values) > 1]
    levels = [f"{level} images" if isinstance(level, int) else percent(level) for level in compare.labelled]
    amounts = " or ".join(levels) if len(levels) < 5 else f"{len(levels)} amounts from {levels[0]} to {levels[-1]}"
    target = facts.plan.target if facts.plan else next(iter(_targets(spec)), "the target")
    factors = "; ".join(varied) or "arm"
    baseline = (
        f", and is it better than the baseline ({'; '.join(map(family_name, compare.baseline))})"
        if compare.baseline
        else ""
    )
    return f"Which of the {factors} segments {target} best when {amounts} of the training masks may be used{baseline}?"


def _targets(spec: StudySpec) -> Iterator[str]:
    for links in spec.pathways.values():
        yield spec.stages[links[-1].stage].data


def _missing(facts: Facts, state: Mapping[str, Any], results: "pa.Table | None") -> Iterator[str]:
    stages = state["stages"]
    if state["state"] != "finished" or stages["finished"] < stages["total"]:
        yield (
            f"The study is {state['state']}: {stages['finished']} of {stages['total']} stages are finished, "
            f"{stages['running']} running, {stages['waiting']} waiting, {stages['failed']} failed."
        )
        if facts.plan is not None:
            scored = 0 if results is None else _replicates(results)
            yield f"{scored} of {len(facts.plan.replicates)} runs have results; the numbers below may change."
    if facts.plan is None:
        yield f"The report was created from the stored results alone, without the data: {facts.no_plan_reason}."


def _replicates(results: "pa.Table") -> int:
    columns = [*schema.factor_columns(results.column_names), *schema.SIZES, "fold", "seed"]
    return int(results.select(columns).group_by(columns).aggregate([]).num_rows)


def _result_sections(drawer: Drawer, spec: StudySpec | None, options: ReportOptions) -> Iterator[Section]:
    table = drawer.comparisons
    notes = list(answers.notes(answers.select_records(table)))
    remarks: list[Block] = [Text(text="Remarks on these numbers:"), Items(items=notes)] if notes else []
    yield Section(id="results", title="Results", blocks=[report_grids.main_grid(table), *remarks])
    yield Section(id="curve", title="Learning curve", blocks=list(_blocks(_curve_blocks(drawer), options)))
    yield Section(id="labels", title="Masks saved", blocks=report_grids.labels_saved(table))
    if blocks := list(_hours_blocks(drawer)):
        yield Section(id="hours", title="Hours of annotation", blocks=blocks)
    pairs = [*_blocks(drawer.pairs(), options), *_tests(drawer.facts)]
    if pairs:
        yield Section(id="differences", title="Differences to the baseline", blocks=pairs)
    grids = [grid for metric in ("dice", "mean_iou") if (grid := report_grids.class_grid(table, metric))]
    yield Section(id="classes", title="Results by class", blocks=[*_blocks(drawer.classes(), options), *grids])


def _curve_blocks(drawer: Drawer) -> Iterator[Drawn | Block]:
    yield from drawer.curves()
    yield from forecast_blocks(drawer.forecast_records(), drawer.best)
    yield from drawer.curves_over_hours()


def _hours_blocks(drawer: Drawer) -> Iterator[Block]:
    blocks = list(hours.hours_blocks(drawer.comparisons, _budgets(drawer.facts)))
    yield from blocks
    if blocks and drawer.facts.plan is not None:
        yield from hours.already_annotated(annotated_already(drawer.facts.plan))


def _budgets(facts: Facts) -> list[schema.ComparisonRecord]:
    """Return the headline series of the arms at equal hours of annotation."""
    table = read_budgets(facts.store.study(facts.name))
    return [] if table is None else headline_budgets(table)


def _tests(facts: Facts) -> Iterator[Block]:
    import pyarrow.parquet as pq

    file = facts.store.study(facts.name) / TESTS
    grid = report_grids.grid_of_tests(pq.read_table(study_table(file.parent, TESTS))) if file.is_file() else None
    if grid is not None:
        yield Collapsible(title=f"All {len(grid.rows)} tests, and what each generalises to", blocks=[grid])


def _figure_section(drawer: Drawer, cache: Path, options: ReportOptions) -> Iterator[Section]:
    drawn = [*drawer.more_figures(), *(drawer.cases(cache) if options.images else ())]
    blocks = list(_blocks(drawn, options))
    if blocks:
        yield Section(id="figures", title="Further figures", blocks=blocks)


def _postprocessing_section(drawer: Drawer) -> Iterator[Section]:
    chains = drawer.chains(drawer.best) if drawer.best else []
    if blocks := list(postprocessing_blocks(drawer.facts, drawer.comparisons, drawer.best, chains)):
        yield Section(id="postprocessing", title="Post-processing", blocks=blocks)


def _search_section(facts: Facts, spec: StudySpec | None) -> Iterator[Section]:
    if spec is not None and spec.search is not None:
        from study.report.search import search_blocks  # imports Optuna

        blocks = list(search_blocks(facts.store.study(facts.name), spec, spec.search))
        yield Section(id="search", title="Search", blocks=blocks)
