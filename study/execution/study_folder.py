"""The folder of a study in its storage: study file, plan and failures of the last run."""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

import yaml

from results.figures import is_intact_png, learning_curve
from study.analysis.tables import curve_path
from study.config.document import Document
from study.config.schema import with_absolute_places
from study.monitoring.plan_summary import write_plan
from study.planning.graph import Plan
from study.planning.pending import set_damaged_aside
from study.store.atomic import is_newer, set_folder_aside, signed, write_atomic
from study.store.documents import signed_spec
from study.store.paths import COMPARISONS, FAILURES, FILES, SPEC
from study.store.retry import append_with_retries
from study.store.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

Say = Callable[[str], None]


def write_study(plan: Plan, document: Document, store: Store, say: Say) -> None:
    """Write the file and plan of a study; move damaged files aside first and report them with `say`."""
    folder = store.study(plan.spec.name)
    for path in (folder / name for name in FILES):
        if renamed := set_folder_aside(path):
            say(f"{path} is a folder; it is now {renamed.name}")
    absolute = with_absolute_places(document, plan.spec)
    write_atomic(folder / SPEC, signed_spec(yaml.safe_dump(absolute, sort_keys=False, allow_unicode=True)))
    for damage in set_damaged_aside(plan, store).values():
        say(f"{damage}; it was set aside and is made again")
    repaired = plan.searches.repair() if plan.searches is not None else None
    if repaired:
        say(repaired)
    write_plan(plan, store)


def forget_failures(plan: Plan, store: Store) -> None:
    """Remove the failures of the last run."""
    (store.study(plan.spec.name) / FAILURES).unlink(missing_ok=True)


def failure_writer(plan: Plan, store: Store) -> Callable[[str, str], None]:
    """Return a function that appends the error of a stage, given by digest, to the failures."""
    file = store.study(plan.spec.name) / FAILURES

    def write(digest: str, error: str) -> None:
        failure = {"digest": digest, "stage": plan.nodes[digest].recipe.step.stage, "error": error}

        def append() -> None:
            with file.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(signed(failure)) + "\n")

        append_with_retries(file, append)

    return write


def draw_learning_curve(plan: Plan, store: Store, comparisons: "pa.Table") -> None:
    """Draw the learning curve unless the stored one is newer than the comparisons."""
    figure, table = curve_path(store, plan.spec.name), store.study(plan.spec.name) / COMPARISONS
    if comparisons.num_rows and not (is_newer(figure, table) and is_intact_png(figure)):
        figure.parent.mkdir(exist_ok=True)
        set_folder_aside(figure)
        learning_curve(comparisons, path=figure)
