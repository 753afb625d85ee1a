"""Output at the end of a run: the table, the path of the figure, failures and next commands."""

import shlex
from collections.abc import Iterator
from pathlib import Path

from results.tables.layout import default_table
from results.tables.render import render
from study.analysis.tables import curve_path
from study.monitoring.stage_records import stage_warnings
from study.run import StudyOutcome
from study.store.store import Store


def outcome_lines(outcome: StudyOutcome, storage: Path) -> Iterator[str]:
    """Yield the lines to print."""
    plan = outcome.plan
    name = plan.spec.name
    store = Store(storage)
    if outcome.comparisons.num_rows:
        yield ""
        yield render(default_table(outcome.comparisons), "md")
        curve = curve_path(store, name)
        yield (
            f"learning curve: {curve}" if curve.exists() else "no learning curve: its metric is undefined in every cell"
        )
    finished = store.finished()
    tasks = {digest: node.step.settings.task for digest, node in plan.nodes.items() if digest in finished}
    for digest, warnings in stage_warnings(store, tasks).items():
        yield f"warning: {plan.nodes[digest].name} {digest[:8]}: {'; '.join(warnings)}"
    for digest, error in outcome.failures.items():
        stage = plan.nodes[digest].name
        yield f"failed: {stage} {digest[:8]}: {error.partition(chr(10))[0]}"
    for arm in outcome.arms_without_result:
        yield f"failed: no candidate of {arm} was completed; study table {name} --search shows the reasons"
    if outcome.skipped:
        yield f"not run: {len(outcome.skipped)} stages that start from failed ones"
    if outcome.failures:
        yield "the same command tries failed stages again; the rest is kept"
    option = "" if storage == Path("runs") else f" --storage {shlex.quote(store.place)}"
    commands = (f"table {name} --metric dice", f"table {name} --format csv", f"status {name}")
    yield "next: " + "; ".join(f"study {command}{option}" for command in commands)
