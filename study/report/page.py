"""`study report`: all results of a study on one self-contained HTML page."""

import io
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from results import figures, schema
from results.report import answers, hours
from results.report import grids as report_grids
from results.report.forecasts import forecast_blocks
from results.report.page import Block, Collapsible, FigureBlock, Items, ReportPage, Section, Text, data_uri, render
from results.tables.budgets import budget_sentences, headline_budgets
from results.tables.layout import is_older
from study.analysis.annotation_cost import annotated_already
from study.analysis.derived_cache import DERIVED, study_table
from study.analysis.imported.study import is_imported, refresh_tables
from study.analysis.tables import read_budgets, write_outcome
from study.config.document import read_document
from study.config.schema import StudySpec
from study.config.validation import parse
from study.monitoring.status import status
from study.monitoring.units import percent
from study.planning.arms import text_of
from study.planning.baselines import family_name
from study.report import cost, provenance
from study.report import data as report_data
from study.report.cases import predict_cases, select_extremes
from study.report.facts import Facts, facts_of, facts_without_plan, read_results
from study.report.figures import Drawer, graph_description
from study.report.imported import imported_page
from study.report.postprocessing import postprocessing_blocks
from study.search.load import stored_plan
from study.store.atomic import AlteredFileError, write_atomic
from study.store.documents import without_hash
from study.store.paths import COMPARISONS, SPEC, TESTS
from study.store.store import Store

