"""What a finished run tells: the table, what failed, where the picture is, what to do next."""

import shlex
from collections.abc import Iterator
from pathlib import Path

from results.tables.layout import default_table
from results.tables.render import render
from study.analysis.tables import curve_path
from study.planning.graph import Plan
from study.run import Ended
from study.store.store import Store


def ending(plan: Plan, ended: Ended, storage: Path) -> Iterator[str]:
    """Yield the lines."""
    name = plan.spec.name
    store = Store(storage)
    if ended.comparisons.num_rows:
        yield ""
        yield render(default_table(ended.comparisons), "md")
        yield f"learning curve: {curve_path(store, name)}"
    for digest, error in ended.failures.items():
        stage = plan.nodes[digest].recipe.step.stage
        yield f"failed: {stage} {digest[:8]}: {error.partition(chr(10))[0]}"
    for arm in ended.fruitless:
        yield f"failed: no candidate of {arm} came to its end; study table {name} --search tells why"
    if ended.skipped:
        yield f"not run: {len(ended.skipped)} stages that start from failed ones"
    if ended.failures:
        yield "the same command tries what failed once more; the rest is kept"
    where = "" if storage == Path("runs") else f" --storage {shlex.quote(store.place)}"
    commands = (f"table {name} --metric dice", f"table {name} --format csv", f"status {name}")
    yield "next: " + "; ".join(f"study {command}{where}" for command in commands)
