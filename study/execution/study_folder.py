"""The folder of a study in its storage: study file, plan and failures of the last run."""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

import yaml

from cluster.protocol import Listener, StageOutcome
from results.figures import is_intact_png, learning_curve
from results.report.forecasts import forecasts_of
from results.schema import HEADLINE
from study.analysis.agreement import read_agreements
from study.analysis.derived_cache import study_table
from study.analysis.tables import curve_path, defined_headline, read_forecasts
from study.config.document import Document
from study.config.schema import with_absolute_places
from study.monitoring.plan_summary import write_plan
from study.planning.graph import Plan
from study.planning.pending import set_damaged_aside
from study.store.atomic import is_newer, set_folder_aside, signed, write_atomic
from study.store.documents import signed_spec
from study.store.paths import COMPARISONS, FAILURES, FILES, RESULTS, SPEC
from study.store.retry import append_with_retries
from study.store.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

    from study.search.arm_search import ArmSearches

Say = Callable[[str], None]


def write_study(plan: Plan, document: Document, store: Store, say: Say, searches: "ArmSearches | None" = None) -> None:
    """Write the file and plan of a study; move damaged files aside first and report them with `say`."""
    folder = store.study(plan.spec.name)
    for path in (folder / name for name in FILES):
        if renamed := set_folder_aside(path):
            say(f"{path} is a folder; it is now {renamed.name}")
    absolute = with_absolute_places(document, plan.spec)
    write_atomic(folder / SPEC, signed_spec(yaml.safe_dump(absolute, sort_keys=False, allow_unicode=True)))
    for damage in set_damaged_aside(plan, store).values():
        say(f"{damage}; it was set aside and will be recreated")
    repaired = searches.repair() if searches is not None else None
    if repaired:
        say(repaired)
    write_plan(plan, store, searches)


def forget_failures(plan: Plan, store: Store) -> None:
    """Remove the failures of the last run."""
    (store.study(plan.spec.name) / FAILURES).unlink(missing_ok=True)


class FailureLog(Listener):
    """Appends the error of each failed stage to the failures of the study."""

    def __init__(self, plan: Plan, store: Store) -> None:
        self._plan, self._file = plan, store.study(plan.spec.name) / FAILURES

    def ended(self, digest: str, outcome: StageOutcome, *, again: bool) -> None:
        """Append the error of a compared stage that is not retried."""
        if again or outcome.status not in ("failed", "redo") or digest not in self._plan.nodes:
            return
        failure = {"digest": digest, "stage": self._plan.nodes[digest].name, "error": outcome.detail}

        def append() -> None:
            with self._file.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(signed(failure)) + "\n")

        append_with_retries(self._file, append)


def draw_learning_curve(plan: Plan, store: Store, comparisons: "pa.Table") -> None:
    """Draw the learning curve unless the stored one is newer than the comparisons.

    None is drawn, and an older one is removed, while the headline is undefined in every cell.
    """
    import pyarrow.parquet as pq

    figure, table = curve_path(store, plan.spec.name), store.study(plan.spec.name) / COMPARISONS
    if not defined_headline(comparisons).num_rows:
        figure.unlink(missing_ok=True)
    elif not (is_newer(figure, table) and is_intact_png(figure)):
        figure.parent.mkdir(exist_ok=True)
        set_folder_aside(figure)
        forecasts = forecasts_of(read_forecasts(table.parent), HEADLINE["metric"])
        agreements = read_agreements(table.parent, HEADLINE)
        results = pq.read_table(study_table(table.parent, RESULTS))
        learning_curve(comparisons, path=figure, agreements=agreements, forecasts=forecasts, results=results)