if TYPE_CHECKING:
    import pyarrow as pa
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Options of `study report`.

    Attributes:
        figures: Folder that each figure is also saved to.
        format: Format of the saved figures.
        log: Whether the axis of labelled images is logarithmic.
        images: Whether to show test images.
        drawn: Receives each figure of results by its name.
    """

    figures: Path | None = None
    format: str = "svg"
    log: bool = False
    images: bool = True
    drawn: "dict[str, Figure]" = field(default_factory=dict)


def write_report(storage: Path, name: str, *, cache: Path, output: Path, options: ReportOptions) -> Path:
    """Write the report of a study, finished or not, and return its path."""
    write_atomic(output, render(report_page(storage, name, cache=cache, options=options)))
    return output


def report_page(storage: Path, name: str, *, cache: Path, options: ReportOptions) -> ReportPage:
    """Return the report of a study, finished or not; its tables are derived again where they are not up to date."""
    store = Store(storage)
    folder = store.study(name)
    if is_imported(folder):
        refresh_tables(folder)
        return imported_page(folder)
    spec = parse(read_document(folder / SPEC))[0]
    state = status(storage, name)
    plan, no_plan_reason = stored_plan(store, name, cache)
    if plan is not None and (state["state"] != "finished" or not _is_current(folder)):
        write_outcome(plan, store)
    results = read_results(store, name)
    level: schema.Level = spec.compare.level if spec else "labelled_fraction"
    facts = facts_of(plan, store) if plan else facts_without_plan(store, name, results, no_plan_reason, level)
    text = without_hash((folder / SPEC).read_text(encoding="utf-8"))
    return _page(facts, spec, state, results=results, level=level, text=text, options=options, cache=cache)


def _is_current(folder: Path) -> bool:
    """Return whether all tables exist, are unaltered, and have the columns of this version."""
    columns = schema.results(), schema.comparisons(), schema.paired_tests(), schema.budgets(), schema.forecasts()
    tables = dict(zip(DERIVED, columns, strict=True))
    try:
        for name, columns in tables.items():
            study_table(folder, name, columns.names)
    except AlteredFileError:
        return False
    return True


def _page(
    facts: Facts,
    spec: StudySpec | None,
    state: Mapping[str, Any],
    *,
    results: "pa.Table | None",
    level: schema.Level,
    text: str,
    options: ReportOptions,
    cache: Path,
) -> ReportPage:
    comparisons = _comparisons(facts, results)
    drawer = None
    if comparisons is not None and results is not None:
        drawer = Drawer(
            facts=facts, comparisons=comparisons, results=results, level=level, log=options.log, folder=options.figures,
            format=options.format, drawn=options.drawn,
        )  # fmt: skip
    sections = [
        *(_result_sections(drawer, spec) if drawer else ()),
        Section(id="data", title="Data and splits", blocks=list(report_data.data_blocks(facts))),
        Section(id="pathways", title="Pathways", blocks=list(_pathway_blocks(facts, drawer))),
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
            blocks=list(provenance.reproduction_blocks(facts, text, facts.store.place)),
        ),
    ]
    created = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    return ReportPage(
        title=f"Study {facts.name}",
        question=_question(facts, spec),
        answer=_answer(facts, comparisons),
        missing=list(_missing(facts, state, results)),
        sections=sections,
        footer=f"Created {created} from the storage of the study.",
    )


def _answer(facts: Facts, comparisons: "pa.Table | None") -> list[str]:
    """Return the answer, with the best arm of each budget of annotation."""
    if comparisons is None:
        return ["There is no result yet."]
    return [*answers.answer(comparisons), *budget_sentences(_budgets(facts))]


def _comparisons(facts: Facts, results: "pa.Table | None") -> "pa.Table | None":
    import pyarrow.parquet as pq

    file = facts.store.study(facts.name) / COMPARISONS
    if results is None or not file.is_file():
        return None
    table = pq.read_table(study_table(file.parent, COMPARISONS))
    return table if table.num_rows and not is_older(table) else None


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


def _result_sections(drawer: Drawer, spec: StudySpec | None) -> Iterator[Section]:
    table = drawer.comparisons
    notes = list(answers.notes(answers.select_records(table)))
    remarks: list[Block] = [Text(text="Remarks on these numbers:"), Items(items=notes)] if notes else []
    yield Section(id="results", title="Results", blocks=[report_grids.main_grid(table), *remarks])
    yield Section(id="curve", title="Learning curve", blocks=list(_curve_blocks(drawer)))
    rules = spec.compare.baseline if spec else ()
    set_by = {family_name(rule): {name: text_of(value) for name, value in rule.items()} for rule in rules}
    yield Section(id="labels", title="Masks saved", blocks=report_grids.labels_saved(table))
    if blocks := list(_hours_blocks(drawer)):
        yield Section(id="hours", title="Hours of annotation", blocks=blocks)
    pairs = [*drawer.pairs(set_by), *_tests(drawer.facts)]
    if pairs:
        yield Section(id="differences", title="Differences to the baseline", blocks=pairs)
    grids = [grid for metric in ("dice", "mean_iou") if (grid := report_grids.class_grid(table, metric))]
    yield Section(id="classes", title="Results by class", blocks=[*drawer.classes(), *grids])


def _curve_blocks(drawer: Drawer) -> Iterator[Block]:
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


def _pathway_blocks(facts: Facts, drawer: Drawer | None) -> Iterator[Block]:
    if drawer is not None:
        yield from drawer.graph()
        return
    groups = cost.pathway_groups(facts)
    if not groups:
        yield Text(text="No stage is planned or finished yet.")
        return
    svg = data_uri(figures.svg(figures.pathway_graph(groups)))
    yield FigureBlock(data=svg, **graph_description(groups), wide=True)


def _figure_section(drawer: Drawer, cache: Path, options: ReportOptions) -> Iterator[Section]:
    blocks = [*drawer.more_figures(), *(_cases(drawer, cache) if options.images else ())]
    if blocks:
        yield Section(id="figures", title="Further figures", blocks=blocks)


def _postprocessing_section(drawer: Drawer) -> Iterator[Section]:
    chains = drawer.chains(drawer.best) if drawer.best else []
    if blocks := list(postprocessing_blocks(drawer.facts, drawer.comparisons, drawer.best, chains)):
        yield Section(id="postprocessing", title="Post-processing", blocks=blocks)


def _cases(drawer: Drawer, cache: Path) -> Iterator[Block]:
    chains = drawer.chains(drawer.best) if drawer.best else []
    images = select_extremes(drawer.facts, chains) if chains else []
    if not images:
        return
    try:
        cases, classes = predict_cases(drawer.facts, images, cache)
    except (ValueError, OSError, RuntimeError) as error:
        yield Text(text=f"Test images are not shown: {error}.")
        return
    figure = figures.outline_cases(cases, classes)
    drawer.keep("cases", figure)
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=130)
    scores = "; ".join(f"{name} {image.image}: Dice {image.dice:.3f}" for name, image in images)
    yield FigureBlock(
        data=data_uri(png.getvalue()),
        alt=f"Test images with the outlines of truth and prediction. {scores}.",
        caption="Worst, median and best test image of the best cell, before post-processing. Check before sharing.",
        wide=True,
    )


def _search_section(facts: Facts, spec: StudySpec | None) -> Iterator[Section]:
    if spec is not None and spec.search is not None:
        from study.report.search import search_blocks  # imports Optuna

        blocks = list(search_blocks(facts.store.study(facts.name), spec, spec.search))
        yield Section(id="search", title="Search", blocks=blocks)
