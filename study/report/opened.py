"""A study as its report and its figures need it, from the store and, where the data can be read, its plan."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from results import schema
from results.tables.layout import is_older
from study.analysis.derived_cache import DERIVED, study_table
from study.analysis.tables import write_outcome
from study.config.document import read_document
from study.config.schema import StudySpec
from study.config.validation import parse
from study.monitoring.status import status
from study.planning.arms import text_of
from study.planning.baselines import family_name
from study.report.facts import Facts, facts_of, facts_without_plan, read_results
from study.report.figures import Drawer
from study.search.load import stored_plan
from study.store.atomic import AlteredFileError
from study.store.documents import without_hash
from study.store.paths import COMPARISONS, SPEC
from study.store.store import Store

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, kw_only=True)
class OpenedStudy:
    """A study: its stages, file and state, its results, and what draws its figures; None before there are results."""

    facts: Facts
    spec: StudySpec | None
    state: Mapping[str, Any]
    results: "pa.Table | None"
    drawer: Drawer | None
    text: str
    """The text of the study file."""


def open_study(storage: Path, name: str, *, cache: Path, log: bool = False) -> OpenedStudy:
    """Read a study, finished or not; tables that are not current are written again.

    Args:
        storage: Folder of the store.
        name: Name of the study; not of imported results.
        cache: Folder of the caches of the data.
        log: Whether figures have a logarithmic axis of labelled images.
    """
    store = Store(storage)
    folder = store.study(name)
    spec = parse(read_document(folder / SPEC))[0]
    state = status(storage, name)
    plan, no_plan_reason = stored_plan(store, name, cache)
    if plan is not None and (state["state"] != "finished" or not _is_current(folder)):
        write_outcome(plan, store)
    results = read_results(store, name)
    level: schema.Level = spec.compare.level if spec else "labelled_fraction"
    facts = facts_of(plan, store) if plan else facts_without_plan(store, name, results, no_plan_reason, level)
    comparisons = _comparisons(facts, results)
    drawer = None
    if comparisons is not None and results is not None:
        rules = spec.compare.baseline if spec else ()
        baselines = {family_name(rule): {name: text_of(value) for name, value in rule.items()} for rule in rules}
        drawer = Drawer(
            facts=facts, comparisons=comparisons, results=results, level=level, log=log, baselines=baselines
        )
    text = without_hash((folder / SPEC).read_text(encoding="utf-8"))
    return OpenedStudy(facts=facts, spec=spec, state=state, results=results, drawer=drawer, text=text)


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


def _comparisons(facts: Facts, results: "pa.Table | None") -> "pa.Table | None":
    import pyarrow.parquet as pq

    file = facts.store.study(facts.name) / COMPARISONS
    if results is None or not file.is_file():
        return None
    table = pq.read_table(study_table(file.parent, COMPARISONS))
    return table if table.num_rows and not is_older(table) else None
