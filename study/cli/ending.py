"""What a run prints at its end: the table, failures, where the figure is, what to do next."""

import shlex
from collections.abc import Iterator
from pathlib import Path

from results.tables.layout import default_table
from results.tables.render import render
from study.analysis.tables import curve_path
from study.run import StudyOutcome
from study.store.store import Store


def ending(outcome: StudyOutcome, storage: Path) -> Iterator[str]:
    """Yield the lines."""
    plan = outcome.plan
    name = plan.spec.name
    store = Store(storage)
    if outcome.comparisons.num_rows:
        yield ""
        yield render(default_table(outcome.comparisons), "md")
        yield f"learning curve: {curve_path(store, name)}"
    for digest, error in outcome.failures.items():
        stage = plan.nodes[digest].recipe.step.stage
        yield f"failed: {stage} {digest[:8]}: {error.partition(chr(10))[0]}"
    for arm in outcome.arms_without_result:
        yield f"failed: no candidate of {arm} came to its end; study table {name} --search tells why"
    if outcome.skipped:
        yield f"not run: {len(outcome.skipped)} stages that start from failed ones"
    if outcome.failures:
        yield "the same command tries what failed once more; the rest is kept"
    where = "" if storage == Path("runs") else f" --storage {shlex.quote(store.place)}"
    commands = (f"table {name} --metric dice", f"table {name} --format csv", f"status {name}")
    yield "next: " + "; ".join(f"study {command}{where}" for command in commands)
